"""Fixtures that the tests of the API share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.running import InProcess
from tests.api.workspaces import write_workspace


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """An application on a database of its own, shared by the tests of a module."""
    folder = tmp_path_factory.mktemp("served")
    workspace = write_workspace(folder / "workspace")
    with InProcess(workspace, f"sqlite:///{folder}/log.db") as application:
        yield application


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace folder that a test may edit."""
    return write_workspace(tmp_path / "workspace")


@pytest.fixture
def database(tmp_path: Path) -> str:
    """The address of a database that does not exist yet."""
    return f"sqlite:///{tmp_path}/log.db"
