"""A log of drawn slates evaluates another ranker: its exact value is covered at the stated rate.

`recsys` never imports `attribution`; that its traces are what the estimators need is shown here.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from attribution import AttributionError, SlateLog, SlateTarget, evaluate
from recsys.plan import Composing, Diversity, Exploration, SlatePlan
from recsys.recommend import recommend
from recsys.replay import every_slate, marginals, propensities
from recsys.slate import SlateTrace
from tests.attribution.worlds import at_least
from tests.recsys.building import Scores, call, catalogue

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

ITEMS = {
    "a": {"category": "x"},
    "b": {"category": "x"},
    "c": {"category": "y"},
    "d": {"category": "y"},
    "e": {"category": "z"},
}
CATALOGUE = catalogue(ITEMS)
PLAN = SlatePlan(
    id="home",
    composing=Composing(
        diversity=Diversity(kind="mmr", weight=0.3, column="category"),
        exploration=Exploration(temperature=1.0, epsilon=0.1),
    ),
)
SOURCE = Scores({"a": 1.0, "b": 0.8, "c": 0.5, "d": 0.2, "e": 0.0})
TARGET = Composing(exploration=Exploration(temperature=0.8, epsilon=0.05))
TARGET_SCORES = np.array([0.2, 0.3, 0.6, 0.8, 1.0])
CLICKS = np.array([0.15, 0.2, 0.35, 0.4, 0.5])
K = 3


def drawn(uniforms: tuple[float, ...]) -> SlateTrace:
    return recommend(call(K, uniforms=uniforms), PLAN, CATALOGUE, SOURCE).trace


def chances(slates: IntArray, *, cascade: bool) -> FloatArray:
    """Click probabilities of each position; in a cascade, a liked item before ends the search."""
    found = CLICKS[slates] * [1.0, 0.8, 0.6]
    if cascade:
        found[:, 1:] *= np.cumprod(1.0 - 0.7 * CLICKS[slates[:, :-1]], axis=1)
    return found


class World:
    """Every slate with its conditionals and marginals under both rankers."""

    def __init__(self) -> None:
        trace = drawn((0.5,) * K)
        ours = every_slate(trace)
        theirs = every_slate(trace, TARGET, TARGET_SCORES)
        self.slates = np.array(list(ours))
        self.logged = np.array(list(ours.values()))
        self.target = np.array([theirs[tuple(slate)] for slate in self.slates.tolist()])
        self.p, self.q = self.logged.prod(axis=1), self.target.prod(axis=1)
        # A rough model: what an item brings at a position, whatever stood before it.
        worth = CLICKS * np.array([1.0, 0.8, 0.6])[:, None]
        rest = np.append(np.cumsum(worth.mean(axis=1)[:0:-1])[::-1], 0.0)
        self.q_logged = worth[np.arange(K), self.slates] + rest
        after: dict[tuple[int, ...], dict[int, float]] = {}
        for slate, conditionals in theirs.items():
            for at in range(K):
                after.setdefault(slate[:at], {})[slate[at]] = conditionals[at]
        self.q_target = rest + np.array(
            [
                [sum(p * worth[at, i] for i, p in after[slate[:at]].items()) for at in range(K)]
                for slate in map(tuple, self.slates.tolist())
            ]
        )

    def marginal(self, weights: FloatArray) -> FloatArray:
        """(slates, K), the probability of each item at its position."""
        found = np.zeros((K, len(ITEMS)))
        for position in range(K):
            np.add.at(found[position], self.slates[:, position], weights)
        return np.asarray(found[np.arange(K), self.slates])

    def value(self, weights: FloatArray, *, cascade: bool) -> float:
        """The exact value of a ranker that shows slates with these probabilities."""
        return float(weights @ chances(self.slates, cascade=cascade).sum(axis=1))

    def log(
        self, rng: np.random.Generator, n: int, *, cascade: bool
    ) -> tuple[SlateLog, SlateTarget]:
        """n logged slates with their clicks."""
        at = rng.choice(len(self.p), size=n, p=self.p / self.p.sum())
        reward = (rng.random((n, K)) < chances(self.slates[at], cascade=cascade)).astype(float)
        log = SlateLog(
            reward, self.logged[at], self.marginal(self.p)[at], reward_range=(0, K), max_weight=1e4
        )
        return log, SlateTarget(
            self.target[at], self.marginal(self.q)[at], self.q_logged[at], self.q_target[at]
        )


WORLD = World()


def test_the_conditionals_and_marginals_of_a_log_are_those_of_its_traces() -> None:
    rng = np.random.default_rng(2)
    row = {tuple(slate): i for i, slate in enumerate(WORLD.slates.tolist())}
    for _ in range(10):
        trace = drawn(tuple(rng.random(K).tolist()))
        at = row[tuple(each.item for each in trace.placed)]
        logged = [each.propensity for each in trace.placed]
        assert logged == pytest.approx(WORLD.logged[at])
        assert propensities(trace, TARGET, TARGET_SCORES) == pytest.approx(WORLD.target[at])
        assert marginals(trace) == pytest.approx(WORLD.marginal(WORLD.p)[at])
        theirs = marginals(trace, TARGET, TARGET_SCORES)
        assert theirs == pytest.approx(WORLD.marginal(WORLD.q)[at])


@pytest.mark.parametrize(
    ("cascade", "names"), [(False, ["iips", "rips", "cascade_dr"]), (True, ["rips", "cascade_dr"])]
)
def test_cascade_and_position_estimators_cover_the_value_of_another_ranker(
    cascade: bool, names: list[str]
) -> None:
    rng = np.random.default_rng(5)
    truth = WORLD.value(WORLD.q, cascade=cascade)
    own = WORLD.value(WORLD.p, cascade=cascade)
    assert truth > own + 0.08
    hits = dict.fromkeys(names, 0)
    for _ in range(150):
        log, target = WORLD.log(rng, 800, cascade=cascade)
        for row in evaluate(log, {"t": target}, names).results:
            hits[row.estimator] += row.low <= truth <= row.high
    for name in names:
        assert at_least(hits[name], 150, 0.95), hits


def test_a_log_that_keeps_another_propensity_is_not_right_any_more() -> None:
    """Were the draw conditioned on more than is logged, the value would be missed."""
    rng = np.random.default_rng(6)
    log, target = WORLD.log(rng, 40_000, cascade=True)
    truth = WORLD.value(WORLD.q, cascade=True)
    [right] = evaluate(log, {"t": target}, ["rips"]).results
    assert right.low <= truth <= right.high
    softmax = replace(log, propensity=np.full_like(log.propensity, 1 / len(ITEMS)))
    [wrong] = evaluate(softmax, {"t": target}, ["rips"]).results
    assert not wrong.low <= truth <= wrong.high


def test_whole_products_over_a_carousel_are_refused() -> None:
    items = {f"i{j:02d}": {"category": f"c{j % 4}"} for j in range(30)}
    source = Scores({id_: -float(j) for j, id_ in enumerate(items)})
    rng = np.random.default_rng(7)
    traces = [
        recommend(
            call(20, uniforms=tuple(rng.random(20).tolist())), PLAN, catalogue(items), source
        ).trace
        for _ in range(4)
    ]
    logged = np.array([[each.propensity for each in trace.placed] for trace in traces])
    theirs = np.array([propensities(trace, TARGET) for trace in traces])
    assert logged.shape == theirs.shape == (4, 20)
    log = SlateLog(np.zeros((4, 20)), logged)
    with pytest.raises(AttributionError, match="'sips' for slates of 20 positions"):
        evaluate(log, {"t": SlateTarget(theirs)}, ["sips"])
    assert math.isfinite(float(theirs.sum()))
