"""Scorers: what they learn, that it is exact, and that others' features and models fit in."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from recsys.boosted import train_boosted
from recsys.call import Call
from recsys.candidates import Candidates
from recsys.catalogue import Catalogue
from recsys.errors import RecsysError
from recsys.features import Feature, Freshness, From, Has, Number, Relevance, encode
from recsys.plan import SlatePlan
from recsys.recommend import recommend
from recsys.scoring import LinearScorer, load_scorer
from tests.recsys.building import DAY, NOW, Scores, call, catalogue, ids

FloatArray = npt.NDArray[np.float64]

CATALOGUE = catalogue(
    {
        "a": {"price": 10, "category": "x", "published": NOW - 30 * DAY},
        "b": {"price": 30, "category": "y"},
        "c": {"category": "x", "published": NOW},
        "d": {"price": 20, "paid": True},
    }
)
SOURCE = Scores({"a": 4.0, "b": 3.0, "c": 2.0, "d": 0.0})
FEATURES = (Relevance(), Number("price"))
PLAN = SlatePlan(id="home", objective="completed")


def candidates() -> Candidates:
    return SOURCE.candidates(call(), CATALOGUE, "for_you", None, 10)


def rows(seed: int, n: int, f: int = 2) -> tuple[FloatArray, FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, f))
    x[rng.random(x.shape) < 0.2] = math.nan
    return x, rng.random(n), rng.random(n)


def test_features_are_worked_by_hand() -> None:
    nan = math.nan
    cases: list[tuple[Feature, dict[str, Any], list[float]]] = [
        (Relevance(), {}, [1.0, 0.75, 0.5, 0.0]),
        (Number("price"), {}, [10.0, 30.0, nan, 20.0]),
        (Has("category", "x"), {}, [1.0, 0.0, 1.0, nan]),
        (Has("category", context="taste"), {"context": {"taste": "y"}}, [0.0, 1.0, 0.0, nan]),
        (Has("category", context="taste"), {"context": {}}, [nan] * 4),
        (Has("paid", value=True), {}, [nan, nan, nan, 1.0]),
        (Freshness(30), {}, [0.5, nan, 1.0, nan]),
        (From("scores"), {}, [1.0] * 4),
        (From("popular"), {}, [0.0] * 4),
    ]
    for feature, said, expected in cases:
        found = feature.values(call(**said), CATALOGUE, candidates()).tolist()
        assert found == pytest.approx(expected, nan_ok=True), feature
    assert len({feature.name for feature, *_ in cases[:5]}) == 4


def test_a_number_that_no_prediction_could_hold_is_unknown() -> None:
    shop = catalogue({"a": {"price": 1e300}, "b": {"price": -1e300}, "c": {"price": 2.0}})
    scorer = LinearScorer((Relevance(), Number("price")))
    plan = SlatePlan(id="home", objective="revenue")
    trace = recommend(call(3), plan, shop, Scores({}), scorer).trace
    read = dict(zip([each.item_id for each in trace.placed], trace.inputs()[:, 1], strict=True))
    assert np.isnan([read["a"], read["b"]]).all()
    assert read["c"] == 2.0


def test_before_the_first_row_the_source_decides() -> None:
    found = recommend(call(4), PLAN, CATALOGUE, SOURCE, LinearScorer(FEATURES))
    assert ids(found.slate) == ["a", "b", "c", "d"]
    assert found.trace.objective == "completed"


def test_a_scorer_ranks_by_what_it_has_learned() -> None:
    """The dearer an item the more it is completed, and what has no price is never."""
    rng = np.random.default_rng(1)
    price = rng.uniform(0, 40, size=2000)
    price[::5] = math.nan
    x = np.column_stack([rng.random(2000), price])
    reward = np.where(np.isnan(price), 0.0, price / 40)
    scorer = LinearScorer(FEATURES).learned(x, reward)
    found = recommend(call(4), PLAN, CATALOGUE, SOURCE, scorer)
    assert ids(found.slate) == ["b", "d", "a", "c"]
    for item in found.slate.items:
        price_of = CATALOGUE.column("price").at(CATALOGUE.ids.index(item.item_id))
        expected = 0.0 if price_of is None else float(str(price_of)) / 40
        assert item.score == pytest.approx(expected, abs=0.08)


def test_the_weights_solve_the_normal_equations_of_the_docstring() -> None:
    x, reward, weight = rows(2, 60)
    scorer = LinearScorer(FEATURES, prior_rows=7.0).learned(x, reward, weight)
    unknown = np.isnan(x)
    wide = np.concatenate([np.where(unknown, 0.0, x), unknown, np.ones((60, 1))], axis=1)
    prior = np.array([1.0, 0, 0, 0, 0])
    mean = np.average(wide, axis=0, weights=weight)
    scale = 7.0 * np.average((wide - mean) ** 2, axis=0, weights=weight)
    gram = wide.T @ (weight[:, None] * wide) + np.diag(scale)
    expected = np.linalg.solve(gram, wide.T @ (weight * reward) + scale * prior)
    assert scorer.coefficients == pytest.approx(expected, rel=1e-9)


def test_units_of_a_feature_change_no_prediction() -> None:
    x, reward, _ = rows(3, 80)
    metres, millimetres = x.copy(), x.copy()
    millimetres[:, 1] *= 1000.0
    one = LinearScorer(FEATURES).learned(metres, reward)
    other = LinearScorer(FEATURES).learned(millimetres, reward)
    assert one.predict(metres) == pytest.approx(other.predict(millimetres), rel=1e-9)


def test_rows_learned_one_at_a_time_or_at_once_give_the_same_bytes() -> None:
    x, reward, weight = rows(4, 50)
    at_once = LinearScorer(FEATURES).learned(x, reward, weight)
    one_by_one = LinearScorer(FEATURES)
    for i in range(50):
        one_by_one = one_by_one.learned(x[i : i + 1], reward[i : i + 1], weight[i : i + 1])
    assert one_by_one.dumps() == at_once.dumps()
    assert one_by_one.digest == at_once.digest


def test_a_scorer_read_back_scores_and_learns_on_the_same() -> None:
    x, reward, _ = rows(5, 40)
    scorer = LinearScorer(FEATURES).learned(x, reward)
    again = load_scorer(scorer.dumps(), FEATURES)
    assert again.digest == scorer.digest
    assert again.predict(x).tobytes() == scorer.predict(x).tobytes()
    assert again.learned(x, reward).dumps() == scorer.learned(x, reward).dumps()


def test_bytes_that_are_not_whole_are_not_read() -> None:
    data = LinearScorer(FEATURES).learned(*rows(6, 9)).dumps()
    for at in range(0, len(data), 97):
        flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        for broken in (data[:at], flipped):
            with pytest.raises(RecsysError):
                load_scorer(broken, FEATURES)
    with pytest.raises(RecsysError, match=r"was made with features \['relevance', 'price'\] and"):
        load_scorer(data, FEATURES[::-1])


def test_a_trace_keeps_what_the_scorer_read_of_each_placed_item() -> None:
    """So that what was shown, and what came of it, teaches the scorer that comes after."""
    scorer = LinearScorer(FEATURES)
    trace = recommend(call(3), PLAN, CATALOGUE, SOURCE, scorer).trace
    assert trace.features == ("relevance", "price")
    nan = math.nan
    assert trace.inputs().ravel().tolist() == pytest.approx(
        [1.0, 10.0, 0.75, 30.0, 0.5, nan], nan_ok=True
    )
    assert scorer.learned(trace.inputs(), np.array([0.0, 1.0, 0.0])).rows == 3


# What callers bring ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Fits:
    """A caller's feature: how near a price is to what the user said it may cost."""

    name: str = "fits"

    def values(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:
        """See `Feature.values`."""
        price = Number("price").values(call, catalogue, candidates)
        return np.asarray(-np.abs(price - float(call.context["budget"])))


@dataclass(frozen=True)
class Mine:
    """A caller's model."""

    features: Sequence[Feature] = field(default_factory=lambda: (Fits(),))

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Scorer.predict`."""
        return np.where(np.isnan(x[:, 0]), -100.0, x[:, 0])


def test_a_callers_feature_and_model_take_part_like_ours() -> None:
    near = recommend(call(4, context={"budget": 19}), PLAN, CATALOGUE, SOURCE, Mine())
    assert ids(near.slate) == ["d", "a", "b", "c"]
    learned = LinearScorer((Relevance(), Fits()), prior={"fits": 1.0})
    by_fit = recommend(call(4, context={"budget": 29}), PLAN, CATALOGUE, SOURCE, learned)
    assert ids(by_fit.slate)[:1] != ["a"]


class Broken:
    """A model that gives something else than it promises."""

    features = ()

    def __init__(self, given: FloatArray) -> None:
        self._given = given

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Scorer.predict`."""
        return self._given


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearScorer(()), "scorer.features are []. Name one or more"),
        (
            lambda: LinearScorer((Relevance(), Relevance())),
            "scorer.features are ['relevance",
        ),
        (lambda: LinearScorer((Number("price"),)), "scorer.prior is {'relevance': 1.0}. Give"),
        (lambda: LinearScorer(FEATURES, prior_rows=0.0), "scorer.prior_rows is 0.0"),
        (
            lambda: LinearScorer(FEATURES).learned(np.zeros((2, 3)), np.zeros(2)),
            "have shapes ((2, 3), (2,), (2,)). Give (n, 2), (n,) and (n,).",
        ),
        (
            lambda: LinearScorer(FEATURES).learned(np.zeros((1, 2)), np.array([math.nan])),
            "a reward or feature is not finite",
        ),
        (
            lambda: recommend(call(), PLAN, CATALOGUE, SOURCE, Broken(np.zeros(3))),
            "slates.home: the scorer must give 4 finite numbers; it gave shape (3,).",
        ),
        (
            lambda: recommend(call(), PLAN, CATALOGUE, SOURCE, Broken(np.full(4, math.inf))),
            "slates.home: the scorer must give 4 finite numbers",
        ),
        (
            lambda: recommend(call(), PLAN, CATALOGUE, SOURCE, Broken(np.full(4, 1e39))),
            "slates.home: the scorer gives 1e+39. Give numbers below 3e38.",
        ),
        (
            lambda: encode((Number("category"),), call(), CATALOGUE, candidates()),
            "category is a string and must be a number",
        ),
    ],
)
def test_what_cannot_be_scored_by_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(RecsysError) as refused:
        make()
    assert message in str(refused.value)


def test_a_boosted_ranker_refuses_what_it_cannot_learn_from_before_anything_is_imported() -> None:
    ones = np.ones(2)
    cases: list[tuple[FloatArray, FloatArray, int, str]] = [
        (np.ones((2, 2)), ones, 3, "slates hold 3 rows"),
        (np.ones((2, 1)), ones, 2, "x has shape (2, 1)"),
        (np.ones((2, 2)), ones / 3, 2, "no whole number from 0 to 30"),
    ]
    for x, reward, counted, message in cases:
        with pytest.raises(RecsysError) as refused:
            train_boosted(FEATURES, x, reward, np.array([counted]), trees=3)
        assert message in str(refused.value)


def test_without_lightgbm_a_boosted_ranker_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(RecsysError, match=r"pip install 'evenhand\[lightgbm\]'"):
        train_boosted(FEATURES, np.ones((2, 2)), np.ones(2), np.array([2]), trees=3)
