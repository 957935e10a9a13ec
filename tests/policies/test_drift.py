"""Forgetting: its arithmetic, and that policies which forget recover from a change of the world."""

from typing import Any

import numpy as np
import pytest

from policies import Action, Context, Feedback, Policy, apply_floor, draw, make_policy
from policies.disjoint import Discount, Disjoint
from policies.linear import LinUCB

ACTIONS = (Action("A"), Action("B"), Action("C"))


def log(n: int, seed: int) -> list[Feedback]:
    rng = np.random.default_rng(seed)
    return [
        Feedback(
            {"x": float(rng.normal())},
            ACTIONS,
            "AB"[int(rng.integers(2))],
            0.5,
            float(rng.normal()),
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("half_life", [20.0, 500.0])
def test_discounted_updates_equal_a_closed_form_weighted_ridge_solve(half_life: float) -> None:
    """Each reward weighs ½ to the share of a half-life since it, in 64 steps; the penalty stays."""
    rows = log(150, seed=1)
    policy = make_policy("lin_ucb", half_life=half_life, l2=0.7)
    policy.learn(rows)
    assert isinstance(policy, LinUCB)
    models = policy._models
    assert isinstance(models, Disjoint)
    discount = Discount.of(half_life)
    assert discount is not None
    steps = len(rows) // discount.period - np.arange(len(rows)) // discount.period
    weight = discount.factor**steps
    X = np.array([models._encoder.encode(row.context)[0] for row in rows])
    r = np.array([row.reward for row in rows])
    centre = np.average(r, weights=weight)
    attained = 0.0
    for action in ACTIONS[:2]:
        drawn = np.array([row.action == action.id for row in rows])
        weighted = X[drawn] * weight[drawn, None]
        gram = weighted.T @ X[drawn] + 0.7 * np.eye(2)
        theta = np.linalg.solve(gram, weighted.T @ (r[drawn] - centre))
        error = r[drawn] - centre - X[drawn] @ theta
        attained += float(weight[drawn] @ error**2 + 0.7 * theta @ theta)
        for row in rows[:5]:
            x, _ = models._encoder.encode(row.context)
            predicted = models.predict(row.context, [action], spread=True)
            np.testing.assert_allclose(predicted.mean[0], theta @ x, rtol=1e-8)
            np.testing.assert_allclose(
                predicted.variance[0], x @ np.linalg.inv(gram) @ x, rtol=1e-8
            )
    assert models.noise == pytest.approx(np.sqrt(attained / weight.sum()), rel=1e-8)


def test_means_forget_a_decision_at_a_time() -> None:
    """At a half-life of one, rewards 8, 4 and 2 of one action weigh 1/4, 1/2 and 1."""
    policy = make_policy("thompson_gaussian", half_life=1, prior_count=1e-9)
    for reward in (8.0, 4.0, 2.0):
        policy.learn([Feedback({}, ACTIONS, "A", 0.5, reward)])
    expected = policy.expected({}, ACTIONS[:1])
    assert expected is not None
    assert expected[0] == pytest.approx((2.0 + 2.0 + 2.0) / 1.75)


def recovery(policy: Policy, seed: int, *, contextual: bool) -> int:
    """Decisions after the change until 90 of the last 100 chose what is best now.

    For 1,500 decisions A pays .8 and B .2; then they change places. With a context, each is so on
    one device and the other way about on the other.
    """
    rng = np.random.default_rng(seed)
    hits: list[bool] = []
    pmf = np.full(2, 0.5)
    for t in range(4_500):
        device = str(rng.choice(["tv", "phone"])) if contextual else "tv"
        context: Context = {"device": device}
        best = int((device == "tv") == (t >= 1_500))
        if contextual or t % 10 == 0:
            pmf = apply_floor(policy.pmf(context, ACTIONS[:2]), 0.02)
        drawn = draw(pmf, rng.random())
        reward = float(rng.random() < (0.8 if drawn == best else 0.2))
        policy.learn([Feedback(context, ACTIONS[:2], "AB"[drawn], float(pmf[drawn]), reward)])
        if t >= 1_500:
            hits.append(drawn == best)
            if sum(hits[-100:]) >= 90:
                return len(hits)
    return 3_000


@pytest.mark.parametrize(
    ("kind", "contextual", "parameters"),
    [
        ("lin_ucb", True, {}),
        ("lin_ts", True, {}),
        ("adaptive_ucb", True, {"fourier": 16}),
        ("logistic_ts", True, {}),
        ("thompson_beta", False, {}),
        ("thompson_gaussian", False, {}),
        ("ucb1", False, {"exploration": 0.5}),
    ],
)
def test_a_policy_that_forgets_recovers_within_three_half_lives(
    kind: str, contextual: bool, parameters: dict[str, Any]
) -> None:
    half_life = 200
    policy = make_policy(kind, half_life=half_life, **parameters)
    assert recovery(policy, 1, contextual=contextual) <= 3 * half_life


@pytest.mark.parametrize(("kind", "contextual"), [("lin_ucb", True), ("thompson_beta", False)])
def test_a_policy_that_does_not_forget_takes_longer(kind: str, contextual: bool) -> None:
    assert recovery(make_policy(kind), 1, contextual=contextual) > 800
