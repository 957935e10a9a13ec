"""Random Fourier features: their kernel, and that what was learned of them stays true."""

import numpy as np
import pytest

from policies import Action, Context, Feedback, PolicyError, load_policy, make_policy
from policies.disjoint import Disjoint
from policies.encoding import Column
from policies.fourier import Fourier
from policies.linear import LinUCB

ACTIONS = (Action("A"), Action("B"))
COLUMNS = tuple(Column("number", name, "", 1.0) for name in "xyz")


def warmed(rows: np.ndarray, count: int = 1024, seed: int = 0) -> Fourier:
    fourier = Fourier(count, seed)
    fourier.widen(COLUMNS)
    fourier.measure(rows)
    return fourier


def points(n: int, seed: int) -> np.ndarray:
    return np.column_stack([np.ones(n), np.random.default_rng(seed).uniform(-1, 1, (n, 3))])


def test_their_products_are_the_gaussian_kernel_of_the_measured_length() -> None:
    """ℓ² is half the mean squared distance, which is twice the sum of the variances.

    Columns are counted by their largest magnitude.
    """
    rows = points(64, seed=1)
    fourier = warmed(rows)
    counted = rows / np.abs(rows).max(axis=0)
    squared_length = counted.var(axis=0).sum()
    assert fourier.length == pytest.approx(np.sqrt(squared_length))
    distance = ((counted[:, None] - counted[None]) ** 2).sum(axis=2)
    features = fourier.features(rows)
    error = features @ features.T - 4.0 * np.exp(-distance / (2.0 * squared_length))
    assert np.abs(error).max() < 4.0 * 5.0 / np.sqrt(1024)  # five deviations of the mean of cosines
    assert abs(error.mean()) < 4.0 / np.sqrt(1024)


def test_a_columns_frequencies_depend_on_seed_and_column_alone() -> None:
    rows = points(64, seed=2)
    turned, other = Fourier(64, 0), warmed(rows, 64, seed=1)
    turned.widen(COLUMNS[::-1])
    turned.measure(rows[:, [0, 3, 2, 1]])
    plain = warmed(rows, 64)
    np.testing.assert_allclose(
        plain.features(rows), turned.features(rows[:, [0, 3, 2, 1]]), rtol=0, atol=1e-9
    )
    assert np.abs(plain.features(rows) - other.features(rows)).max() > 0.1


def growing_log(n: int) -> list[Feedback]:
    """Units grow before and after the length is measured, and columns come late."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(n):
        spend = float(rng.normal() * 1.03**i)
        context: Context = {"spend": spend, "x": float(rng.uniform(-1, 1))}
        if i > 90:
            context = {**context, "plan": str(rng.choice(["gold", "free"]))}
        action = str(rng.choice(["A", "B"]))
        rows.append(Feedback(context, ACTIONS, action, 0.5, float(rng.normal())))
    return rows


def test_updates_equal_a_closed_form_ridge_solve_on_features_that_never_move() -> None:
    rows = growing_log(200)
    policy = make_policy("lin_ucb", fourier=32)
    policy.learn(rows)
    assert isinstance(policy, LinUCB)
    assert isinstance(policy._models, Disjoint)
    encoder, fourier = policy._models._encoder, policy._models._fourier
    assert fourier is not None
    X = np.array([encoder.encode(r.context)[0] for r in rows])
    X = np.concatenate([fourier.features(X), X], axis=1)
    r = np.array([row.reward for row in rows])
    for action in ACTIONS:
        drawn = np.array([row.action == action.id for row in rows])
        gram = X[drawn].T @ X[drawn] + np.eye(X.shape[1])
        theta = np.linalg.solve(gram, X[drawn].T @ (r[drawn] - r.mean()))
        expected = [policy.expected(row.context, [action]) for row in rows]
        np.testing.assert_allclose(
            np.ravel(np.array(expected)), X @ theta + r.mean(), rtol=1e-7, atol=1e-9
        )


def test_an_attributes_unit_changes_no_probability() -> None:
    pmfs = []
    for factor in (1.0, 2.0**-30):
        policy = make_policy("lin_ts", fourier=32)
        for row in growing_log(120):
            scaled = {k: v * factor if isinstance(v, float) else v for k, v in row.context.items()}
            policy.learn([Feedback(scaled, ACTIONS, row.action, 0.5, row.reward)])
        pmfs.append(policy.pmf({"spend": 3.0 * factor, "x": 0.2 * factor}, ACTIONS))
    np.testing.assert_array_equal(pmfs[0], pmfs[1])


@pytest.mark.parametrize(("fourier", "right"), [(0, False), (128, True)])
def test_they_learn_an_interaction_that_no_line_can(fourier: int, right: bool) -> None:
    rng = np.random.default_rng(5)
    policy = make_policy("lin_ucb", fourier=fourier)
    hits = 0
    for i in range(900):
        context: Context = {"x": float(rng.uniform(-1, 1)), "y": float(rng.uniform(-1, 1))}
        best = "A" if (context["x"] > 0) == (context["y"] > 0) else "B"  # type: ignore[operator]
        pmf = policy.pmf(context, ACTIONS)
        if i >= 600:
            hits += pmf["AB".index(best)] > 0.5
        action = "AB"[int(rng.integers(2))]
        policy.learn([Feedback(context, ACTIONS, action, 0.5, float(action == best))])
    assert (hits > 255) == right


def test_a_context_that_never_varies_is_learned_from() -> None:
    policy = make_policy("lin_ucb", fourier=16)
    policy.learn([Feedback({}, ACTIONS, "AB"[i % 2], 0.5, float(i % 2)) for i in range(200)])
    assert policy.pmf({}, ACTIONS)[1] == 1.0
    assert load_policy(policy.dumps()).dumps() == policy.dumps()


@pytest.mark.parametrize("fourier", [1, 7])
def test_too_few_to_be_a_kernel_are_refused(fourier: int) -> None:
    with pytest.raises(PolicyError, match="at least 8"):
        make_policy("lin_ucb", fourier=fourier)


@pytest.mark.parametrize(("length", "ratio"), [(-1.0, 1.0), (np.nan, 1.0), (1.0, -1.0)])
def test_a_state_that_no_features_have_is_refused(length: float, ratio: float) -> None:
    fourier = Fourier(16, 0)
    fourier.widen(COLUMNS[:1])
    with pytest.raises(PolicyError, match="fourier_length"):
        fourier.restore(length, np.array([1.0, ratio]))
