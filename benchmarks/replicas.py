"""Durable decisions from two replicas on PostgreSQL, beside one worker on SQLite.

    python -m benchmarks.replicas

Closed loop: 32 connections in all ask as fast as they are answered; requests a second, as median
and spread of rounds that alternate. The database's server is the one that EVENHAND_TEST_POSTGRES
names, else one that is started for the run. It, the servers and the load share the machine's cores.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import uvloop

from benchmarks import serving
from tests.postgres import NoServerError, any_server

ONE, MANY = "one worker on SQLite", "two replicas on PostgreSQL"


def main() -> None:
    """Run both in turn and print them."""
    try:
        _run()
    except NoServerError as error:
        print(f"skipped: {error}")


def _run() -> None:
    with tempfile.TemporaryDirectory(prefix="evenhand-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        serving.write_workspace(folder)
        shared = stack.enter_context(any_server()).create()
        addresses = {ONE: [serving.file_in(folder)], MANY: [shared, shared]}
        ports = {
            label: [stack.enter_context(serving.evenhand(folder, url, 0)).port for url in urls]
            for label, urls in addresses.items()
        }
        uvloop.run(_compare(ports))


async def _compare(ports: Mapping[str, Sequence[int]]) -> None:
    rng = random.Random(1)
    bodies = cycle([serving.decide_body(rng, number) for number in range(2_000)])
    rates: dict[str, list[float]] = {label: [] for label in ports}
    for _ in range(serving.ROUNDS):
        for label in ports:
            rates[label].append(await serving.closed_round(ports[label], bodies))
    print(
        f"closed loop: {serving.CONNECTIONS} connections, {serving.ROUNDS} rounds "
        f"of {serving.ROUND_S:g} s, requests/s"
    )
    for label, found in rates.items():
        low, middle, high = serving.spread(found)
        print(f"  {middle:8,.0f}  [{low:,.0f}, {high:,.0f}]  {label}")
    low, middle, high = serving.spread([b / a for a, b in zip(*rates.values(), strict=True)])
    print(f"  {middle:8.2f}  [{low:.2f}, {high:.2f}]  times the one worker's rate")


if __name__ == "__main__":
    main()
