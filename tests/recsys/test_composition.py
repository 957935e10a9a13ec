"""The greedy loop: what it takes away and adds, by hand, and how near it comes to the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from recsys.composition import ByGroups, ByVectors, NoLikeness, Pool, best, completed, compose
from recsys.groups import Groups
from recsys.plan import Calibration, Composing, Diversity, Limit

FloatArray = npt.NDArray[np.float64]


def groups(*values: list[str] | str | None) -> Groups:
    """Of items with one value each, several in a list, or an unknown one."""
    lists: list[list[str | None]] = [[*v] if isinstance(v, list) else [v] for v in values]
    labels = tuple(dict.fromkeys(word for words in lists for word in words if word is not None))
    codes = [-1 if word is None else labels.index(word) for words in lists for word in words]
    return Groups(labels, np.array(codes, np.int32), np.array([len(w) for w in lists], np.int32))


def pool(scores: Any, mix: Mapping[str, float] | None = None, **of: Groups) -> Pool:
    return Pool(np.asarray(scores, np.float64), {}, of, mix or {})


def order(of: Pool, composing: Composing, k: int, likeness: Any = None) -> list[int]:
    placed, _ = compose(of, composing, k, likeness or NoLikeness(), best)
    return [each.item for each in placed]


# Diversity -------------------------------------------------------------------------------------


def test_likeness_is_the_cosine_or_the_share_of_values_in_common() -> None:
    vectors = np.array([[2, 0], [1, 1], [-1, 0], [0, 0]], np.float32)
    assert ByVectors(vectors).row(0, 0).tolist() == [255, round(255 * math.sqrt(0.5)), 0, 0]
    of = ByGroups(groups(["a", "b"], "a", ["b", "c", "d"], None, []))
    assert of.row(0, 0).tolist() == [255, 128, 64, 0, 0]
    assert of.row(3, 0).tolist() == [0, 0, 0, 0, 0]


def test_marginal_relevance_takes_away_the_likeness_to_the_most_similar_item_before() -> None:
    """a and b are alike: at weight .5 the third score outbids the second."""
    of = pool([1.0, 0.9, 0.6, 0.0], kind=groups("a", "a", "b", "c"))
    likeness = ByGroups(of.groups["kind"])
    for weight, expected in ((0.2, [0, 1, 2]), (0.5, [0, 2, 1])):
        diversity = Diversity(kind="mmr", weight=weight, column="kind")
        placed, _ = compose(of, Composing(diversity=diversity), 3, likeness, best)
        assert [each.item for each in placed] == expected
        taken = {each.item: each.diversity for each in placed}
        assert taken == pytest.approx({0: 0.0, 1: weight, 2: 0.0})


def test_determinantal_diversity_takes_away_the_log_of_what_is_not_spanned() -> None:
    """Against determinants: the sum that was taken away is −weight · log det of the likeness."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(30, 6)).astype(np.float32)
    likeness = ByVectors(vectors)
    matrix = np.array([likeness.row(i, 0) for i in range(30)]) / 255
    of = pool(rng.random(30))
    diversity = Diversity(kind="dpp", weight=0.7)
    placed, _ = compose(of, Composing(diversity=diversity), 5, likeness, best)
    chosen = [each.item for each in placed]
    for n in range(1, 6):
        determinant = np.linalg.det(matrix[np.ix_(chosen[:n], chosen[:n])])
        taken = sum(each.diversity for each in placed[:n])
        assert taken == pytest.approx(-0.7 * math.log(determinant), rel=1e-6)
    rest = [i for i in range(30) if i not in chosen[:3]]
    spans = [matrix[np.ix_([*chosen[:3], i], [*chosen[:3], i])] for i in rest]
    gains = of.utility[rest] + 0.7 * np.log([np.linalg.det(span) for span in spans])
    assert rest[int(np.argmax(gains))] == chosen[3]


def test_items_that_are_alike_in_all_come_last_rather_than_never() -> None:
    of = pool([1.0, 0.9, 0.8, 0.1], kind=groups("a", "a", "a", "b"))
    composing = Composing(diversity=Diversity(kind="dpp", weight=0.3, column="kind"))
    assert order(of, composing, 4, ByGroups(of.groups["kind"])) == [0, 3, 1, 2]


