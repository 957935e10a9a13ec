"""A process of its own for tests that kill it: holds a database's lock, or writes under load.

``python -m tests.engine.store_child hold URL`` or ``… write URL``; what it prints is acknowledged.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from engine.committer import Committer
from engine.ids import random_uuid7, system_clock
from engine.log import Outcome, OutcomesEntry, Stored, decision_entry
from engine.request import DecideRequest
from engine.store import Store
from tests.engine.build import decided, serving_of, workspace_of

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    slots: {layout: {default: A, policy: p, actions: {A: {value: 1}, B: {value: 2}}}}
policies: {p: {kind: uniform}}
"""
WRITERS = 24


async def write(store: Store) -> None:
    """Decisions with request ids and outcomes, from many tasks, until killed."""
    serving = serving_of(workspace_of(WORLD))
    committer = Committer(store, system_clock)
    numbers = count()

    async def one() -> None:
        for number in numbers:
            now = system_clock()
            request = DecideRequest(surface="home", user_id="1", request_id=f"r{number}")
            record = decided(serving, "home", 1, number=number, at=now, request_id=f"r{number}")
            entry = decision_entry(record, request)
            outcome = Outcome(random_uuid7(now), "m", 1.0, now, now, record.decision_id)
            done = [committer.submit(entry, now).done]
            done.append(committer.submit(OutcomesEntry((outcome,)), now).done)
            results = await asyncio.gather(*done)
            assert all(isinstance(result, Stored) for result in results)
            sys.stdout.write(f"{number} {record.decision_id} {outcome.outcome_id}\n")
            sys.stdout.flush()

    await asyncio.gather(*(one() for _ in range(WRITERS)))


def main(what: str, url: str) -> None:
    """Do what was asked until killed."""
    opened = Store(url, writer=f"a child that {what}s")
    if what == "write":
        asyncio.run(write(opened))
    sys.stdout.write("held\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
