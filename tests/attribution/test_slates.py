"""Slates and continuous actions, in worlds whose truth is summed or integrated exactly."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate, stats

from attribution import AttributionError, ContinuousLog, SlateLog, SlateTarget, evaluate
from attribution.continuous import kernel_weights
from tests.attribution.worlds import at_least

FloatArray = npt.NDArray[np.float64]
LOGGING = np.array([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3]])
TARGET = np.array([[0.2, 0.3, 0.5], [0.25, 0.25, 0.5]])
CHANCE = np.array([0.2, 0.4, 0.7])


def chances(items: npt.NDArray[np.intp], *, cascade: bool) -> FloatArray:
    """Click probabilities at each position; in a cascade the second sees what the first was."""
    found = CHANCE[items] * [1.0, 0.8]
    if cascade:
        found[:, 1] *= np.where(items[:, 0] == 2, 0.3, 1.0)
    return found


def value(policy: FloatArray, *, cascade: bool) -> float:
    """The exact value: over all slates."""
    slates = np.array(list(product(range(3), repeat=2)))
    chance = policy[0][slates[:, 0]] * policy[1][slates[:, 1]]
    return float(chance @ chances(slates, cascade=cascade).sum(axis=1))


def drawn(rng: np.random.Generator, n: int, *, cascade: bool) -> tuple[SlateLog, SlateTarget]:
    """A log of two positions drawn apart, and the target at it, with a rough reward model."""
    items = np.column_stack([rng.choice(3, p=p, size=n) for p in LOGGING])
    reward = (rng.random((n, 2)) < chances(items, cascade=cascade)).astype(float)
    at = np.arange(2)
    logged, target = LOGGING[at, items], TARGET[at, items]
    rest = np.array([float(TARGET[1] @ CHANCE) * 0.8, 0.0])
    q_logged = CHANCE[items] * [1.0, 0.8] + rest
    q_target = np.tile((TARGET @ CHANCE) * [1.0, 0.8] + rest, (n, 1))
    log = SlateLog(reward, logged, logged, reward_range=(0, 2), max_weight=6.25)
    return log, SlateTarget(target, target, q_logged, q_target)


@pytest.mark.parametrize(
    ("cascade", "names"),
    [(False, ["sips", "iips", "rips", "cascade_dr", "pi"]), (True, ["sips", "rips", "cascade_dr"])],
)
def test_slate_values_are_covered_where_what_they_suppose_holds(
    cascade: bool, names: list[str]
) -> None:
    rng = np.random.default_rng(0)
    truth, own = value(TARGET, cascade=cascade), value(LOGGING, cascade=cascade)
    hits = dict.fromkeys(names, 0)
    gains = dict.fromkeys(names, 0)
    for _ in range(200):
        log, target = drawn(rng, 600, cascade=cascade)
        report = evaluate(log, {"t": target}, names, against="logging")
        assert report.diagnostics["t"].verdict != "not_estimable"
        for row, pair in zip(report.results, report.comparisons_made, strict=True):
            hits[row.estimator] += row.low <= truth <= row.high
            gains[row.estimator] += pair.low <= truth - own <= pair.high
    for name in names:
        assert at_least(hits[name], 200, 0.95), (name, hits)
        assert at_least(gains[name], 200, 0.95), (name, gains)


def test_iips_and_pi_are_wrong_where_positions_interact() -> None:
    log, target = drawn(np.random.default_rng(1), 40_000, cascade=True)
    truth = value(TARGET, cascade=True)
    for row in evaluate(log, {"t": target}, ["iips"]).results:
        assert not row.low <= truth <= row.high
        assert "supposes that a position's reward depends on its own item alone" in row.note


def test_a_reward_model_narrows_cascade_dr() -> None:
    log, target = drawn(np.random.default_rng(2), 3000, cascade=False)
    rips, robust = evaluate(log, {"t": target}, ["rips", "cascade_dr"]).results
    assert robust.se < 0.9 * rips.se


def test_slate_estimates_are_worked_by_hand() -> None:
    log, target = drawn(np.random.default_rng(3), 50, cascade=False)
    ratio = target.propensity / log.propensity
    total = log.reward.sum(axis=1)
    assert target.q_logged is not None
    assert target.q_target is not None
    hand = {
        "sips": (ratio.prod(axis=1) * total).mean(),
        "iips": (ratio * log.reward).sum(axis=1).mean(),
        "rips": (ratio.cumprod(axis=1) * log.reward).sum(axis=1).mean(),
        "cascade_dr": (
            ratio[:, 0] * (log.reward[:, 0] - target.q_logged[:, 0])
            + target.q_target[:, 0]
            + ratio.prod(axis=1) * (log.reward[:, 1] - target.q_logged[:, 1])
            + ratio[:, 0] * target.q_target[:, 1]
        ).mean(),
        "pi": ((ratio.sum(axis=1) - 1) * total).mean(),
    }
    report = evaluate(log, {"t": target}, list(hand), interval="jackknife")
    for row in report.results:
        assert row.value == pytest.approx(hand[row.estimator], rel=1e-12), row.estimator


def test_whole_products_over_long_slates_are_refused() -> None:
    ones = np.full((20, 6), 0.5)
    log = SlateLog(np.zeros((20, 6)), ones)
    with pytest.raises(AttributionError, match="'sips' for slates of 6 positions"):
        evaluate(log, {"t": SlateTarget(ones)}, ["sips"])


def test_slates_that_are_not_valid_are_refused_by_name() -> None:
    good = np.full((4, 2), 0.5)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"reward": good[:1], "propensity": good[:1]}, r"`reward` has shape \(1, 2\)"),
        ({"propensity": good[:3]}, r"`propensity` has shape \(3, 2\)"),
        ({"propensity": good * 0}, r"`propensity` is not in \(0, 1\] in 4 of 4 rows, first in row"),
        ({"reward": good * np.nan}, "`reward` is not a finite number in 4 of 4 rows"),
        ({"unit": np.zeros(4, int)}, "`unit` must hold 4 codes"),
        ({"reward_range": (0, 0.5)}, r"`reward` of a slate lies outside `reward_range` \(0, 0.5\)"),
    ]
    for changed, message in cases:
        with pytest.raises(AttributionError, match=message):
            SlateLog(**({"reward": good, "propensity": good} | changed))
    log = SlateLog(good, good)
    for name, message in (
        ("iips", "has no `marginal`"),
        ("cascade_dr", "has no `q_logged` and `q_target`"),
        ("ips", "`estimators` names 'ips'. Known: sips, iips"),
    ):
        with pytest.raises(AttributionError, match=message):
            evaluate(log, {"t": SlateTarget(good)}, [name])
    ranged = SlateLog(good, good, reward_range=(0, 2))
    with pytest.raises(AttributionError, match="which rips has no proof for"):
        evaluate(ranged, {"t": SlateTarget(good)}, ["rips"], interval="anytime")
    together = SlateLog(good, good, marginal=good * 0.8)
    with pytest.raises(AttributionError, match="`marginal` differs from `propensity` in 4 of 4"):
        evaluate(together, {"t": SlateTarget(good, good)}, ["pi"])


def doses(rng: np.random.Generator, n: int) -> tuple[ContinuousLog, FloatArray, FloatArray]:
    """Doses drawn around a context; the reward is highest where the dose equals it."""
    x = rng.normal(size=n)
    action = x + rng.normal(size=n)
    reward = np.exp(-((action - x) ** 2)) + 0.1 * rng.normal(size=n)
    return ContinuousLog(action, reward, stats.norm.pdf(action - x)), x, reward


def test_kernel_estimates_are_right_for_a_target_that_draws_around_as_the_kernel_does() -> None:
    """The truth at bandwidth h: ∫ K(u) exp(−(h u)²) du; the bias for the target itself is known."""
    bandwidth = 0.8
    truth = integrate.quad(
        lambda u: 0.75 * (1 - u * u) * np.exp(-((bandwidth * u) ** 2)), -1, 1
    )[0]  # fmt: skip
    rng = np.random.default_rng(4)
    names = ["kernel_ips", "kernel_snips"]
    hits = dict.fromkeys(names, 0)
    for _ in range(150):
        log, x, _ = doses(rng, 800)
        report = evaluate(log, {"t": x}, names, tuning=dict.fromkeys(names, bandwidth))
        for row in report.results:
            assert row.interval == "jackknife, bias not covered"
            hits[row.estimator] += row.low <= truth <= row.high
    for name in names:
        assert at_least(hits[name], 150, 0.95), hits


def test_kernel_dr_is_worked_by_hand_and_slope_narrows_the_bandwidth_where_it_biases() -> None:
    rng = np.random.default_rng(5)
    log, x, reward = doses(rng, 5000)
    model = rng.random((5000, 2))
    [row] = evaluate(
        log, {"t": x}, ["kernel_dr"], q_hat={"t": model}, tuning={"kernel_dr": 0.5}
    ).results
    weight = kernel_weights(log, x, 0.5)
    assert row.value == pytest.approx((model[:, 0] + weight * (reward - model[:, 1])).mean())
    [tuned] = evaluate(
        log, {"t": x}, ["kernel_ips"], tuning={"kernel_ips": [0.2, 0.4, 2.0]}
    ).results
    assert tuned.hyperparameter < 2.0
    assert tuned.value == pytest.approx(1.0, abs=0.1)
    assert "bandwidth = " in tuned.note


HALF = np.full((4, 2), 0.5)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"reward_range": (0, np.nan)}, r"`reward_range` is \(0, nan\)"),
        ({"reward_range": (0, 1, 2)}, r"`reward_range` is \(0, 1, 2\)"),
        ({"reward_range": (0, 1)}, r"`reward` of a slate lies outside .* in 4 of 4 rows"),
        ({"max_weight": np.nan}, "`max_weight` is nan. It must exceed 1"),
        ({"max_weight": 2.0}, r"has a weight above `max_weight` \(2\) in 4 of 4 rows"),
    ],
)
def test_what_a_slate_log_declares_must_be_so(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(AttributionError, match=message):
        evaluate(
            SlateLog(np.ones((4, 2)), HALF, **declared),
            {"t": SlateTarget(np.full((4, 2), 0.8))},
            ["sips"],
        )


@pytest.mark.parametrize("wrong", [1.9, -0.1])
def test_a_slate_target_gives_probabilities(wrong: float) -> None:
    chance = HALF.copy()
    chance[2, 1] = wrong
    log = SlateLog(np.ones((4, 2)), HALF, marginal=HALF)
    message = r"`targets\.t` is not in \[0, 1\] in 1 of 4 rows, first in row 2"
    with pytest.raises(AttributionError, match=message):
        evaluate(log, {"t": SlateTarget(chance)}, ["rips"])
    with pytest.raises(AttributionError, match=message):
        evaluate(log, {"t": SlateTarget(HALF, marginal=chance)}, ["iips"])


def test_continuous_rewards_lie_in_their_range() -> None:
    with pytest.raises(AttributionError, match=r"outside `reward_range` \(0, 1\) in 4 of 4 rows"):
        ContinuousLog(np.ones(4), np.full(4, 2.0), np.ones(4), reward_range=(0, 1))


def test_tuning_that_slates_do_not_have_is_refused() -> None:
    log = SlateLog(np.ones((4, 2)), HALF)
    with pytest.raises(
        AttributionError, match="`tuning` names 'sips', which has no hyper-parameter"
    ):
        evaluate(log, {"t": SlateTarget(HALF)}, ["sips"], tuning={"sips": 1.0})


def test_continuous_logs_that_are_not_valid_are_refused_by_name() -> None:
    ones = np.ones(4)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"density": ones * 0}, "`density` is not above 0 in 4 of 4 rows"),
        ({"reward": ones[:3]}, r"`reward` has shape \(3,\)"),
        ({"action": ones * np.inf}, "`action` is not a finite number in 4 of 4"),
        ({"unit": np.zeros(4, int)}, "`unit` must hold 4 codes"),
    ]
    for changed, message in cases:
        with pytest.raises(AttributionError, match=message):
            ContinuousLog(**({"action": ones, "reward": ones, "density": ones} | changed))
    log = ContinuousLog(np.arange(4.0), np.arange(4.0), ones)
    with pytest.raises(AttributionError, match=r"`targets.t` has shape \(3,\)"):
        evaluate(log, {"t": ones[:3]}, ["kernel_ips"])
    with pytest.raises(AttributionError, match=r"'kernel_dr' needs \(4, 2\)"):
        evaluate(log, {"t": ones}, ["kernel_dr"])
    with pytest.raises(AttributionError, match=r"`tuning.kernel_ips` is -1. It must be bandwidths"):
        evaluate(log, {"t": ones}, ["kernel_ips"], tuning={"kernel_ips": -1})
