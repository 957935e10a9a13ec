"""The documents that show sessions are run as a newcomer would."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests import console

SHARED = Path(os.environ.get("EVENHAND_SHARED_DATA", console.ROOT.parent / "shared" / "data"))


def test_the_readme_tour_goes_as_it_says(tmp_path: Path) -> None:
    steps = list(console.steps(console.ROOT / "README.md"))
    assert len(steps) >= 7
    assert console.run(console.ROOT / "README.md", tmp_path) == []


def test_the_hillstrom_page_shows_what_comes_out(tmp_path: Path) -> None:
    data = SHARED / "hillstrom.csv.gz"
    if not data.exists():
        pytest.skip(f"{data} is not there")
    (tmp_path / "hillstrom.csv.gz").symlink_to(data.resolve())
    database = {"EVENHAND_DATABASE": "sqlite:///var/hillstrom.db"}
    assert console.run(console.ROOT / "docs" / "hillstrom.md", tmp_path, database) == []


def test_the_operations_page_goes_as_it_says(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "evenhand.db")) as log:
        log.execute("CREATE TABLE t (x)")
    assert console.run(console.ROOT / "docs" / "operations.md", tmp_path) == []
    with closing(sqlite3.connect(tmp_path / "backup.db")) as copy:
        assert copy.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = [
        f"{document.relative_to(console.ROOT)}: {link}"
        for document in [console.ROOT / "README.md", *(console.ROOT / "docs").glob("*.md")]
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
        if not (document.parent / link).exists()
    ]
    assert broken == []


def test_a_session_that_prints_otherwise_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one\none\n$ echo two\nthree\n```\n", encoding="utf-8")
    (told,) = console.run(page, tmp_path)
    assert "page.md:4" in told
    assert "two" in told