# Calibration -----------------------------------------------------------------------------------


def divergence(mix: Mapping[str, float], of: Groups, chosen: list[int]) -> float:
    """Steck's smoothed divergence, in plain words: an oracle."""
    q = dict.fromkeys(mix, 0.0)
    for item in chosen:
        codes = of.of(item)
        for code in codes:
            if code >= 0 and of.labels[code] in q:
                q[of.labels[code]] += 1 / len(codes) / len(chosen)
    return sum(p * math.log(p / (0.99 * q[g] + 0.01 * p)) for g, p in mix.items())


def test_calibration_brings_a_slate_to_the_users_mix() -> None:
    """Seven of ten romances were seen, and action scores higher throughout."""
    scores = [*np.linspace(1.0, 0.8, 10), *np.linspace(0.7, 0.5, 10)]
    of = pool(
        scores,
        {"romance": 0.7, "action": 0.3},
        genre=groups(*["action"] * 10, *["romance"] * 10),
    )
    counts = {}
    for weight in (0.01, 100.0):
        composing = Composing(calibration=Calibration(column="genre", weight=weight))
        chosen = order(of, composing, 10)
        counts[weight] = sum(item >= 10 for item in chosen)
    assert counts == {0.01: 0, 100.0: 7}


def test_what_calibration_adds_sums_to_minus_the_slates_divergence() -> None:
    rng = np.random.default_rng(6)
    genres = [sorted(set(rng.choice(list("abcde"), size=3).tolist())) for _ in range(38)]
    of = groups(*genres, None, [])
    mix = {"a": 0.5, "c": 0.3, "z": 0.2}
    composing = Composing(calibration=Calibration(column="genre", weight=2.0))
    placed, _ = compose(pool(rng.random(40), mix, genre=of), composing, 8, NoLikeness(), best)
    for n in range(1, 9):
        chosen = [each.item for each in placed[:n]]
        told = sum(each.calibration for each in placed[:n])
        assert told == pytest.approx(-2.0 * divergence(mix, of, chosen), rel=1e-9)


def test_without_a_mix_calibration_changes_nothing() -> None:
    of = pool([0.1, 0.9, 0.5], genre=groups("a", "b", "a"))
    composing = Composing(calibration=Calibration(column="genre", weight=9.0))
    assert order(of, composing, 3) == [1, 2, 0]


# Limits ----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz")), min_size=1, max_size=9),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 6),
    st.data(),
)
def test_limits_that_overlap_never_leave_a_slate_shorter_than_it_could_be(
    items: list[tuple[str, str]], one: int, other: int, k: int, data: Any
) -> None:
    scores = data.draw(st.permutations(range(len(items))))
    of = pool(scores, first=groups(*[a for a, _ in items]), second=groups(*[b for _, b in items]))
    limits = (Limit(column="first", at_most=one), Limit(column="second", at_most=other))
    found = order(completed(of, limits, k), Composing(limits=limits), k)
    constraint, cap = constraints(of, limits)
    value, _ = exact(np.ones(len(items)), constraint, cap, k)
    assert len(found) == round(value)


def constraints(of: Pool, limits: tuple[Limit, ...]) -> tuple[FloatArray, FloatArray]:
    rows, caps = [], []
    for limit in limits:
        member = of.groups[limit.column].membership()
        rows.append(member.T.astype(float))
        caps += [float(limit.at_most)] * member.shape[1]
    return np.concatenate(rows), np.array(caps)


def exact(worth: FloatArray, rows: FloatArray, caps: FloatArray, k: int) -> tuple[float, list[int]]:
    """The greatest total of at most k items within all caps, by integer programming."""
    m = len(worth)
    solved = milp(
        -worth,
        integrality=np.ones(m),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(np.vstack([rows, np.ones((1, m))]), ub=np.append(caps, k)),
    )
    return -float(solved.fun), np.flatnonzero(solved.x > 0.5).tolist()


