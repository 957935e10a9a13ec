"""Lift over Parquet beside tea-tasting on DuckDB, and a report from roll-ups beside the rescan."""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from attribution import Rollup, lift, roll_up

ROWS, METRICS, DAYS, BATCH, REPEATS = 10_000_000, 10, 90, 1_000_000, 3
NAMES = [f"m{number}" for number in range(METRICS)]
SHARES = {"a": 0.5, "b": 0.25, "c": 0.25}


def write(path: Path) -> None:
    """ROWS units of three variants with ten metrics: rates, sparse revenue, dense amounts."""
    rng = np.random.default_rng(0)
    writer = None
    for _ in range(ROWS // BATCH):
        codes = rng.choice(3, BATCH, p=list(SHARES.values()))
        columns: dict[str, object] = {
            "variant": pa.DictionaryArray.from_arrays(codes.astype(np.int8), list(SHARES)),
            "day": rng.integers(0, DAYS, BATCH).astype(np.int16),
        }
        for number, name in enumerate(NAMES):
            dense = rng.exponential(size=BATCH)
            shown = rng.random(BATCH) < 0.05
            kinds = (dense, shown * dense, shown.astype(np.float64))
            columns[name] = kinds[number % 3]
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def ours(path: str) -> None:
    """The lift report of all metrics and variants."""
    lift(path, variant="variant", baseline="a", metrics=NAMES, probability=SHARES)


def theirs(path: str) -> None:
    """The same comparisons by tea-tasting, whose backend is DuckDB by way of Ibis."""
    # Ibis asks for this guard of old Arrow versions, which ours has built in.
    sys.modules.setdefault("pyarrow_hotfix", ModuleType("pyarrow_hotfix"))
    import ibis  # noqa: PLC0415  a peer, in its own process only
    import tea_tasting as tt  # noqa: PLC0415

    table = ibis.duckdb.connect().read_parquet(path)
    experiment = tt.Experiment({name: tt.Mean(name) for name in NAMES}, variant="variant")
    experiment.analyze(table, control="a", all_variants=True)


def from_stored(daily: pd.DataFrame) -> None:
    """The same report from the stored form of daily roll-ups."""
    lift(Rollup.from_frame(daily, NAMES), variant="variant", baseline="a", metrics=NAMES)


def milliseconds(call: Callable[[], None], clock: Callable[[], float], repeats: int) -> list[float]:
    """Time of each repeat by a clock, in ascending order."""
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(1000 * (clock() - start))
    return sorted(times)


def measured(which: str, path: Path) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak megabytes of one report in a process of its own."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lift", which, str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    cpu, peak = done.stdout.split()
    return float(cpu), time.perf_counter() - start, float(peak)


def main() -> None:
    """Print CPU time and memory of both, and the time of a report from 90 daily roll-ups."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "units.parquet"
        write(path)
        size = path.stat().st_size / 1e6
        print(f"lift of {METRICS} metrics, 3 variants, {ROWS:,} rows of Parquet ({size:.0f} MB)")
        cpu: dict[str, float] = {}
        for which in ("ours", "theirs"):
            runs = [measured(which, path) for _ in range(REPEATS)]
            cpu[which] = statistics.median(run[0] for run in runs)
            peak = max(run[2] for run in runs)
            spread = f"[{min(run[0] for run in runs):.2f}, {max(run[0] for run in runs):.2f}]"
            print(f"  {cpu[which]:8.2f}  {spread}  CPU seconds, peak {peak:.0f} MB: {which}")
        print(f"  {cpu['ours'] / cpu['theirs']:8.2f}  ratio")
        daily = roll_up(
            str(path), variant="variant", metrics=NAMES, probability=SHARES, by=["day"]
        ).to_frame()
        print(f"report of {DAYS} days, milliseconds")
        for name, clock in (("wall", time.perf_counter), ("CPU", time.process_time)):
            rescan = milliseconds(lambda: ours(str(path)), clock, REPEATS)
            stored = milliseconds(lambda: from_stored(daily), clock, 50)
            for which, times in (("rescan", rescan), ("stored roll-ups", stored)):
                median = statistics.median(times)
                print(f"  {median:8.1f}  [{times[0]:.1f}, {times[-1]:.1f}]  {name}: {which}")
            print(f"  {statistics.median(rescan) / statistics.median(stored):8.0f}  ratio")


def alone(which: str, path: str) -> None:
    """Run one report and print its CPU seconds and peak megabytes, imports included."""
    (ours if which == "ours" else theirs)(path)
    used = resource.getrusage(resource.RUSAGE_SELF)
    # ru_maxrss would tell the parent's size, from before this program was loaded.
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(used.ru_utime + used.ru_stime, int(peak) / 1024)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        alone(*sys.argv[1:])
    else:
        main()
