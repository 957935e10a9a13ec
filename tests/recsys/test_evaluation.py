"""Ranking metrics against other ways of working them out, and the splits that they are had on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from recsys import ranking_metrics as metrics
from recsys.bound import bind
from recsys.call import Interaction
from recsys.catalogue import Catalogue, Item, ItemSchema
from recsys.errors import RecsysError
from recsys.evaluation import (
    BASELINE,
    MostChosen,
    compare,
    evaluate,
    per_user_split,
    time_split,
)
from recsys.interactions import Interactions
from recsys.settings import TrainSettings
from recsys.training import train
from tests.recsys.worlds import call, catalogue, interactions

HITS = np.array([[True, False, True, False], [False, False, False, True], [False] * 4])
RELEVANT = np.array([6, 1, 2])


def test_metrics_of_three_lists_worked_by_hand() -> None:
    log3, log5 = math.log2(3), math.log2(5)
    first = (1 + 1 / 2) / (1 + 1 / log3 + 1 / 2 + 1 / log5)
    np.testing.assert_allclose(metrics.ndcg(HITS, RELEVANT), [first, 1 / log5, 0])
    np.testing.assert_allclose(metrics.recall(HITS, RELEVANT), [2 / 6, 1, 0])
    np.testing.assert_allclose(metrics.hit_rate(HITS), [1, 1, 0])
    np.testing.assert_allclose(
        metrics.average_precision(HITS, RELEVANT), [(1 + 2 / 3) / 4, 1 / 4, 0]
    )


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 2**12 - 1))
def test_ndcg_and_map_are_scikit_learns_where_everything_is_ranked(
    n: int, k: int, bits: int
) -> None:
    """scikit-learn's ideal list is cut at k as ours is; its AP is ours where k is all."""
    relevance = np.array([bits >> i & 1 for i in range(n)], np.bool_)
    scores = np.arange(n, 0, -1.0)
    if not relevance.any():
        return
    k = min(k, n)
    relevant = np.array([relevance.sum()])
    ours = metrics.ndcg(relevance[None, :k], relevant)[0]
    assert ours == pytest.approx(ndcg_score(relevance[None].astype(int), scores[None], k=k))
    whole = metrics.average_precision(relevance[None], relevant)[0]
    assert whole == pytest.approx(average_precision_score(relevance, scores))


