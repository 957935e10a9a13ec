"""Fixtures that all tests share: the databases that a log can stand in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.postgres import NoServerError, Postgres, any_server

BACKENDS = ("sqlite", "postgres")


@contextmanager
def found(server: Callable[[], AbstractContextManager[Postgres]]) -> Iterator[Postgres]:
    """A server; where there is none the test is skipped, but in CI it fails."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(server())
        except NoServerError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield opened


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, for all tests of this process."""
    with found(any_server) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The address of a new, empty database of PostgreSQL."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture(params=BACKENDS)
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database, on each backend."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'log.db'}"
