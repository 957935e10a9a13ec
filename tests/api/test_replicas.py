"""Servers on PostgreSQL: two replicas over HTTP, and a database that is gone for a while."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.running import PROBLEM, Server, evenhand, until
from tests.api.workspaces import write_quick_workspace
from tests.conftest import found
from tests.postgres import OwnServer, own_server

GONE_S = 2.0


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    return write_quick_workspace(tmp_path / "quick")


def _decide(http: httpx.Client, name: str, **more: Any) -> dict[str, Any]:
    body = {"surface": "home", "user_id": name, "request_id": name, **more}
    answer: dict[str, Any] = http.post("/v1/decide", json=body).raise_for_status().json()
    return answer


def _report(http: httpx.Client, name: str) -> httpx.Response:
    body = {"outcome_id": name, "user_id": "u", "metric": "watch", "value": 1}
    return http.post("/v1/outcomes", json=body)


def test_replicas_answer_alike_follow_each_other_and_report(
    quick: Path, postgres_url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                Server(quick, postgres_url, tmp_path / f"{n}.log", "--learn-every=1")
            )
            for n in range(2)
        ]
        one, other = (
            stack.enter_context(httpx.Client(base_url=s.url, timeout=60)) for s in servers
        )
        for number in range(20):
            assert _decide(one, f"r{number}") == _decide(other, f"r{number}")
        until(
            lambda: len({http.get("/readyz").text for http in (one, other)}) == 1,
            "both to serve the same",
        )
        report = other.get("/v1/ope", params={"surface": "home", "slot": "layout", "target": "B"})
        assert report.json()["surface"] == "home"
        decision = _decide(other, "r1")["decision_id"]
        replayed = one.post(f"/v1/decisions/{decision}/replay").json()
        assert (replayed["identical"], replayed["differences"]) == (True, [])


@pytest.fixture
def database() -> Iterator[tuple[OwnServer, str]]:
    """A PostgreSQL server that may be stopped, and a database on it."""
    with found(own_server) as server:
        assert server.process is not None
        yield server.process, server.create()


def test_while_the_database_is_gone_defaults_are_served_and_marked(
    quick: Path, database: tuple[OwnServer, str], tmp_path: Path
) -> None:
    postgres, url = database
    with (
        Server(quick, url, tmp_path / "log", "--learn-every=1") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        before = _decide(http, "before")
        assert before["logged"]
        assert _report(http, "before").json()["accepted"] == 1
        postgres.stop()
        until(lambda: http.get("/readyz").status_code == 503, "readiness to tell, unasked")
        ends = time.monotonic() + GONE_S
        while time.monotonic() < ends:
            answer = _decide(http, "while")
            assert (answer["logged"], answer["fallback"], answer["decision_id"]) == (
                False, "the log is unavailable", None,
            )  # fmt: skip
            assert answer["config"] == {"layout": 1}
            refused = _report(http, "while")
            assert (refused.status_code, refused.headers["content-type"]) == (503, PROBLEM)
            assert http.get("/healthz").status_code == 200
        postgres.start()
        until(lambda: http.get("/readyz").status_code == 200, "the server to recover by itself")
        assert _decide(http, "before") == before
        assert _report(http, "before").json()["duplicates"] == 1
        assert _decide(http, "while")["logged"]
        assert _report(http, "while").json()["accepted"] == 1
        decided = http.get(f"/v1/decisions/{before['decision_id']}")
        assert decided.status_code == 200


def test_while_the_database_stands_still_defaults_are_served_and_the_server_can_be_stopped(
    quick: Path, database: tuple[OwnServer, str], tmp_path: Path
) -> None:
    """A paused machine's kernel goes on to acknowledge, so that no limit of the network is met."""
    postgres, url = database
    with (
        Server(quick, url, tmp_path / "log", "--learn-every=0") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        assert _decide(http, "before")["logged"]
        with postgres.frozen():
            assert _decide(http, "while")["fallback"] == "the log is unavailable"
            assert http.get("/readyz").status_code == 503
            # By now nobody waits for it any more.
            assert not _decide(http, "later")["logged"]
        until(lambda: http.get("/readyz").status_code == 200, "the server to recover by itself")
        assert _decide(http, "after")["logged"]
        with postgres.frozen():
            server.signal(signal.SIGTERM)
            assert server.ended() == -signal.SIGTERM


def test_a_database_that_comes_back_between_requests_costs_none_of_them(
    quick: Path, database: tuple[OwnServer, str], tmp_path: Path
) -> None:
    """The connections are stale, and found out only when something is asked of them."""
    postgres, url = database
    with (
        Server(quick, url, tmp_path / "log", "--learn-every=0") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        assert _decide(http, "before")["logged"]
        postgres.stop()
        postgres.start()
        until(lambda: http.get("/readyz").status_code == 200, "the server to be ready")
        assert _decide(http, "after")["logged"]


def test_the_address_of_the_database_is_for_nobody_to_see(
    quick: Path, postgres_url: str, tmp_path: Path
) -> None:
    """It may hold a password; a process's arguments are for all of the machine to read."""
    secret = postgres_url.replace("postgres@", "postgres:hunter2@")
    with Server(quick, secret, tmp_path / "log", "--learn-every=0.1") as server:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            assert _decide(http, "r")["logged"]
            http.get("/v1/ope", params={"surface": "home", "slot": "layout", "target": "B"})
            assert "hunter2" not in http.get("/metrics").text
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        pids = until(lambda: children.read_text().split(), "the learner to run")
        assert all(b"hunter2" not in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
        assert "hunter2" not in "".join(server.lines())


def test_commands_work_on_postgres(quick: Path, postgres_url: str, tmp_path: Path) -> None:
    def ran(*command: str) -> str:
        done = evenhand(*command, f"--database={postgres_url}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    with (
        Server(quick, postgres_url, tmp_path / "log", "--learn-every=0") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        for number in range(5):
            assert _decide(http, f"r{number}")["logged"]
        assert ran("keys", "create", "--name=web", "--scope=decide").startswith("evh_")
        assert "web" in ran("keys", "list")
        assert "Learned" in ran("learn")
        assert "5 of 5 decisions came out identical" in ran("replay")
        assert "5 decisions" in ran("export", f"--to={tmp_path / 'export'}")


def test_a_second_learner_is_refused(quick: Path, postgres_url: str, tmp_path: Path) -> None:
    with (
        Server(quick, postgres_url, tmp_path / "log", "--learn-every=0.1") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        _decide(http, "r")

        def refused() -> str:
            ran = evenhand("learn", f"--database={postgres_url}")
            return ran.stderr if ran.returncode == 2 else ""

        said = until(refused, "the server to learn")
        assert "another process learns from this log" in said
