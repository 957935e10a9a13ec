"""IPS, SNIPS and DR with standard errors, beside the time it takes to read their inputs once."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from attribution import EvaluationLog, LogColumns, evaluate, evaluate_batches

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

    def drawn() -> object:
        return evaluate(log, {"t": pmf}, ESTIMATORS, q_hat=q_hat, interval="bootstrap")

    times = side_by_side(
        repeats,
        drawing_the_random_bits=lambda: [bits.random_raw(rows) for _ in range(250)],
        evaluate=drawn,
    )
    title = f"1000 bootstrap draws of IPS + SNIPS + DR, n={rows:,}, {repeats} repeats"
    report(title, times, "drawing_the_random_bits")
    print(f"  {peak_bytes_a_row(drawn, rows):9.1f}  bytes a row at the peak, beyond the inputs")


def streamed(rows: int, actions: int) -> None:
    """The same three estimators of a Parquet file, and of one four times as long."""
    print(f"IPS + SNIPS + DR of Parquet files, K={actions}: CPU s, MB at the peak (of a process)")
    for size in (rows, 4 * rows):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "log.parquet"
            write(path, size, actions)
            command = [sys.executable, "-m", "benchmarks.attribution", str(path), str(actions)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            cpu, before, peak = map(float, told.split())
            file = path.stat().st_size / 1e6
        print(
            f"  {cpu:9.2f}  {peak:9.0f}  n={size:,}, a file of {file:.0f} MB; "
            f"{before:.0f} MB of it before the first row"
        )


def write(path: Path, rows: int, actions: int) -> None:
    """A log with a target and a reward model in columns of lists, a part at a time."""
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, 250_000):
        count = min(250_000, rows - start)
        pmf = rng.random((count, actions))
        pmf /= pmf.sum(axis=1, keepdims=True)
        table = pa.table(
            {
                "action": rng.integers(0, actions, count),
                "reward": rng.random(count),
                "p": np.full(count, 1 / actions),
                "target": lists(pmf),
                "q_hat": lists(rng.random((count, actions))),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=62_500)
    if writer is not None:
        writer.close()


def lists(matrix: FloatArray) -> pa.Array:
    """(n, k) as n lists of k."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def read(path: str, actions: int) -> None:
    """Evaluate the file; print CPU seconds, and peak memory before and after in MB."""
    columns = LogColumns("action", "reward", "p", actions=range(actions))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    evaluate_batches(path, columns, {"t": "target"}, ESTIMATORS, q_hat="q_hat")
    spent = time.process_time() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(spent, before / 1000, after / 1000)


def main() -> None:
    """Print every comparison."""
    # First, since the peak of a child that is told begins at its parent's.
    streamed(500_000, 10)
    fused(100_000, 10, repeats=25)
    fused(1_000_000, 100, repeats=5)
    bootstrap(100_000, repeats=5)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        read(sys.argv[1], int(sys.argv[2]))
    else:
        main()