@pytest.mark.parametrize("three", [False, True])
def test_a_greedy_slate_of_20_of_1000_within_limits_comes_near_the_best(three: bool) -> None:
    """Franchises, categories and overlapping genres of skewed sizes.

    On average within 1 % of the best; what one greedy pass can miss in one world is bounded, too.
    """
    gaps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        m = 1000
        of: dict[str, Groups] = {
            "franchise": groups(*[f"f{i}" for i in rng.zipf(1.5, m) % 40]),
            "category": groups(*[f"c{i}" for i in rng.geometric(0.3, m) % 9]),
        }
        limits: tuple[Limit, ...] = (
            Limit(column="franchise", at_most=3),
            Limit(column="category", at_most=4),
        )
        if three:
            words = rng.integers(12, size=(m, 2)).tolist()
            of["genres"] = groups(*[[f"g{i}" for i in {*pair}] for pair in words])
            limits = (*limits, Limit(column="genres", at_most=5))
        world = pool(rng.gumbel(size=m), None, **of)
        chosen = order(completed(world, limits, 20), Composing(limits=limits), 20)
        optimum, _ = exact(world.utility, *constraints(world, limits), 20)
        assert len(chosen) == 20
        gaps.append(1.0 - float(world.utility[chosen].sum()) / optimum)
    assert sum(gaps) / len(gaps) < 0.01
    assert max(gaps) < 0.03


@pytest.mark.parametrize("seed", range(6))
def test_a_greedy_diverse_slate_is_within_two_percent_of_the_best(seed: int) -> None:
    """Likeness by category costs each item but the first of its category the weight."""
    rng = np.random.default_rng(100 + seed)
    m, k, weight = 120, 10, 0.3
    kinds = rng.geometric(0.2, m) % 12
    of = pool(
        rng.gumbel(size=m),
        category=groups(*[f"c{i}" for i in kinds]),
        franchise=groups(*[f"f{i}" for i in rng.integers(30, size=m)]),
    )
    limits = (Limit(column="franchise", at_most=1),)
    diversity = Diversity(weight=weight, column="category")
    likeness = ByGroups(of.groups["category"])
    placed, _ = compose(of, Composing(limits=limits, diversity=diversity), k, likeness, best)
    value = sum(of.utility[each.item] - each.diversity for each in placed)
    # With y_c for "category c is shown": Σ u z + w Σ y − w k, where y_c ≤ Σ z of its items.
    member = of.groups["category"].membership().T.astype(float)
    shown = len(member)
    rows, caps = constraints(of, limits)
    solved = milp(
        -np.concatenate([of.utility, np.full(shown, weight)]),
        integrality=np.ones(m + shown),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(np.hstack([rows, np.zeros((len(rows), shown))]), ub=caps),
            LinearConstraint(np.hstack([-member, np.eye(shown)]), ub=0),
            LinearConstraint(np.hstack([np.ones((1, m)), np.zeros((1, shown))]), k, k),
        ],
    )
    optimum = -float(solved.fun) - weight * k
    assert value >= 0.98 * optimum


@pytest.mark.parametrize("seed", range(6))
def test_a_greedy_calibrated_slate_is_within_two_percent_of_the_best(seed: int) -> None:
    rng = np.random.default_rng(200 + seed)
    m, k, weight = 120, 10, 3.0
    kinds = rng.integers(5, size=m)
    p = rng.dirichlet(np.ones(5))
    mix = {f"c{i}": float(p[i]) for i in range(5)}
    of = pool(rng.gumbel(size=m), mix, category=groups(*[f"c{i}" for i in kinds]))
    composing = Composing(calibration=Calibration(column="category", weight=weight))
    chosen = order(of, composing, k)
    value = of.utility[chosen].sum() - weight * divergence(mix, of.groups["category"], chosen)
    # Within a category the best come first, so only how many of each remains: all are tried.
    best_of = {c: np.sort(of.utility[kinds == c])[::-1].cumsum() for c in range(5)}
    optimum = -math.inf
    for counts in compositions(k, 5):
        if any(n > len(best_of[c]) for c, n in enumerate(counts)):
            continue
        total = sum(best_of[c][n - 1] for c, n in enumerate(counts) if n)
        q = np.array(counts) / k
        apart = float((p * np.log(p / (0.99 * q + 0.01 * p))).sum())
        optimum = max(optimum, float(total) - weight * apart)
    assert value >= optimum - 0.02 * abs(optimum)


def compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    """Every way to write a total as so many whole numbers, in order."""
    if parts == 1:
        return [(total,)]
    return [
        (first, *rest)
        for first in range(total + 1)
        for rest in compositions(total - first, parts - 1)
    ]
