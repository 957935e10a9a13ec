"""Replays every decision of a database and prints how many there were and how many came out alike.

Run as ``python -m tests.engine.replay_again URL`` under any PYTHONHASHSEED.
"""

from __future__ import annotations

import sys

from engine.record import decode_record
from engine.replay import replay
from engine.revisions import Revisions
from engine.store import Store
from engine.store import read as ask


def replays(url: str) -> tuple[int, int]:
    """Decisions, and those of them that replay to the byte."""
    store = Store(url)
    revisions = Revisions(store)
    rows = store.read(lambda c: ask.decisions_after(c, 0, 100_000))
    ids = [decode_record(row.record).decision_id for row in rows]
    alike = sum(replay(store, revisions, id_).identical for id_ in ids)
    store.close()
    return len(ids), alike


if __name__ == "__main__":
    print(*replays(sys.argv[1]))
