"""Exporting the log's analysis columns, beside a floor that only reads its bytes and writes them.

    python -m benchmarks.exporting [DECISIONS ...]

For each number of decisions (100,000 and 1,000,000 by default) a log of that size is made in a
temporary folder: records of the surface that decisions are measured on (3 slots × 5 actions, 10
rules, 40 attributes), so three rows a decision. The floor scans the record column with sqlite3 and
writes the same bytes as Parquet. Each runs in a process of its own: seconds, and the largest
resident memory, whose growth with the log is what tells whether it is flat.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import surface
from engine.decide import Inputs, decide
from engine.exporting import export
from engine.ids import uuid7
from engine.record import encode_record
from engine.request import DecideRequest
from engine.revisions import activate
from engine.store import Store

SIZES = (100_000, 1_000_000)
TEMPLATES, PAGE = 5_000, 20_000
NOW = 1_750_000_000_000_000
_INSERT = (
    "INSERT INTO decisions (decision_id, decided_at, committed_at, origin, surface, unit, record) "
    "VALUES (?, ?, ?, 'live', 'home', ?, ?)"
)


def main(sizes: tuple[int, ...] = SIZES) -> None:
    """Print the table."""
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="evenhand-bench-") as name:
            folder = Path(name)
            written = _make_log(folder, size)
            print(f"{size:,} decisions, {3 * size:,} choices, {written / 1e9:.2f} GB of records")
            ratios = []
            for part in ("floor", "export"):
                seconds, busy, peak = _measured(part, folder)
                ratios.append(seconds)
                print(
                    f"  {seconds:8.1f} s  ({busy:.1f} s of one processor)  "
                    f"{peak / 1e6:4.0f} MB resident at most  {part}",
                    flush=True,
                )
                shutil.rmtree(folder / part)
            print(f"  {ratios[1] / ratios[0]:8.1f} × the floor")


def _make_log(folder: Path, size: int) -> int:
    """Store decisions that differ in id, time and unit; how many bytes their records have."""
    url = f"sqlite:///{folder}/log.db"
    serving = surface.serving()
    store = Store(url, writer="benchmark")
    activate(store, serving.workspace, lambda: NOW)
    store.close()
    rng = random.Random(1)
    templates = []
    for number in range(min(TEMPLATES, size)):
        request = DecideRequest("home", user_id=f"u{number}", context=surface.context(rng))
        id_ = uuid7(NOW, number)
        record = decide(serving, request, Inputs(), decision_id=id_, now_us=NOW)
        templates.append((id_.encode(), encode_record(record)))
    written = 0

    def rows(start: int) -> Iterator[tuple[str, int, int, str, bytes]]:
        nonlocal written
        for number in range(start, min(start + PAGE, size)):
            before, record = templates[number % len(templates)]
            at = NOW + 1_000 * number
            id_ = uuid7(at, number)
            data = record.replace(before, id_.encode())
            written += len(data)
            yield id_, at, at, f"u:u{number % len(templates)}", data

    with sqlite3.connect(folder / "log.db") as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for start in range(0, size, PAGE):
            connection.executemany(_INSERT, rows(start))
            connection.commit()
    connection.close()
    return written


def _measured(part: str, folder: Path) -> tuple[float, float, int]:
    """Seconds of one part, by the clock and of a processor, and its largest resident bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.exporting", f"--part={part}", f"--folder={folder}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, busy, peak = done.stdout.split()
    return float(seconds), float(busy), int(peak)


def _part(part: str, folder: Path) -> None:
    # As the command does.
    gc.freeze()
    began = time.perf_counter()
    if part == "export":
        export(Store(f"sqlite:///{folder}/log.db"), folder / part)
    else:
        _floor(folder / "log.db", folder / part)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(seconds, used.ru_utime + used.ru_stime, 1_024 * used.ru_maxrss)


def _floor(database: Path, folder: Path) -> None:
    folder.mkdir()
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    cursor = connection.execute("SELECT record FROM decisions ORDER BY seq")
    number = 0
    while rows := cursor.fetchmany(PAGE):
        table = pa.table({"record": pa.array([row[0] for row in rows], pa.binary())})
        pq.write_table(table, folder / f"part-{number}.parquet", compression="zstd")
        number += 1
    connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exporting", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="DECISIONS")
    parser.add_argument("--part", choices=("floor", "export"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        _part(given.part, given.folder)
    else:
        main(tuple(given.sizes))
