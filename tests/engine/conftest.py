"""The backends that the store's suite runs on, each a new database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.store import Store

BACKENDS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'log.db'}",
}
"""By name: the address of a new database, given a folder of one's own."""


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that does not exist yet."""
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty database, open for writing."""
    opened = Store(url, writer="tests")
    yield opened
    opened.close()
