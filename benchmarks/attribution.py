"""IPS, SNIPS and DR with standard errors, beside the time it takes to read their inputs once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from attribution import EvaluationLog, evaluate

ROWS, ACTIONS, REPEATS = 100_000, 10, 15


def milliseconds(call: Callable[[], object]) -> list[float]:
    """Wall time of each repeat, after one that warms up."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)


def main() -> None:
    """Print median and spread of both, and their ratio."""
    rng = np.random.default_rng(0)
    pmf = rng.dirichlet(np.ones(ACTIONS), size=ROWS)
    q_hat = rng.random((ROWS, ACTIONS))
    log = EvaluationLog(
        actions=tuple(range(ACTIONS)),
        action=rng.integers(0, ACTIONS, ROWS),
        reward=rng.random(ROWS),
        propensity=np.full(ROWS, 1 / ACTIONS),
    )
    floor = milliseconds(lambda: pmf.sum() + q_hat.sum())
    ours = milliseconds(lambda: evaluate(log, {"t": pmf}, ["ips", "snips", "dr"], q_hat=q_hat))
    print(f"off-policy evaluation, n={ROWS:,}, K={ACTIONS}, {REPEATS} repeats, milliseconds")
    for name, times in (
        ("np.sum of pmf and q_hat", floor),
        ("evaluate: IPS, SNIPS, DR with SE, intervals and diagnostics", ours),
    ):
        print(f"  {statistics.median(times):8.2f}  [{times[0]:.2f}, {times[-1]:.2f}]  {name}")
    print(f"  {statistics.median(ours) / statistics.median(floor):8.1f}  ratio")


if __name__ == "__main__":
    main()
