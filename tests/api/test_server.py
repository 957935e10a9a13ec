"""A server in a process of its own: killed, reloaded, learning, stopped, refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.revisions import activate
from engine.store import Store
from engine.workspace import load_workspace
from tests.api.running import ROOT, Server, counts, environment, evenhand, file_of, until
from tests.api.workspaces import QUICK, write_quick_workspace
from tests.crash.load import Client


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    return write_quick_workspace(tmp_path / "quick")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def learned(server: Server, times: int) -> None:
    """Decide until the server has learned some times."""
    users = count()
    with httpx.Client(base_url=server.url) as http:

        def once_more() -> bool:
            body = {"surface": "home", "user_id": f"learn-{next(users)}"}
            http.post("/v1/decide", json=body).raise_for_status()
            return len(server.logged("learned")) >= times

        until(once_more, f"{times} snapshots")


# Stopping -----------------------------------------------------------------------------------------


def test_a_stop_commits_what_was_accepted_and_ends_promptly(
    quick: Path, database: str, log: Path
) -> None:
    """Though a client keeps its connection and the learner runs."""
    client = Client("stop", 0, count())
    told = client.told
    with Server(quick, database, log, "--learn-every=0.2") as server, httpx.Client() as idle:
        idle.get(f"{server.url}/healthz")
        thread = threading.Thread(target=client.work, args=(server.url,))
        thread.start()
        until(lambda: len(told.outcomes) > 20, "load")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.ended() == -signal.SIGTERM
        assert time.monotonic() - began < 5
        thread.join()
        assert server.logged("stopped")
        assert not server.logged("engine")
    assert not file_of(database).with_name("log.db-wal").exists()
    assert told.refusals == []
    assert counts(database)["outcomes"] >= len(told.outcomes)


def test_an_interrupt_from_the_terminal_stops_it_without_a_traceback(
    quick: Path, database: str, log: Path
) -> None:
    """Ctrl-C reaches the whole process group, so also a learner that is of it."""
    with Server(quick, database, log, "--learn-every=0.05") as server:
        learned(server, 1)
        os.killpg(server.pid, signal.SIGINT)
        server.ended()
        assert server.logged("stopped")
        assert "Traceback" not in "\n".join(server.lines())


# Reloading ----------------------------------------------------------------------------------------


def test_a_hangup_reloads_and_a_broken_edit_keeps_the_last_good_one(
    quick: Path, database: str, log: Path
) -> None:
    file = quick / "quick.yaml"
    with Server(quick, database, log, "--learn-every=0") as server:
        http = httpx.Client(base_url=server.url)

        def revision() -> str:
            body = {"surface": "home", "user_id": "u", "mode": "peek"}
            found: str = http.post("/v1/decide", json=body).json()["revision"]
            return found

        with http:
            first = revision()
            file.write_text(QUICK.replace("floor: 0.2", "floor: 0.3"), encoding="utf-8")
            server.signal(signal.SIGHUP)
            until(lambda: server.logged("reloaded"), "the reload")
            second = revision()
            assert second != first
            assert server.logged("reloaded")[0]["revision"] == second

            file.write_text(QUICK.replace("lin_ucb", "lin_ubc"), encoding="utf-8")
            server.signal(signal.SIGHUP)
            refused = until(lambda: server.logged("reload_refused"), "the refusal")[0]
            assert revision() == second
            ready = http.get("/readyz")
            assert ready.status_code == 200
            assert ready.json()["revision"] == second
            for said in (refused["why"], ready.json()["reload_fault"]):
                assert "quick.yaml:" in said
                assert "lin_ubc" in said

            file.write_text(QUICK, encoding="utf-8")
            server.signal(signal.SIGHUP)
            until(lambda: len(server.logged("reloaded")) == 2, "the mended reload")
            assert revision() == first
            assert http.get("/readyz").json()["reload_fault"] is None


# Learning -----------------------------------------------------------------------------------------


def test_snapshots_swap_in_while_requests_flow_and_none_fails(
    quick: Path, database: str, log: Path
) -> None:
    served: set[str] = set()
    decided = ""
    with (
        Server(quick, database, log, "--learn-every=0.05") as server,
        httpx.Client(base_url=server.url, timeout=10) as http,
    ):
        for number in range(2_000):
            body: dict[str, Any] = {
                "surface": "home", "user_id": f"u{number}", "context": {"weeks": number % 4},
            }  # fmt: skip
            answer = http.post("/v1/decide", json=body).raise_for_status().json()
            assert answer["logged"]
            outcome: dict[str, Any] = {"outcome_id": f"o{number}", "metric": "watch"}
            outcome["value"] = number % 2
            decided = outcome["decision_id"] = answer["decision_id"]
            http.post("/v1/outcomes", json=outcome).raise_for_status()
            if answer["choices"][0]["snapshot"]:
                served.add(answer["choices"][0]["snapshot"])
            if len(served) > 3:
                break
        assert len(served) > 3
        assert http.get("/readyz").json()["learning_fault"] is None
        replay = http.post(f"/v1/decisions/{decided}/replay").json()
        assert replay["identical"]
        assert {entry["level"] for entry in server.logged("learned")} == {"info"}


def test_an_altered_snapshot_is_refused_and_its_parent_serves(
    quick: Path, database: str, log: Path
) -> None:
    with Server(quick, database, log, "--learn-every=0.05") as server:
        learned(server, 2)
        server.kill()
        with closing(sqlite3.connect(file_of(database))) as connection:
            rows = connection.execute(
                "SELECT digest, parent FROM snapshots ORDER BY seq"
            ).fetchall()
            digest, parent = rows[-1]
            query = "SELECT data FROM snapshot_data WHERE digest = ?"
            (data,) = connection.execute(query, (digest,)).fetchone()
            query = "UPDATE snapshot_data SET data = ? WHERE digest = ?"
            connection.execute(query, (data[:-1] + bytes([data[-1] ^ 1]), digest))
            connection.commit()
    with Server(quick, database, log, "--learn-every=0") as server:
        ready = httpx.get(f"{server.url}/readyz").json()
        assert ready["snapshots"] == {"layout:home.layout": parent}
        said = server.logged("engine")[0]["message"]
        assert digest in said
        assert "altered" in said
        assert "its parent serves" in said


# Being refused ------------------------------------------------------------------------------------


def test_a_second_server_on_the_database_is_told_who_holds_it(
    quick: Path, database: str, log: Path
) -> None:
    with Server(quick, database, log) as server:
        second = evenhand("serve", "--no-auth", f"--workspace={quick}", f"--database={database}")
        assert second.returncode == 2
        assert f'"evenhand serve" (process {server.pid})' in second.stderr
        assert "Traceback" not in second.stderr
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_port_that_is_taken_is_bad_usage(quick: Path, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        where = f"--workspace={quick}", f"--database={database}"
        refused = evenhand("serve", "--no-auth", f"--port={port}", *where)
    assert refused.returncode == 2
    assert f"`--port` is {port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_workspace_that_moves_units_of_a_running_experiment_is_refused(
    quick: Path, database: str
) -> None:
    store = Store(database, writer="test")
    activate(store, load_workspace(quick), lambda: 1)
    store.close()
    moved = QUICK.replace("[0.0, 0.5]", "[0.2, 0.7]")
    (quick / "quick.yaml").write_text(moved, encoding="utf-8")
    refused = evenhand("serve", "--no-auth", f"--workspace={quick}", f"--database={database}")
    assert refused.returncode == 2
    assert "quick_test.range" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_folder_of_the_users_own_code_does_not_shadow_the_engine(
    quick: Path, database: str, log: Path, tmp_path: Path
) -> None:
    """The learner and reports are children; nothing of where the server was started is run."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for package in ("api", "engine", "policies", "experiments"):
        (elsewhere / f"{package}.py").write_text("raise SystemExit(9)\n", encoding="utf-8")
    with Server(quick, database, log, "--learn-every=0.05", cwd=elsewhere) as server:
        learned(server, 1)
        assert server.logged("engine") == []
        report = httpx.get(f"{server.url}/v1/lift?experiment=nothing", timeout=60)
        assert report.status_code == 404