def test_novelty_diversity_calibration_and_coverage_worked_by_hand() -> None:
    lists = np.array([[0, 1], [2, -1]])
    np.testing.assert_allclose(metrics.novelty(lists, np.array([0.5, 0.25, 1.0])), [1.5, 0.0])
    similar = np.array([[1, 0.25, 0.5], [0.25, 1, 0], [0.5, 0, 1]])
    three = np.array([[0, 1, 2], [0, 1, -1], [1, -1, -1]])
    diversity = metrics.intra_list_diversity(three, lambda a, b: similar[np.ix_(a, b)])
    np.testing.assert_allclose(diversity, [0.75, 0.75, 0.0])
    assert metrics.coverage(lists, 6) == 0.5
    history = np.array([[2.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    shown = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    away = metrics.miscalibration(history, shown)
    np.testing.assert_allclose(away[:2], [0.0, math.log(100)], atol=1e-12)
    assert np.isnan(away[2])


def test_the_bootstrap_covers_the_mean_at_its_rate() -> None:
    """Of 200 samples the misses are binomial; 95 % intervals miss at most 22 with .999."""
    rng = np.random.default_rng(0)
    missed = 0
    for sample in range(200):
        low, high = metrics.bootstrap(rng.beta(0.5, 2.0, 150), 300, sample, 0.05)
        missed += not low <= 0.2 <= high
    assert 2 <= missed <= 22


# Splits -------------------------------------------------------------------------------------------


def pairs(table: Interactions) -> list[tuple[str, str]]:
    codes = zip(table.user, table.item, strict=True)
    return [(table.user_ids[user], table.item_ids[item]) for user, item in codes]


def test_each_users_last_fifth_is_held_out_rounded_up_by_time_and_item() -> None:
    users = ["u"] * 6 + ["v"] * 5 + ["w"] * 4
    items = [*"abcdef", *"abcde", *"abcd"]
    at = [1, 2, 3, 9, 9, 9, 1, 1, 1, 1, 1, 1, 2, 3, 4]
    split = per_user_split(Interactions.of(users, items, at))
    assert sorted(pairs(split.held_out)) == [("u", "e"), ("u", "f"), ("v", "e")]
    assert split.training.user_ids == ("u", "v")
    assert len(split.training) == 8


def test_the_split_by_time_holds_out_what_came_later_and_was_new() -> None:
    users = ["u", "u", "v", "u", "v", "w", "u", "v", "w", "u"]
    items = ["a", "b", "a", "c", "b", "a", "d", "c", "b", "a"]
    split = time_split(Interactions.of(users, items, range(10)), share=0.3)
    assert len(split.training) == 7
    assert pairs(split.held_out) == [("v", "c"), ("w", "b")]
    assert split.training.at.max() < split.held_out.at.min()


def test_what_cannot_be_split_is_refused() -> None:
    few = Interactions.of(["u"] * 4, list("abcd"), range(4))
    with pytest.raises(RecsysError, match="no user of 1 has 5 interactions"):
        per_user_split(few)
    at_once = Interactions.of(["u"] * 4, list("abcd"), [1] * 4)
    with pytest.raises(RecsysError, match="all 4 interactions lie before the cut"):
        time_split(at_once)
    for split in (per_user_split, time_split):
        with pytest.raises(RecsysError, match=r"share held out is 1.5"):
            split(few, share=1.5)


# Evaluation ---------------------------------------------------------------------------------------

CATALOGUE = catalogue()
SPLIT = per_user_split(interactions())


def test_an_evaluation_is_what_a_plain_loop_finds() -> None:
    source = bind(train(CATALOGUE, SPLIT.training), CATALOGUE)
    found = evaluate("ease", source, CATALOGUE, SPLIT, k=5)
    training: dict[str, set[str]] = {}
    chosen: dict[str, int] = {}
    for u, i in zip(SPLIT.training.user, SPLIT.training.item, strict=True):
        item_id = SPLIT.training.item_ids[i]
        training.setdefault(SPLIT.training.user_ids[u], set()).add(item_id)
        chosen[item_id] = chosen.get(item_id, 0) + 1
    held: dict[str, list[tuple[int, str]]] = {}
    table = SPLIT.held_out
    for u, i, at in zip(table.user, table.item, table.at, strict=True):
        held.setdefault(table.user_ids[u], []).append((int(at), table.item_ids[i]))
    gains, recalls, novelties, shown = [], [], [], set()
    for user_id, later in held.items():
        rows = np.flatnonzero(SPLIT.training.user == SPLIT.training.user_ids.index(user_id))
        seen = tuple(
            call_history(SPLIT.training.item_ids[SPLIT.training.item[r]], int(SPLIT.training.at[r]))
            for r in rows
        )
        allowed = np.array([i in chosen and i not in training[user_id] for i in CATALOGUE.ids])
        asked = call(history=seen, now=min(later)[0])
        listed = source.candidates(asked, CATALOGUE, "for_you", allowed, 5)
        names = [CATALOGUE.ids[row] for row in listed.rows]
        wanted = {item_id for _, item_id in later}
        gain = sum(1 / math.log2(j + 2) for j, name in enumerate(names) if name in wanted)
        gains.append(gain / sum(1 / math.log2(j + 2) for j in range(min(5, len(wanted)))))
        recalls.append(len(wanted & set(names)) / len(wanted))
        novelties.append(np.mean([-math.log2(chosen[name] / 150) for name in names]))
        shown |= set(names)
    assert found.users == 150
    assert found["ndcg"].value == pytest.approx(np.mean(gains))
    assert found["recall"].value == pytest.approx(np.mean(recalls))
    assert found["novelty"].value == pytest.approx(np.mean(novelties))
    assert found["coverage"].value == pytest.approx(len(shown) / len(chosen))
    assert found["coverage"].low is None
    for figure in found.figures[:-1]:
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high


def call_history(item_id: str, at: int) -> Interaction:

    return Interaction(item_id, "view", at)


def test_a_recommender_of_tastes_beats_the_baseline_where_users_have_them() -> None:
    kinds = {kind: TrainSettings(kind=kind, factors=8) for kind in ("ease", "als", "item_knn")}
    for split in (SPLIT, time_split(interactions())):
        baseline, *others = compare(CATALOGUE, split, kinds, k=5, draws=200)
        assert (baseline.name, baseline.split) == (BASELINE, split.kind)
        assert [other.name for other in others] == ["ease", "als", "item_knn"]
        high = baseline["ndcg"].high
        assert high is not None
        for other in others:
            assert other["ndcg"].low is not None
            assert other["ndcg"].value > high
            assert other["miscalibration"].value < baseline["miscalibration"].value


def test_the_baseline_lists_what_most_users_chose() -> None:
    table = Interactions.of(["u", "v", "w"], ["drama00", "drama00", "crime00"], [1, 2, 3])
    source = MostChosen(table, CATALOGUE)
    found = source.candidates(call(), CATALOGUE, "for_you", None, 2)
    assert [CATALOGUE.ids[row] for row in found.rows] == ["drama00", "crime00"]


def test_items_unknown_to_catalogue_or_training_are_misses() -> None:
    users = ["u"] * 5 + ["v"] * 5
    items = [*"abcdx", *"bcday"]
    table = Interactions.of(users, items, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5])
    plain = Catalogue.empty(ItemSchema({})).upsert([Item(i) for i in "abcdx"], now=1)
    split = per_user_split(table)
    found = evaluate("baseline", MostChosen(split.training, plain), plain, split, k=3)
    assert (found.users, found["recall"].value) == (2, 0.0)
    assert [figure.metric for figure in found.figures] == [
        "ndcg", "recall", "map", "hit_rate", "novelty", "coverage",
    ]  # fmt: skip


def test_an_evaluation_of_nothing_is_refused() -> None:
    empty = Catalogue.empty(ItemSchema({}))
    source = MostChosen(SPLIT.training, empty)
    with pytest.raises(RecsysError, match="no item of the training"):
        evaluate("x", source, empty, SPLIT)
    with pytest.raises(RecsysError, match="k is 0"):
        evaluate("x", source, CATALOGUE, SPLIT, k=0)
