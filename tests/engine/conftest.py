"""The backends that the store's suite runs on, each a new database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.store import Store


@pytest.fixture
def url(any_url: str) -> str:
    """The address of a database without a log yet."""
    return any_url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty log, open for writing."""
    opened = Store(url, writer="tests")
    yield opened
    opened.close()
