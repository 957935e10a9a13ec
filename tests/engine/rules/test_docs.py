"""The page on rules and the examples in docstrings say what happens."""

from __future__ import annotations

import doctest
from pathlib import Path

import engine.rules.rule


def test_the_page_is_true() -> None:
    page = Path(__file__).parents[3] / "docs" / "rules.md"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted > 0
    assert result.failed == 0


def test_the_docstrings_are_true() -> None:
    result = doctest.testmod(engine.rules.rule)
    assert result.attempted > 0
    assert result.failed == 0
