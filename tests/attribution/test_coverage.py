"""Intervals cover what they promise in worlds whose truth is known.

Each cell is judged by a binomial bound: it fails only if a procedure that truly covered 95 %
would have hit so seldom less than once in ten thousand runs of the suite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import fdtri

from attribution import evaluate
from attribution.intervals import Sums, cressie_read
from tests.attribution.worlds import World, at_least, heavy, mild

IntArray = npt.NDArray[np.intp]
Rows = Callable[[np.random.Generator], IntArray]

LOGS = 300
ESTIMATORS = ["ips", "snips", "dr"]


def single(count: int) -> Rows:
    return lambda rng: np.ones(count, dtype=np.intp)


def unequal(units: int) -> Rows:
    return lambda rng: (1 + rng.poisson(rng.gamma(1, 8, size=units))).astype(np.intp)


CELLS = {
    "mild, low reward, one row a unit": (mild(0.06), single(1000), False),
    "mild, high reward, one row a unit": (mild(0.86), single(1000), False),
    "mild, low reward, 200 unequal units": (mild(0.06), unequal(200), False),
    "mild, high reward, 200 unequal units": (mild(0.86), unequal(200), False),
    "mild, low reward, 50 unequal sticky units": (mild(0.06), unequal(50), True),
    "mild, high reward, 50 unequal sticky units": (mild(0.86), unequal(50), True),
    "heavy, low reward, one row a unit": (heavy(0.06), single(1000), False),
    "heavy, high reward, one row a unit": (heavy(0.86), single(1000), False),
    "heavy, high reward, 200 unequal units": (heavy(0.86), unequal(200), False),
}


@pytest.mark.parametrize("cell", CELLS)
def test_values_and_paired_differences_are_covered(cell: str) -> None:
    world, rows, sticky = CELLS[cell]
    rng = np.random.default_rng(2026)
    gain = world.value - world.logging_value
    hits = {name: np.zeros(2, int) for name in ESTIMATORS}
    answered = 0
    for _ in range(LOGS):
        log = world.log(rng, rows(rng), taste=0.05, sticky=sticky)
        report = evaluate(log, {"t": world.target_for(log)}, ESTIMATORS, against="logging")
        if report.diagnostics["t"].verdict == "not_estimable":
            continue
        answered += 1
        for row, pair in zip(report.results, report.comparisons_made, strict=True):
            hits[row.estimator] += (
                row.low <= world.value <= row.high,
                pair.low <= gain <= pair.high,
            )
    assert answered >= 0.9 * LOGS
    for name, (value_hits, difference_hits) in hits.items():
        assert at_least(value_hits, answered, 0.95), (name, value_hits / answered)
        assert at_least(difference_hits, answered, 0.95), (name, difference_hits / answered)


def test_the_jackknife_alone_fails_where_weights_are_heavy_so_the_verdict_is_weak() -> None:
    """What the diagnostics guard against: nominal 95 % intervals that cover about 70 %."""
    world = heavy(0.86)
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(LOGS):
        log = world.log(rng, np.ones(1000, dtype=np.intp), declared=False)
        report = evaluate(log, {"t": world.target_for(log)}, ["snips"])
        assert report.diagnostics["t"].verdict in {"weak", "not_estimable"}
        row = report.results[0]
        hits += row.low <= world.value <= row.high
    assert not at_least(hits, LOGS, 0.95)


def test_two_targets_are_compared_within_the_declared_ranges() -> None:
    """Both weights heavy, no pmf of the log: the difference is covered nevertheless."""
    world = heavy(0.5)
    other = World(world.reward, world.logging, np.roll(world.target, 1))
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(LOGS):
        log = world.log(rng, np.ones(1000, dtype=np.intp))
        report = evaluate(
            log,
            {"t": world.target_for(log), "o": other.target_for(log)},
            ["ips"],
            against="o",
            interval="cressie_read",
        )
        [pair] = report.comparisons_made
        hits += pair.low <= world.value - other.value <= pair.high
    assert at_least(hits, LOGS, 0.95)


@pytest.mark.parametrize("unequal_rows", [False, True])
def test_cressie_read_is_the_optimum_of_the_problem_it_states(unequal_rows: bool) -> None:
    """Reference: SLSQP over the reweightings Q themselves, at the end that we return.

    At v = low the smallest E_Q[total − v rows] is zero over Q = (1 + u) / M with E_Q[1] = 1,
    E_Q[weight − rows] = 0 and mean u² ≤ F(1, m) / M + least misfit.
    """
    rng = np.random.default_rng(9)
    m, most, alpha = 12, 6.0, 0.1
    rows = rng.integers(1, 4, m).astype(float) if unequal_rows else np.ones(m)
    weight = rng.exponential(size=m) * rows
    total = weight * rng.random(m)
    low, _ = cressie_read(Sums(total, weight, rows, 0, 1, 0, 0), most, alpha)
    size = rows.mean()
    worst, misfits = [], []
    for imagined in (0.0, most):
        excess = np.append(weight, size * imagined) - np.append(rows, size)
        misfits.append(excess.mean() ** 2 / excess.var())
    least = misfits[1 if weight.sum() < rows.sum() else 0]
    budget = float(fdtri(1, m, 1 - alpha)) / (m + 1) + least
    for imagined in (0.0, most):
        t, n = np.append(total, 0.0), np.append(rows, size)
        excess = np.append(weight, size * imagined) - n
        z = t - low * n
        found = minimize(
            lambda u, z=z: float(((1 + u) * z).mean()),
            np.zeros(m + 1),
            jac=lambda u, z=z: z / (m + 1),
            constraints=[
                {"type": "eq", "fun": lambda u: u.mean()},
                {"type": "eq", "fun": lambda u, excess=excess: ((1 + u) * excess).mean()},
                {"type": "ineq", "fun": lambda u: budget - (u**2).mean()},
            ],
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-14},
        )
        if found.success:
            worst.append(found.fun)
    assert min(worst) == pytest.approx(0, abs=1e-6)


def test_cressie_read_mirrors_when_the_reward_is_negated() -> None:
    rng = np.random.default_rng(10)
    weight, reward, rows = rng.exponential(size=40), rng.random(40), np.ones(40)
    for most in (5.0, np.inf):
        low, high = cressie_read(Sums(weight * reward, weight, rows, 0, 1, 0, 0), most, 0.05)
        mirrored = cressie_read(Sums(-weight * reward, weight, rows, -1, 0, 0, 0), most, 0.05)
        assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), rel=1e-12)


def test_a_tight_largest_weight_narrows_cressie_read_under_heavy_weights() -> None:
    world = heavy(0.06)
    log = world.log(np.random.default_rng(11), np.ones(1000, dtype=np.intp))
    weight = world.target[log.action] / log.propensity
    sums = Sums(weight * log.reward, weight, np.ones(1000), 0, 1, 0, 0)
    tight, loose = (
        np.diff(cressie_read(sums, most, 0.05))[0] for most in (world.max_weight, np.inf)
    )
    assert tight < 0.7 * loose
