"""IPS, SNIPS and DR with standard errors, beside the time it takes to read their inputs once."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from attribution import EvaluationLog, evaluate

FloatArray = npt.NDArray[np.float64]
ESTIMATORS = ("ips", "snips", "dr")


def made(rows: int, actions: int) -> tuple[EvaluationLog, FloatArray, FloatArray]:
    """A log with uniform propensities, a target's pmf and a reward model."""
    rng = np.random.default_rng(0)
    pmf = rng.random((rows, actions))
    pmf /= pmf.sum(axis=1, keepdims=True)
    log = EvaluationLog(
        actions=tuple(range(actions)),
        action=rng.integers(0, actions, rows),
        reward=rng.random(rows),
        propensity=np.full(rows, 1 / actions),
    )
    return log, pmf, rng.random((rows, actions))


def side_by_side(
    repeats: int, **calls: Callable[[], object]
) -> dict[str, tuple[list[float], list[float]]]:
    """Wall and CPU milliseconds of each call, in turns so that all see the same machine."""
    for call in calls.values():
        call()
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            times[name][0].append(1000 * (time.perf_counter() - wall))
            times[name][1].append(1000 * (time.process_time() - cpu))
    return times


def report(title: str, times: dict[str, tuple[list[float], list[float]]], floor: str) -> None:
    """Print median and spread of every call, and its ratio to the floor's median."""
    print(f"{title}: median [least, most] wall ms, median CPU ms, ratio of medians")
    base = statistics.median(times[floor][0])
    for name, (wall, cpu) in times.items():
        median = statistics.median(wall)
        print(
            f"  {median:9.2f}  [{min(wall):.2f}, {max(wall):.2f}]  {statistics.median(cpu):9.2f}"
            f"  {median / base:6.2f}  {name.replace('_', ' ')}"
        )


def peak_bytes_a_row(call: Callable[[], object], rows: int) -> float:
    """Largest memory that was held at once beyond the inputs."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / rows


def fused(rows: int, actions: int, repeats: int) -> None:
    """One pass of three estimators with standard errors, beside a plain sum of the same bytes."""
    log, pmf, q_hat = made(rows, actions)

    def ours(**more: Any) -> object:
        return evaluate(log, {"t": pmf}, ESTIMATORS, q_hat=q_hat, interval="jackknife", **more)

    times = side_by_side(
        repeats, plain_sum_of_pmf_and_q_hat=lambda: pmf.sum() + q_hat.sum(), evaluate=ours
    )
    title = f"IPS + SNIPS + DR with standard errors, n={rows:,}, K={actions}, {repeats} repeats"
    report(title, times, "plain_sum_of_pmf_and_q_hat")
    print(f"  {peak_bytes_a_row(ours, rows):9.1f}  bytes a row at the peak, beyond the inputs")


def bootstrap(rows: int, repeats: int) -> None:
    """A thousand draws of three estimators, beside drawing that many random bits."""
    log, pmf, q_hat = made(rows, 10)
    bits = np.random.SFC64(0)
    times = side_by_side(
        repeats,
        drawing_the_random_bits=lambda: [bits.random_raw(rows) for _ in range(250)],
        evaluate=lambda: evaluate(
            log, {"t": pmf}, ESTIMATORS, q_hat=q_hat, interval="bootstrap"
        ),
    )  # fmt: skip
    title = f"1000 bootstrap draws of IPS + SNIPS + DR, n={rows:,}, {repeats} repeats"
    report(title, times, "drawing_the_random_bits")


def main() -> None:
    """Print every comparison."""
    fused(100_000, 10, repeats=25)
    fused(1_000_000, 100, repeats=5)
    bootstrap(100_000, repeats=5)


if __name__ == "__main__":
    main()
