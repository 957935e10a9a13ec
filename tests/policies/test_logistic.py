"""Logistic Thompson sampling: against a batch fit, and by its calibration."""

import numpy as np
import pytest
from scipy.optimize import minimize

from policies import Action, Context, Feedback, PolicyError, make_policy
from policies.logistic import LogisticParameters, LogisticTS
from policies.quadrature import largest_gaussian

ACTIONS = (Action("A"), Action("B"))


def log(n: int, seed: int, base: float = 0.0) -> list[Feedback]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        x, drawn = float(rng.uniform(-1, 1)), int(rng.integers(2))
        chance = 1.0 / (1.0 + np.exp(-(base + (1.5 if drawn else -1.0) * x)))
        rows.append(Feedback({"x": x}, ACTIONS, "AB"[drawn], 0.5, float(rng.random() < chance)))
    return rows


def learned(rows: list[Feedback], alpha: float = 1.0) -> LogisticTS:
    policy = LogisticTS(LogisticParameters(alpha=alpha))
    policy.learn(rows)
    return policy


def test_many_newton_steps_come_to_the_batch_fit() -> None:
    """The posterior mode and its curvature, by numerical optimisation."""
    rows = log(4_000, seed=1)
    policy = learned(rows)
    common = policy._models.common
    for action in ACTIONS:
        mine = [row for row in rows if row.action == action.id]
        X = np.array([[1.0, row.context["x"]] for row in mine], dtype=np.float64)
        r = np.array([row.reward for row in mine])

        def loss(theta: np.ndarray, X: np.ndarray = X, r: np.ndarray = r) -> float:
            odds = common + X @ theta
            return float(np.logaddexp(0.0, odds).sum() - r @ odds + 0.5 * theta @ theta)

        mode = minimize(loss, np.zeros(2)).x
        for x in (-0.8, 0.0, 0.6):
            z = np.array([1.0, x])
            predicted = policy._models.predict({"x": x}, [action], spread=True)
            chance = 1.0 / (1.0 + np.exp(-(common + X @ mode)))
            curvature = (X * (chance * (1 - chance))[:, None]).T @ X + np.eye(2)
            deviation = np.sqrt(z @ np.linalg.solve(curvature, z))
            assert abs(predicted.mean[0] - z @ mode) < 0.25 * deviation
            assert np.sqrt(predicted.variance[0]) == pytest.approx(deviation, rel=0.1)


def test_the_pmf_is_the_gaussian_integral_of_the_log_odds() -> None:
    policy = learned(log(100, seed=2), alpha=0.5)
    predicted = policy._models.predict({"x": 0.3}, ACTIONS, spread=True)
    exact = largest_gaussian(predicted.mean[None], 0.5 * np.sqrt(predicted.variance)[None])[0]
    np.testing.assert_allclose(policy.pmf({"x": 0.3}, ACTIONS), exact, rtol=0, atol=1e-12)


def test_an_action_never_tried_is_as_likely_to_succeed_as_all_are() -> None:
    policy = make_policy("logistic_ts")
    rows = log(3_000, seed=3, base=-3.5)
    policy.learn(rows)
    expected = policy.expected({"x": 0.0}, [*ACTIONS, Action("new")])
    assert expected is not None
    rate = np.mean([row.reward for row in rows])
    assert rate < 0.06
    assert expected[2] < 2.0 * rate + 0.02
    assert expected.min() > 0.0
    assert expected.max() < 1.0


def test_expectations_are_calibrated() -> None:
    policy = make_policy("logistic_ts")
    policy.learn(log(2_000, seed=4, base=-1.0))
    for x in (-0.9, 0.0, 0.9):
        context: Context = {"x": x}
        expected = policy.expected(context, ACTIONS)
        assert expected is not None
        truth = 1.0 / (1.0 + np.exp(-(-1.0 + np.array([-1.0, 1.5]) * x)))
        assert np.abs(expected - truth).max() < 0.08


@pytest.mark.parametrize("reward", [0.5, -1.0, 2.0])
def test_rewards_that_are_neither_nought_nor_one_are_refused(reward: float) -> None:
    policy = make_policy("logistic_ts")
    before = policy.dumps()
    with pytest.raises(PolicyError, match="rewards of 0 or 1"):
        policy.learn([*log(3, seed=5), Feedback({}, ACTIONS, "A", 0.5, reward)])
    assert policy.dumps() == before


def test_thousands_of_successes_alone_leave_the_model_finite() -> None:
    policy = make_policy("logistic_ts")
    policy.learn([Feedback({"x": 1.0}, ACTIONS, "A", 0.5, 1.0)] * 3_000)
    expected = policy.expected({"x": 1.0}, ACTIONS)
    assert expected is not None
    assert np.isfinite(policy.pmf({"x": 1.0}, ACTIONS)).all()
    assert expected[0] > 0.99
