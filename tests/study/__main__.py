"""``python -m tests.study``: run every cell, print the rows as they come, write docs/study.md."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.study import anytime, lift, ope
from tests.study.promises import COVERED, FALSE_ALARMS, LOOKS, TAIL, Row

LOGS = 4_000
PAGE = Path(__file__).parents[2] / "docs" / "study.md"
HALVES: Mapping[str, tuple[Mapping[str, object], Callable[[str, int, int], Iterator[Row]]]] = {
    "values": (ope.CELLS, ope.rows),
    "growing values": (anytime.CELLS, anytime.rows),
    "lift": (lift.CELLS, lift.rows),
}

HEAD = """# What the intervals keep

Written by `make study`, {logs:,} logs a cell, in worlds whose truth is known; nominal is 95 %.
*Answered* is the share of logs that got an interval; *too high* and *too low* the share of
intervals that lay wholly above or below the truth. *Width* is the mean over that of the plain
interval of the same data, and the most that is promised where something is; *false alarms* the
share of logs in which any of {looks} looks while it grew excluded the truth. A row is *kept* with
coverage ≥ {covered}, each tail ≤ {tail}, false alarms ≤ {alarms}, and what is promised of its width
and answers: 99 %, or 90 % under sticky draws and heavy weights, which leave an effective sample of
about 2.4 %.
"""
TABLE = """
| cell | {which} | answered | coverage | too high | too low | width | false alarms | kept |
|---|---|---|---|---|---|---|---|---|
"""
SECTIONS = {
    "values": """
## Off-policy values

The interval that `evaluate` chooses by itself, beside the delta interval, for values and for
differences from the logging policy. `reward_range` is declared, and `max_weight` half again as
large as it is, but where it is exact; low rewards are about .08 (.06 under heavy weights), high
ones .72 (.86).
""",
    "growing values": """
## Off-policy values, looked at while the log grows

`interval="anytime"`, beside the delta interval, with `reward_range`, `max_weight` and `max_rows`
declared, and a reward model that was made before and is wrong.
""",
    "lift": """
## Lift

Intervals that hold `always`, and at the last look those of a `fixed` horizon, whose width is the
measure of both. Revenue is nothing for most units and lognormal for the others, σ the logarithm's
standard deviation; variants that a bandit gave out are none better than the others. False alarms
are asked where there is no effect.
""",
}


def cell(job: tuple[str, str, int, int]) -> tuple[str, list[Row], float]:
    """Run a cell of one half: its rows, and the seconds that it took."""
    half, name, logs, seed = job
    start = time.process_time()
    found = list(HALVES[half][1](name, logs, seed))
    return half, found, time.process_time() - start


def main() -> None:
    """Run all cells and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.study", description=__doc__)
    parser.add_argument("--logs", type=int, default=LOGS, help="logs a cell")
    parser.add_argument("--only", default="", help="cells whose name holds this; writes no page")
    parser.add_argument("--half", choices=tuple(HALVES), help="that half alone; writes no page")
    parser.add_argument("--jobs", type=int, default=1, help="cells that run at once")
    asked = parser.parse_args()
    jobs = [
        (half, name, asked.logs, 2026 + index)
        for half, (cells, _) in HALVES.items()
        for index, name in enumerate(cells)
        if asked.half in (None, half) and asked.only in name
    ]
    start = time.perf_counter()
    lines: dict[str, list[str]] = {half: [] for half in HALVES}
    with ProcessPoolExecutor(asked.jobs) as pool:
        for half, found, seconds in pool.map(cell, jobs):
            told = [row.told() for row in found]
            print(*told, f"  {seconds:.0f} s", sep="\n", flush=True)
            lines[half] += told
    if not asked.only and asked.half is None:
        PAGE.write_text(page(asked.logs, lines), encoding="utf-8")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")


def page(logs: int, lines: Mapping[str, list[str]]) -> str:
    """docs/study.md."""
    parts = [HEAD.format(logs=logs, looks=LOOKS, covered=COVERED, tail=TAIL, alarms=FALSE_ALARMS)]
    for half, told in lines.items():
        which = "horizon" if half == "lift" else "estimator"
        parts += [SECTIONS[half], TABLE.format(which=which), "\n".join(told), "\n"]
    return "".join(parts)


if __name__ == "__main__":
    main()
