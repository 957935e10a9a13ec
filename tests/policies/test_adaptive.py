"""The adaptive kind: its evidence against the closed form, and which model it believes."""

from collections.abc import Callable

import numpy as np
import pytest

from policies import DEFAULT_KIND, Action, Context, Feedback, make_policy
from policies.disjoint import Disjoint
from policies.linear import AdaptiveParameters, AdaptiveUCB

ACTIONS = (Action("A"), Action("B"))
CONSTANT, LINES, CURVES = range(3)


def learned(rows: list[Feedback]) -> Disjoint:
    policy = AdaptiveUCB(AdaptiveParameters(fourier=32))
    policy.learn(rows)
    assert isinstance(policy._models, Disjoint)
    return policy._models


def log(n: int, seed: int, worth: Callable[[float, float], float]) -> list[Feedback]:
    """Numbers grow, so that units do; ``worth`` of two of them is what B earns."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        x, y = rng.uniform(-1.0, 1.0, 2).tolist()
        context: Context = {"x": x * (1 + i % 5), "y": y, "k": str(rng.choice(list("pqr")))}
        b = bool(rng.random() < 0.5)
        reward = worth(x * (1 + i % 5), y) * b + 0.3 * float(rng.normal())
        rows.append(Feedback(context, ACTIONS, "AB"[b], 0.5, reward))
    return rows


def test_the_default_is_adaptive() -> None:
    assert make_policy().kind == DEFAULT_KIND == "adaptive_ucb"


def test_evidence_is_the_marginal_likelihood_of_bayesian_ridge_regression() -> None:
    """log ∫ N(r | Xθ, σ²) N(θ | 0, σ²/λ) dθ at the best σ², but for what all models share."""
    rows = log(150, seed=1, worth=lambda x, y: x - y)
    models = learned(rows)
    r = np.array([row.reward for row in rows])
    r = r - r.mean()
    drawn = np.array([row.action for row in rows])
    base = np.array([models._encoder.encode(row.context)[0] for row in rows])
    for model, part in zip(models._models, models._parts, strict=True):
        X = np.array([models._read(x, part) for x in base])
        log_det = quadratic = 0.0
        for action in "AB":
            mine = drawn == action
            covariance = np.eye(mine.sum()) + X[mine] @ X[mine].T
            log_det += np.linalg.slogdet(covariance)[1]
            quadratic += r[mine] @ np.linalg.solve(covariance, r[mine])
        exact = -0.5 * (len(r) * np.log(quadratic / len(r)) + log_det)
        found = model.evidence(models._rewards.centre, models._rewards.weight)
        assert found == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize(
    ("worth", "believed"),
    [
        (lambda x, y: 0.5, CONSTANT),
        (lambda x, y: 0.3 * x - 0.5 * y, LINES),
        (lambda x, y: abs(x), CURVES),
    ],
    ids=["nothing", "lines", "curves"],
)
def test_the_model_believed_is_that_of_the_world(
    worth: Callable[[float, float], float], believed: int
) -> None:
    assert learned(log(600, seed=2, worth=worth))._preferred() == believed


def test_few_decisions_never_make_it_believe_that_contexts_tell_nothing() -> None:
    """Ten for each coefficient of the lines: two actions times six columns."""
    rows = log(120, seed=3, worth=lambda x, y: 0.5)
    believed = [learned(rows[:n])._preferred() for n in (1, 10, 60, 119)]
    assert CONSTANT not in believed
    assert learned(rows)._models[LINES].width == 6
    assert learned(rows)._preferred() == CONSTANT
