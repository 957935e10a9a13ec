"""One simulated log of the streaming service, shared by the tests that only read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.record import DecisionRecord, decode_record
from engine.simulate import Progress, StreamingWorld, Truth, run, untaught
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace, load_workspace

EXAMPLE = Path(__file__).parents[3] / "examples" / "streaming" / "workspace"
DAYS = 16
"""The first snapshot serves after eight, as cancelling has a window of seven days."""


@dataclass(frozen=True)
class Lived:
    """A settled run and all that it decided."""

    world: StreamingWorld
    workspace: Workspace
    store: Store
    progress: list[Progress]
    records: list[DecisionRecord]


EVERYTHING = 10**9
"""More rows than any log of these tests has."""


@pytest.fixture(scope="session")
def streaming() -> Workspace:
    return load_workspace(EXAMPLE)


@pytest.fixture(scope="session")
def world() -> StreamingWorld:
    return StreamingWorld(seed=5, viewers=600)


@pytest.fixture(scope="session")
def truth(world: StreamingWorld, streaming: Workspace) -> Truth:
    return Truth(world, untaught(streaming))


@pytest.fixture(scope="session")
def lived(
    tmp_path_factory: pytest.TempPathFactory, world: StreamingWorld, streaming: Workspace
) -> Iterator[Lived]:
    folder = tmp_path_factory.mktemp("lived")
    store = Store(f"sqlite:///{folder}/log.db", writer="test")
    progress = list(run(world, streaming, store, days=DAYS, warn=pytest.fail))
    yield Lived(world, streaming, store, progress, records_of(store))
    store.close()


def records_of(store: Store) -> list[DecisionRecord]:
    """Every decision of the log, in its order."""
    rows = store.read(lambda c: ask.decisions_after(c, 0, EVERYTHING))
    return [decode_record(row.record) for row in rows]
