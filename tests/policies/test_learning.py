"""Each learning kind earns clearly more than uniform in a small world with a known best."""

import numpy as np
import pytest

from policies import Action, Context, Feedback, apply_floor, draw, make_policy

ACTIONS = (Action("A"), Action("B"), Action("C"), Action("D"))
ROUNDS = 1500
FLOOR = 0.02


def chances(context: Context) -> np.ndarray:
    """P(reward = 1) of each action: B is best on a phone, C on a television; D depends on x."""
    phone, x = context["device"] == "phone", context["x"]
    assert isinstance(x, float)
    return np.array([0.3, 0.7 if phone else 0.1, 0.1 if phone else 0.7, 0.3 + 0.2 * np.tanh(x)])


def simulate(kind: str, seed: int, contextual: bool) -> tuple[float, float, float]:
    """Mean expected reward of a decision: the policy's, uniform's and the best in each context."""
    rng = np.random.default_rng(seed)
    policy = make_policy(kind)
    earned = uniform = best = 0.0
    for _ in range(ROUNDS):
        device = "phone" if not contextual or rng.random() < 0.5 else "tv"
        context: Context = {"device": device, "x": float(rng.normal())}
        chance = chances(context)
        pmf = apply_floor(policy.pmf(context, ACTIONS), FLOOR)
        drawn = draw(pmf, rng.random())
        reward = float(rng.random() < chance[drawn])
        policy.learn([Feedback(context, ACTIONS, ACTIONS[drawn].id, float(pmf[drawn]), reward)])
        earned += float(pmf @ chance)
        uniform += float(chance.mean())
        best += float(chance.max())
    return earned / ROUNDS, uniform / ROUNDS, best / ROUNDS


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("kind", "contextual"),
    [
        ("epsilon_greedy", False),
        ("softmax", False),
        ("ucb1", False),
        ("thompson_beta", False),
        ("thompson_gamma", False),
        ("thompson_gaussian", False),
        ("lin_ucb", True),
        ("adaptive_ucb", True),
        ("lin_ts", True),
        ("lin_greedy", True),
        ("lin_squarecb", True),
        ("vw", True),
    ],
)
def test_a_learning_policy_closes_most_of_the_gap_to_the_best(
    kind: str, contextual: bool, seed: int
) -> None:
    earned, uniform, best = simulate(kind, seed, contextual)
    assert earned - uniform > 0.7 * (best - uniform)
