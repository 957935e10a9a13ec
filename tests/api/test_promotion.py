"""Promoting and rolling back: over HTTP beside a server at work, and on the command line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from api.access import scope_of
from engine.keys import Scope
from engine.simulate import TinyWorld
from engine.simulate import run as live
from engine.store import Store
from engine.workspace import load_workspace, written
from tests.api.running import InProcess
from tests.api.test_cli import run
from tests.engine.test_promotion import CONTENT, ID


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "all.yaml").write_text(written(msgspec.json.decode(msgspec.json.encode(CONTENT))))
    return folder


@pytest.fixture
def database(tmp_path: Path, workspace: Path) -> str:
    """A log by which the candidate can be judged, and is better."""
    url = f"sqlite:///{tmp_path}/log.db"
    with Store(url, writer="tests") as store:
        for _ in live(TinyWorld(1, 600), load_workspace(workspace), store, days=2, warn=print):
            pass
    return url


def test_a_server_promotes_a_candidate_serves_it_and_rolls_back(
    workspace: Path, database: str
) -> None:
    asked = {"surface": "page", "user_id": "u1", "context": {"x": True}, "mode": "peek"}
    with InProcess(workspace, database) as served:
        assert served.post("/v1/decide", asked).json()["choices"][0]["snapshot"] is None
        report = served.post("/v1/promote", {"learner": ID}).json()
        assert report["verdict"] == "promoted", report
        by = served.post("/v1/decide", asked).json()["choices"][0]["snapshot"]
        shown = served.get("/v1/snapshots").json()[ID]
        assert shown["serves"] == {
            "what": "candidate", "spec": shown["snapshots"][0]["spec"],
            "snapshot": by, "pinned": False,
        }  # fmt: skip
        again = served.post("/v1/promote", {"learner": ID})
        assert again.status_code == 400
        assert "served by its candidate already" in again.json()["detail"]
        back = served.post("/v1/rollback", {"learner": ID}).json()
        assert (back["what"], back["serves"]) == ("undo", "declared")
        assert served.post("/v1/decide", asked).json()["choices"][0]["snapshot"] is None
        held = served.post("/v1/rollback", {"learner": ID, "to": "000000"})
        assert held.status_code == 404
        assert served.post("/v1/promote", {"learner": "nobody"}).status_code == 404


def test_what_was_promoted_serves_after_a_restart(workspace: Path, database: str) -> None:
    promoted = run("promote", ID, "--database", database, "--json")
    assert promoted.status == 0, promoted.err
    assert promoted.json()["verdict"] == "promoted"
    with InProcess(workspace, database) as served:
        assert served.get("/v1/snapshots").json()[ID]["serves"]["what"] == "candidate"


def test_the_command_line_shows_promotes_and_rolls_back(database: str) -> None:
    told = run("promote", ID, "--database", database)
    assert told.status == 0
    assert "promoted: the candidate brings at least" in told.out
    told = run("snapshots", "--database", database)
    assert f"{ID}: candidate serves" in told.out
    assert "← serves" in told.out
    told = run("rollback", ID, "--database", database)
    assert told.out.startswith(f"{ID}: declared serves")
    told = run("rollback", ID, "--database", database)
    assert told.status == 2
    assert "nothing was promoted" in told.err
    told = run("promote", ID, "--database", database)
    assert told.status == 1
    assert "too_few" in told.out


def test_only_an_admin_may_change_what_serves() -> None:
    assert scope_of("/v1/promote") is scope_of("/v1/rollback") is Scope.ADMIN
    assert scope_of("/v1/snapshots") is Scope.REPORTS
