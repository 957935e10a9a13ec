"""Epsilon-greedy, softmax and UCB1, by hand."""

import numpy as np
import pytest

from policies import Action, Feedback, make_policy

A, B, C = ACTIONS = (Action("A"), Action("B"), Action("C"))


def rewards(action: str, *values: float) -> list[Feedback]:
    return [Feedback({}, ACTIONS, action, 1 / 3, value) for value in values]


LOG = rewards("A", 1.0, 2.0, 4.0) + rewards("B", 3.0, 5.0) + rewards("C", 0.0)
COUNT, MEAN = np.array([3, 2, 1]), np.array([7 / 3, 4.0, 0.0])
SHRUNK = 2.5 + COUNT / (COUNT + 1) * (MEAN - 2.5)  # κ = 1; all six have the mean 2.5
WITHIN = 42 / 9 + 2.0 + 0.0
NOISE = np.sqrt((WITHIN + (COUNT / (1 + COUNT) * (MEAN - 2.5) ** 2).sum()) / 6)


def test_epsilon_greedy_spreads_epsilon_over_all() -> None:
    policy = make_policy("epsilon_greedy", epsilon=0.3)
    policy.learn(LOG)
    np.testing.assert_allclose(policy.pmf({}, ACTIONS), [0.1, 0.8, 0.1], rtol=1e-12)
    np.testing.assert_allclose(policy.pmf({}, [A, C]), [0.85, 0.15], rtol=1e-12)


def test_softmax_counts_in_residual_deviations() -> None:
    policy = make_policy("softmax", temperature=0.7)
    policy.learn(LOG)
    weights = np.exp(SHRUNK / (0.7 * NOISE))
    np.testing.assert_allclose(policy.pmf({}, ACTIONS), weights / weights.sum(), rtol=1e-9)
    expected = policy.expected({}, ACTIONS)
    assert expected is not None
    np.testing.assert_allclose(expected, SHRUNK, rtol=1e-12)


@pytest.mark.parametrize("exploration", [0.1, 1.0, 2.0, 8.0])
def test_ucb1_takes_the_largest_bound(exploration: float) -> None:
    policy = make_policy("ucb1", exploration=exploration)
    policy.learn(LOG)
    bound = SHRUNK + exploration * NOISE * np.sqrt(2 * np.log(6) / COUNT)
    np.testing.assert_array_equal(policy.pmf({}, ACTIONS), np.arange(3) == bound.argmax())


def test_ucb1_tries_every_action_first() -> None:
    policy = make_policy("ucb1")
    policy.learn(rewards("B", 9.0, 9.5))
    np.testing.assert_array_equal(policy.pmf({}, ACTIONS), [0.5, 0.0, 0.5])


KINDS = pytest.mark.parametrize("kind", ["epsilon_greedy", "softmax", "ucb1"])


@KINDS
@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (1.0, 100.0), (256.0, -1e4)])
def test_rewards_have_no_unit_and_no_origin(kind: str, scale: float, shift: float) -> None:
    values = np.random.default_rng(2).normal([0.0, 0.3, 0.1], 1.0, (40, 3))
    pmfs = []
    for factor, offset in ((1.0, 0.0), (scale, shift)):
        policy = make_policy(kind)
        for row in values:
            for action, value in zip("ABC", row, strict=True):
                policy.learn(rewards(action, factor * float(value) + offset))
        pmfs.append(policy.pmf({}, ACTIONS))
    np.testing.assert_allclose(pmfs[1], pmfs[0], rtol=1e-6)


@KINDS
@pytest.mark.parametrize("reward", [0.0, 0.1, -7.3])
def test_rewards_that_never_differ_favour_no_action(kind: str, reward: float) -> None:
    policy = make_policy(kind)
    for action in "ABC":
        policy.learn(rewards(action, *[reward] * (ord(action) - 60)))
    np.testing.assert_allclose(policy.pmf({}, ACTIONS), [1 / 3] * 3, rtol=1e-12)


def test_thousands_of_equal_rewards_leave_no_rounding_to_prefer() -> None:
    policy = make_policy("softmax")
    policy.learn(rewards("A", *[0.1] * 1000) + rewards("B", *[0.1] * 999))
    np.testing.assert_allclose(policy.pmf({}, [A, B]), [0.5, 0.5], rtol=1e-12)
