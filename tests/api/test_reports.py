"""Reports over HTTP are children: one that dies says why, and only so many are made at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.reports import AT_ONCE, MOST_WAITING, Reports
from tests.api.running import PROBLEM, InProcess

LIFT = "/v1/lift?experiment=layout_test"
DYING = (
    "import sys; sys.stderr.write('Traceback (most recent call last):\\n'); raise KeyError('why')"
)
REFUSING = """
import sys
print("warning: said before the fault", file=sys.stderr)
print('{"kind": "%s", "field": "%s", "message": "is wrong; mend it"}', file=sys.stderr)
raise SystemExit(2)
"""
UNTIL_TOLD = """
import sys, time, pathlib
while not pathlib.Path(%r).exists(): time.sleep(0.01)
print("{}")
"""


@pytest.fixture
def reporting(served: InProcess) -> Iterator[InProcess]:
    """The application; what a test reports with is put back after it."""
    reports = served.app.state.reports
    served.journal.entries.clear()
    yield served
    served.app.state.reports = reports


def made_by(served: InProcess, code: str) -> None:
    """Have reports made by a program of the test's."""
    served.app.state.reports = Reports(served.database, (sys.executable, "-c", code))


def test_a_report_that_dies_is_a_problem_and_the_log_says_why(reporting: InProcess) -> None:
    made_by(reporting, DYING)
    response = reporting.get(LIFT)
    assert response.status_code == 500
    assert response.headers["content-type"] == PROBLEM
    assert response.json()["detail"] == "the engine failed; its log says why"
    ((event, told),) = reporting.journal.entries
    assert event == "failed"
    assert told["message"].endswith("status 1: KeyError: 'why'")


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "print('no JSON')", "print('[]')"])
def test_a_report_that_says_nothing_readable_is_a_problem(reporting: InProcess, code: str) -> None:
    made_by(reporting, code)
    assert reporting.get(LIFT).status_code == 500
    assert [event for event, _ in reporting.journal.entries] == ["failed"]


@pytest.mark.parametrize(
    ("kind", "field", "status"),
    [
        ("RequestError", "units", 400),
        ("ReportError", "", 400),
        ("NotFoundError", "experiment", 404),
        ("StoreError", "", 503),
        ("SnapshotError", "", 500),
        ("FileNotFoundError", "", 500),
    ],
)
def test_a_refusal_of_the_command_line_is_answered_in_kind(
    reporting: InProcess, kind: str, field: str, status: int
) -> None:
    made_by(reporting, REFUSING % (kind, field))
    response = reporting.get(LIFT)
    assert response.status_code == status
    if status < 500:
        (error,) = response.json()["errors"]
        assert error["field"] == field
        assert "is wrong; mend it" in error["message"]
    assert len(reporting.journal.entries) == (status >= 500)


def test_when_some_reports_wait_the_next_is_asked_to_come_again(
    reporting: InProcess, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    made_by(reporting, UNTIL_TOLD % str(told))

    async def crowd() -> tuple[httpx.Response, list[httpx.Response]]:
        asked = {
            asyncio.create_task(reporting.http.get(LIFT)) for _ in range(AT_ONCE + MOST_WAITING + 1)
        }
        done, rest = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        told.touch()
        (refused,) = done
        return refused.result(), await asyncio.gather(*rest)

    refused, made = reporting.run(crowd)
    assert refused.status_code == 503
    assert refused.headers["content-type"] == PROBLEM
    assert refused.headers["retry-after"].isdigit()
    assert "reports" in refused.json()["detail"]
    assert {response.status_code for response in made} == {200}
    assert reporting.get(LIFT).status_code == 200
