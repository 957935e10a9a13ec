"""A server and its learner, killed under load: the short form of ``make crash``."""

from __future__ import annotations

from pathlib import Path

from tests.crash.rounds import KILLS, Verdict, crash


def test_kills_under_load_lose_and_double_nothing_acknowledged(
    tmp_path: Path, database: str
) -> None:
    _check(crash(tmp_path, database, len(KILLS), 0, lambda _: None))


def test_kills_of_replicas_lose_and_double_nothing_acknowledged(
    tmp_path: Path, postgres_url: str
) -> None:
    _check(crash(tmp_path, postgres_url, len(KILLS), 0, lambda _: None, replicas=2))


def _check(verdict: Verdict) -> None:
    assert verdict.findings == []
    assert verdict.kills == dict.fromkeys(KILLS, 1)
    assert verdict.told.answers
    assert verdict.told.exposures
    assert verdict.told.outcomes