# What it says and what it loads -------------------------------------------------------------------


def test_logs_are_json_lines_without_people(quick: Path, database: str, log: Path) -> None:
    with Server(quick, database, log, "--learn-every=0.1") as server:
        with httpx.Client(base_url=server.url) as http:
            secret = "jane.doe"
            body = {"surface": "home", "user_id": secret, "deadline_ms": 1, "request_id": secret}
            for _ in range(5):
                http.post("/v1/decide", json=body)
            http.post("/v1/decide", json=body | {"surface": secret})
            http.post("/v1/decide", json=body | {"context": {"weeks": secret}})
            outcome = {"outcome_id": secret, "user_id": secret, "metric": "watch", "value": 1}
            http.post("/v1/outcomes", json=outcome)
            http.post("/v1/outcomes", json=outcome | {"value": 2})
            http.get(f"/v1/decisions/{secret}")
        server.signal(signal.SIGTERM)
        server.ended()
        lines = server.lines()
    for line in lines:
        assert json.loads(line).keys() >= {"event", "level", "timestamp"}
        assert secret not in line


IMPORTS = """
import asyncio, sys
from pathlib import Path
import httpx
import api.cli.main, api.server
from api.app import Settings, create_app
from tests.api.running import Journal

async def main(workspace, database):
    app = create_app(Settings(Path(workspace), database, None, auth=False), Journal())
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://evenhand") as http:
            for surface in ("home", "nudge"):
                body = {"surface": surface, "user_id": "u1", "context": {"consent": True}}
                answer = (await http.post("/v1/decide", json=body)).raise_for_status().json()
                await http.get(f"/v1/decisions/{answer['decision_id']}")
            await http.get("/metrics")
            await http.get("/openapi.json")

asyncio.run(main(*sys.argv[1:]))
heavy = "pandas statsmodels sklearn mabwiser vowpalwabbit pyarrow duckdb matplotlib polars"
print(*sorted(set(heavy.split()) & set(sys.modules)))
"""


def test_the_server_loads_nothing_heavy(folder: Path, database: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-P", "-c", IMPORTS, str(folder), database],
        capture_output=True, text=True, cwd=ROOT, env=environment(), check=True,
    )  # fmt: skip
    assert ran.stdout.split() == []
