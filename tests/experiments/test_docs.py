"""The page on experiments and the examples in docstrings say what happens."""

from __future__ import annotations

import doctest
from pathlib import Path

import experiments.buckets


def test_the_page_is_true() -> None:
    page = Path(__file__).parents[2] / "docs" / "experiments.md"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted > 0
    assert result.failed == 0


def test_the_docstrings_are_true() -> None:
    result = doctest.testmod(experiments.buckets)
    assert result.attempted > 0
    assert result.failed == 0
