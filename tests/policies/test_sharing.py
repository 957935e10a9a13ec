"""One model for all actions: the arithmetic, and what a new action's features are worth."""

import numpy as np
import pytest

from policies import Action, Context, Feedback, PolicyError, apply_floor, draw, make_policy
from policies.joint import Joint
from policies.linear import LinUCB

A, B = Action("A", {"price": 3.0, "tone": "warm"}), Action("B", {"price": 1.0, "tone": "cold"})


def log(n: int, seed: int) -> list[Feedback]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        context: Context = {"x": float(rng.normal()), "device": str(rng.choice(["tv", "phone"]))}
        action = (A, B)[int(rng.integers(2))]
        reward = float(context["x"]) * (action is A) + float(rng.normal())  # type: ignore[arg-type]
        rows.append(Feedback(context, (A, B), action.id, 0.5, reward))
    return rows


@pytest.mark.parametrize("sharing", ["shared", "hybrid"])
def test_updates_equal_a_closed_form_ridge_solve_on_the_products(sharing: str) -> None:
    rows = log(150, seed=1)
    policy = make_policy("lin_ucb", sharing=sharing, l2=0.5)
    policy.learn(rows)
    assert isinstance(policy, LinUCB)
    models = policy._models
    assert isinstance(models, Joint)

    def vector(row: Feedback, action: Action) -> np.ndarray:
        x, unseen = models._encoder.encode(row.context)
        f, unseen_action = models._actions.encode(models._described(action))
        assert unseen == unseen_action == 0.0
        return np.outer(f, x).ravel()

    X = np.array([vector(row, A if row.action == "A" else B) for row in rows])
    r = np.array([row.reward for row in rows])
    gram = X.T @ X + 0.5 * np.eye(X.shape[1])
    theta = np.linalg.solve(gram, X.T @ (r - r.mean()))
    noise = np.sqrt((((r - r.mean() - X @ theta) ** 2).sum() + 0.5 * theta @ theta) / len(r))
    for row in rows[:10]:
        z = np.array([vector(row, action) for action in (A, B)])
        predicted = models.predict(row.context, (A, B), spread=True)
        np.testing.assert_allclose(predicted.mean, z @ theta, rtol=1e-8, atol=1e-10)
        spread = np.einsum("kd,kd->k", z @ np.linalg.inv(gram), z)
        np.testing.assert_allclose(predicted.variance, spread, rtol=1e-8)
    assert models.noise == pytest.approx(noise, rel=1e-9)


@pytest.mark.parametrize("sharing", ["shared", "hybrid"])
def test_what_is_new_is_as_uncertain_before_its_columns_grow_as_after(sharing: str) -> None:
    policy = make_policy("lin_ucb", sharing=sharing)
    policy.learn(log(60, seed=2))
    assert isinstance(policy, LinUCB)
    models = policy._models
    assert isinstance(models, Joint)
    context: Context = {"x": 0.4, "device": "watch", "plan": "gold"}
    fresh = Action("C", {"price": 2.0, "tone": "shrill", "size": 4.0})
    before = models.predict(context, [fresh], spread=True)
    models._grown(models._encoder, context, of_action=False)
    models._grown(models._actions, models._described(fresh), of_action=True)
    after = models.predict(context, [fresh], spread=True)
    np.testing.assert_allclose(before.mean, after.mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(before.variance, after.variance, rtol=1e-10)


def test_hybrid_sharing_learns_what_features_cannot_tell() -> None:
    """Two actions of the same features, of which one is better."""
    twins = (Action("A", {"price": 2.0}), Action("B", {"price": 2.0}))
    gaps = {}
    for sharing in ("shared", "hybrid"):
        policy = make_policy("lin_greedy", sharing=sharing)
        for i in range(200):
            drawn = twins[i % 2]
            policy.learn([Feedback({"x": 1.0}, twins, drawn.id, 0.5, float(i % 2))])
        expected = policy.expected({"x": 1.0}, twins)
        assert expected is not None
        gaps[sharing] = expected[1] - expected[0]
    assert gaps["shared"] == 0.0
    assert gaps["hybrid"] > 0.9


def test_an_action_that_is_no_longer_eligible_leaves_the_others_as_they_were() -> None:
    policy = make_policy("lin_ts", sharing="hybrid")
    policy.learn(log(80, seed=3))
    both = policy.expected({"x": 0.3, "device": "tv"}, (A, B))
    alone = policy.expected({"x": 0.3, "device": "tv"}, (B,))
    assert both is not None
    assert alone is not None
    assert alone[0] == pytest.approx(both[1], rel=1e-12)


def test_fourier_features_are_refused_where_models_are_shared() -> None:
    with pytest.raises(PolicyError, match="sharing disjoint"):
        make_policy("lin_ucb", sharing="shared", fourier=64)


def rounds_until_found(sharing: str, seed: int) -> int:
    """Decisions, after ninety actions were added, until the best was 20 of the last 25.

    Actions are known by three features, which linear functions of the context weigh. Ten are there
    from the start; of the ninety that come after 300 decisions one is the best for everybody.
    """
    rng = np.random.default_rng(seed)
    weights = 0.3 * rng.normal(size=(3, 4))
    weights[0] = [2.0, 0.0, 0.0, 0.0]
    features = rng.uniform(-1.0, 1.0, (100, 3))
    features[99] = [2.0, 0.0, 0.0]
    actions = tuple(
        Action(f"a{i}", {f"f{j}": float(v) for j, v in enumerate(row)})
        for i, row in enumerate(features)
    )
    policy = make_policy("lin_ucb", sharing=sharing)
    drawn: list[int] = []
    for t in range(1_500):
        x = np.concatenate([[1.0], rng.normal(size=3)])
        context: Context = {f"x{j}": float(v) for j, v in enumerate(x[1:], start=1)}
        eligible = actions[:10] if t < 300 else actions
        pmf = apply_floor(policy.pmf(context, eligible), 0.02)
        a = draw(pmf, rng.random())
        reward = float(features[a] @ weights @ x + rng.normal())
        policy.learn([Feedback(context, eligible, eligible[a].id, float(pmf[a]), reward)])
        if t >= 300:
            drawn.append(a)
            if drawn[-25:].count(99) >= 20:
                return len(drawn)
    return len(drawn)


def test_sharing_finds_a_new_best_action_three_times_sooner() -> None:
    shared = [rounds_until_found("shared", seed) for seed in range(3)]
    disjoint = [rounds_until_found("disjoint", seed) for seed in range(3)]
    assert 3 * np.mean(shared) <= np.mean(disjoint)
