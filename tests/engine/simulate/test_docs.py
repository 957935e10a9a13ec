"""The docs page says what the code does."""

import doctest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_examples_of_the_simulation_page_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = doctest.testfile(str(ROOT / "docs" / "simulation.md"), module_relative=False)
    assert found.attempted > 15
    assert found.failed == 0
