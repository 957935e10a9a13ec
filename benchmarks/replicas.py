"""Durable decisions over HTTP from two replicas on PostgreSQL, beside one worker on SQLite.

    python -m benchmarks.replicas

Closed loop: 32 connections in all ask as fast as they are answered. The database's server is the
one that EVENHAND_TEST_POSTGRES names, else one that is started for the run; it, the replicas and the
load share the machine's cores.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks import serving, surface
from tests.postgres import any_server

REPLICAS = 2


def main() -> None:
    """Run both in turn and print them."""
    with tempfile.TemporaryDirectory(prefix="evenhand-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "workspace").mkdir()
        content = msgspec.json.encode(surface.content())
        (folder / "workspace" / "workspace.yaml").write_bytes(content)
        shared = stack.enter_context(any_server()).create()
        one = [stack.enter_context(serving.evenhand(folder, f"sqlite:///{folder}/log.db"))]
        many = [stack.enter_context(serving.evenhand(folder, shared)) for _ in range(REPLICAS)]
        asyncio.run(_compare(one, many))


async def _compare(one: Sequence[int], many: Sequence[int]) -> None:
    rng = random.Random(1)
    bodies = [serving.decide_body(rng, i) for i in range(2_000)]
    rates: dict[str, list[float]] = {"SQLite, one worker": [], "PostgreSQL, two replicas": []}
    for _ in range(serving.ROUNDS):
        for name, ports in zip(rates, (one, many), strict=True):
            rates[name].append(await serving.closed_round(ports, bodies))
    print(
        f"closed loop: {serving.CONNECTIONS} connections, {serving.ROUNDS} rounds "
        f"of {serving.ROUND_S:g} s, requests/s"
    )
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"  {middle:8,.0f}  [{min(found):,.0f}, {max(found):,.0f}]  {name}")
    first, second = (statistics.median(found) for found in rates.values())
    print(f"  {second / first:8.2f}  times the rate of one worker")


if __name__ == "__main__":
    main()
