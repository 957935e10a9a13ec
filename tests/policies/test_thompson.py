"""Thompson sampling without a context."""

import numpy as np
import pytest
from scipy.stats import beta

from policies import Action, Feedback, PolicyError, make_policy

A, B, C = ACTIONS = (Action("A"), Action("B"), Action("C"))


def rewards(action: str, *values: float) -> list[Feedback]:
    return [Feedback({}, ACTIONS, action, 1 / 3, value) for value in values]


def test_thompson_beta_counts_successes_and_failures() -> None:
    """After 2 successes of 3 an action is Beta(3, 2): its mean is 3/5."""
    policy = make_policy("thompson_beta")
    policy.learn(rewards("A", 1.0, 0.0, 1.0) + rewards("B", 0.25))
    expected = policy.expected({}, ACTIONS)
    assert expected is not None
    np.testing.assert_allclose(expected, [3 / 5, 1.25 / 3, 1 / 2])


def test_thompson_beta_is_the_posterior_probability_of_being_best() -> None:
    policy = make_policy("thompson_beta", prior_successes=0.5, prior_failures=0.5)
    policy.learn(rewards("A", 1, 0, 0) + rewards("B", 1, 1, 0, 0, 0, 0))
    draws = np.random.default_rng(1)
    n = 1_000_000
    a, b = (beta(x, y).rvs(n, random_state=draws) for x, y in ((1.5, 2.5), (2.5, 4.5)))
    share = (a > b).mean()
    pmf = policy.pmf({}, [A, B])
    assert abs(pmf[0] - share) < 4.0 * np.sqrt(0.25 / n)


@pytest.mark.parametrize("reward", [-0.1, 1.1])
def test_thompson_beta_refuses_rewards_outside_the_unit_interval(reward: float) -> None:
    policy = make_policy("thompson_beta")
    before = policy.dumps()
    with pytest.raises(PolicyError, match=r"rewards in \[0, 1\]"):
        policy.learn(rewards("A", 1.0, reward))
    assert policy.dumps() == before


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (1.0, 100.0), (250.0, -1e4)])
def test_thompson_gaussian_has_no_unit_and_no_origin(scale: float, shift: float) -> None:
    values = np.random.default_rng(2).normal([0.0, 0.3, 0.1], 1.0, (40, 3))
    pmfs = []
    for factor, offset in ((1.0, 0.0), (scale, shift)):
        policy = make_policy("thompson_gaussian")
        for row in values:
            for action, value in zip("ABC", row, strict=True):
                policy.learn(rewards(action, factor * float(value) + offset))
        pmfs.append(policy.pmf({}, ACTIONS))
    np.testing.assert_allclose(pmfs[1], pmfs[0], rtol=1e-6)


def test_thompson_gaussian_by_hand() -> None:
    """κ = 1; A earned 1 and 3, B earned 2: common mean 2, each action's mean 2, M_A = 2, σ̂² = 2/3.

    Then the scores are N(2, σ̂²/3), N(2, σ̂²/2) and, never tried, N(2, σ̂²).
    """
    policy = make_policy("thompson_gaussian")
    policy.learn(rewards("A", 1.0, 3.0) + rewards("B", 2.0))
    expected = policy.expected({}, ACTIONS)
    assert expected is not None
    np.testing.assert_allclose(expected, [2.0, 2.0, 2.0])
    n = 1_000_000
    normals = np.random.default_rng(3).standard_normal((n, 3))
    best = (normals * np.sqrt([1 / 3, 1 / 2, 1.0])).argmax(axis=1)
    shares = np.bincount(best, minlength=3) / n
    assert np.abs(policy.pmf({}, ACTIONS) - shares).max() < 4.0 * np.sqrt(0.25 / n)


def test_the_remembered_pmf_is_forgotten_on_learning() -> None:
    policy = make_policy("thompson_beta")
    before = policy.pmf({}, ACTIONS)
    policy.learn(rewards("B", *[1.0] * 30))
    assert policy.pmf({}, ACTIONS)[1] > before[1] + 0.3


def test_thompson_gamma_counts_events_and_decisions() -> None:
    """After 2, 0 and 4 events an action is Gamma(7, 4)."""
    policy = make_policy("thompson_gamma")
    policy.learn(rewards("A", 2.0, 0.0, 4.0))
    expected = policy.expected({}, ACTIONS)
    assert expected is not None
    np.testing.assert_allclose(expected, [7 / 4, 1.0, 1.0])


@pytest.mark.parametrize("reward", [-0.1, 1.1e9])
def test_thompson_gamma_refuses_what_is_no_count(reward: float) -> None:
    policy = make_policy("thompson_gamma")
    before = policy.dumps()
    with pytest.raises(PolicyError, match="counts from 0 to 1e9"):
        policy.learn(rewards("A", 1.0, reward))
    assert policy.dumps() == before
