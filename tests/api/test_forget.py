"""Forgetting a person over HTTP beside a server at work, and on the command line without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.access import scope_of
from engine.keys import Scope
from tests.api.running import InProcess, Server, evenhand, file_of
from tests.api.workspaces import write_workspace

ALICE = "alice-4711@example.com"


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return write_workspace(tmp_path / "workspace")


def seen(served: InProcess) -> str:
    """A decision of hers with an outcome of each kind; its id."""
    id_ = ""
    for surface in ("home", "nudge"):
        id_ = served.decide(
            ALICE, surface, anonymous_id="device", context={"consent": True},
            request_id=f"of-{ALICE}-{surface}",
        )["decision_id"]  # fmt: skip
    of_hers = {"outcome_id": f"order-of-{ALICE}", "decision_id": id_, "metric": "visit", "value": 1}
    visit = {"outcome_id": "visit", "user_id": ALICE, "metric": "visit", "value": 1}
    assert served.post("/v1/outcomes", [of_hers, visit]).status_code == 200
    return id_


def files_with(text: str, database: str) -> list[str]:
    file = file_of(database)
    return [f.name for f in file.parent.glob(f"{file.name}*") if text.encode() in f.read_bytes()]


def test_a_server_forgets_a_person_and_goes_on(workspace: Path, database: str) -> None:
    with InProcess(workspace, database) as served:
        id_ = seen(served)
        assert files_with(ALICE, database)
        response = served.post("/v1/forget", {"user_id": ALICE})
        assert response.status_code == 200
        assert response.json() == {
            "decisions": 2, "outcomes": 2,
            "linked_user_ids": [], "linked_anonymous_ids": ["device"],
        }  # fmt: skip
        assert files_with(ALICE, database) == []
        shown = served.get(f"/v1/decisions/{id_}").json()
        assert shown["identity"]["unit"].startswith("e:")
        assert len(shown["outcomes"]) == 2
        refused = served.post(f"/v1/decisions/{id_}/replay")
        assert refused.status_code == 409
        assert "forgotten" in refused.json()["detail"]
        assert not any(ALICE in str(entry) for entry in served.journal.entries)
        # Seen again, she is somebody new, sticky draws included.
        again = served.decide(ALICE, "nudge", context={"consent": True})
        assert again["unit"] == f"u:{ALICE}"
        assert served.post(f"/v1/decisions/{again['decision_id']}/replay").json()["identical"]


def test_nobody_cannot_be_forgotten(workspace: Path, database: str) -> None:
    with InProcess(workspace, database) as served:
        response = served.post("/v1/forget", {})
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == "user_id"


def test_only_an_admin_may_ask_for_it() -> None:
    assert scope_of("/v1/forget") is Scope.ADMIN


def test_the_command_forgets_where_no_server_runs(workspace: Path, database: str) -> None:
    with InProcess(workspace, database) as served:
        seen(served)
    done = evenhand("forget", f"--user-id={ALICE}", f"--database={database}", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "decisions": 2, "outcomes": 2,
        "linked_user_ids": [], "linked_anonymous_ids": ["device"],
    }  # fmt: skip
    assert files_with(ALICE, database) == []


def test_the_command_says_who_holds_the_database(
    workspace: Path, database: str, tmp_path: Path
) -> None:
    with Server(workspace, database, tmp_path / "server.log") as server:
        holder = f'"evenhand serve" (process {server.pid})'
        done = evenhand("forget", f"--user-id={ALICE}", f"--database={database}")
    assert done.returncode == 2
    assert holder in " ".join(done.stderr.split())


def test_a_database_without_a_log_is_refused(tmp_path: Path) -> None:
    done = evenhand("forget", "--user-id=u", f"--database=sqlite:///{tmp_path}/other.db")
    assert done.returncode == 2
    assert "holds no log" in done.stderr


def test_a_row_of_an_import_stays_forgotten_when_it_is_imported_again(
    database: str, tmp_path: Path
) -> None:
    rows = "".join(f"{'her' if row == 3 else row},A,0.5,{row % 2}\n" for row in range(10))
    (tmp_path / "log.csv").write_text("who,what,p,y\n" + rows, encoding="utf-8")
    (tmp_path / "mapping.yaml").write_text(
        "surface: s\nslot: l\nunit: who\ndecided_at: 2024-01-01T00:00:00Z\naction: what\n"
        "propensity: p\noutcomes: {y: y}\n",
        encoding="utf-8",
    )
    take = ["import", str(tmp_path / "log.csv"), f"--mapping={tmp_path}/mapping.yaml"]
    assert evenhand(*take, f"--database={database}").returncode == 0
    assert evenhand("forget", "--user-id=her", f"--database={database}").returncode == 0
    again = evenhand(*take, f"--database={database}", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["decisions"] == 0
    assert json.loads(again.stdout)["outcomes"] == 0
    assert files_with('"her"', database) == []
