"""The page of models: its example runs, and it names every setting, role and kind of slate."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import msgspec

from recsys import SLATE_KINDS, TrainSettings
from recsys.catalogue import COLUMN_KINDS, ROLES

PAGE = Path(__file__).parents[2] / "docs" / "recsys.md"


def test_the_pages_example_runs() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_page_has_a_row_for_every_setting_role_and_kind() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    settings = {field.name for field in msgspec.structs.fields(TrainSettings)}
    assert named >= settings | set(ROLES) | set(SLATE_KINDS)


def test_the_page_names_every_kind_of_column() -> None:
    text = PAGE.read_text("utf-8")
    assert all(f"`{kind}`" in text for kind in COLUMN_KINDS)
