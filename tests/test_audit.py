"""An audit fails on a known vulnerability, and says so where nothing could be looked up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.audit import verdict

SOUND: Mapping[str, Any] = {"name": "sound", "version": "1.0", "vulns": []}
FAULTY: Mapping[str, Any] = {
    "name": "faulty",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}],
}
SKIPPED: Mapping[str, Any] = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}


def report(*packages: Mapping[str, Any]) -> bytes:
    return json.dumps({"dependencies": packages, "fixes": []}).encode()


def test_a_known_vulnerability_fails() -> None:
    found = verdict(report(SOUND, FAULTY, SKIPPED), "")
    assert found.status(required=False) == 1
    assert "faulty 1.0: PYSEC-1; mended in 1.1" in str(found)


def test_nothing_known_passes() -> None:
    found = verdict(report(SOUND), "")
    assert found.status(required=True) == 0
    assert str(found) == "✓ no known vulnerability in 1 packages"


def test_where_nothing_was_looked_up_it_says_so_and_passes_only_if_it_may() -> None:
    for found in (verdict(report(SKIPPED), ""), verdict(b"", "…\nConnectionError: no such host")):
        assert found.status(required=False) == 0
        assert found.status(required=True) == 1
        assert str(found).startswith("⚠ NOT AUDITED: 1 packages. ")
        assert "✓" not in str(found)


def test_what_was_left_out_is_told_beside_what_was_looked_up() -> None:
    found = verdict(report(SOUND, SKIPPED), "")
    assert found.status(required=False) == 0
    assert found.status(required=True) == 1
    assert "NOT AUDITED: 1" in str(found)
    assert "✓ no known vulnerability in 1" in str(found)
