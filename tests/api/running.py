"""The application as the tests run it: in this process, or as a server of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from fastapi import FastAPI

from api.app import Settings, create_app
from engine.service import Engine

ROOT = Path(__file__).parents[2]
PROBLEM = "application/problem+json"
LONGEST_WAIT_S = 60.0

T = TypeVar("T")


class Journal:
    """Keeps what was journalled."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.entries.append((event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.entries.append((event, fields))


class InProcess:
    """An application and a client on one event loop; background tasks run while a call does."""

    def __init__(
        self,
        workspace: Path,
        database: str,
        *,
        learn_every_s: float | None = None,
        keys: bool = False,
        rate: float | None = None,
    ) -> None:
        self.database = database
        self.journal = Journal()
        self.app: FastAPI = create_app(
            Settings(workspace, database, learn_every_s, auth=keys, rate=rate), self.journal
        )
        self._runner = asyncio.Runner()
        self._lifespan = self.app.router.lifespan_context(self.app)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://evenhand")

    def __enter__(self) -> Self:
        self.run(self._lifespan.__aenter__)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.run(self.http.aclose)
        self.run(lambda: self._lifespan.__aexit__(None, None, None))
        self._runner.close()

    @property
    def engine(self) -> Engine:
        engine: Engine = self.app.state.engine
        return engine

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` returns, awaited on the application's loop."""

        async def awaited() -> T:
            return await call()

        return self._runner.run(awaited())

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request, as :meth:`httpx.AsyncClient.request` does."""
        return self.run(lambda: self.http.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: object = None) -> httpx.Response:
        return self.request("POST", path, json=body)

    def decide(self, user_id: str = "u1", surface: str = "home", **more: Any) -> dict[str, Any]:
        """The answer to a request for a decision, which must succeed."""
        response = self.post("/v1/decide", {"surface": surface, "user_id": user_id, **more})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def decide_where(
        self, wanted: Callable[[dict[str, Any]], bool], surface: str = "home", **more: Any
    ) -> dict[str, Any]:
        """A decision on the first of some users for whom a peek is as wanted."""
        for number in range(500):
            if wanted(self.decide(f"w{number}", surface, mode="peek", **more)):
                return self.decide(f"w{number}", surface, **more)
        raise AssertionError("no user is as wanted")


TABLES = ("decisions", "outcomes", "exposures", "assignments", "snapshots", "voids", "sticky_draws")


def counts(database: str) -> dict[str, int]:
    """Rows of each table of a database's log."""
    with closing(sqlite3.connect(f"file:{file_of(database)}?mode=ro", uri=True)) as connection:
        query = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in TABLES)
        return dict(connection.execute(query).fetchall())


def file_of(database: str) -> Path:
    """The file of a SQLite database's address."""
    return Path(database.removeprefix("sqlite:///"))


@contextmanager
def busy(database: str) -> Iterator[None]:
    """Hold the database's one write lock, so that no commit ends before this does."""
    with closing(sqlite3.connect(file_of(database), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


@contextmanager
def broken(database: str, *tables: str) -> Iterator[None]:
    """Take tables away, so that what reads or writes them fails."""
    with closing(sqlite3.connect(file_of(database), isolation_level=None)) as connection:
        for table in tables:
            connection.execute(f"ALTER TABLE {table} RENAME TO gone_{table}")
        try:
            yield
        finally:
            for table in tables:
                connection.execute(f"ALTER TABLE gone_{table} RENAME TO {table}")


def until(found: Callable[[], T], what: str) -> T:
    """What ``found`` returns once that is true; fails after a minute."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {LONGEST_WAIT_S:.0f} s for {what}")


def environment() -> Mapping[str, str]:
    """Of a child process: this checkout's packages, wherever the child is started."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


def evenhand(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, run to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "api.cli", *arguments],
        capture_output=True, text=True, cwd=cwd, env=environment(),
        timeout=LONGEST_WAIT_S, check=False,
    )  # fmt: skip


class Server:
    """``evenhand serve`` as a process of its own on a free port, its log in a file."""

    def __init__(
        self,
        workspace: Path,
        database: str,
        log: Path,
        *options: str,
        cwd: Path = ROOT,
        keys: bool = False,
    ) -> None:
        self._command = [
            sys.executable, "-P", "-m", "api.cli", "serve", "--port=0",
            *([] if keys else ["--no-auth"]),
            f"--workspace={workspace}", f"--database={database}", *options,
        ]  # fmt: skip
        self._log = log
        self._cwd = cwd
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.spawn()
        self.url = until(self._listening, "the server to listen")

    def spawn(self) -> None:
        """Start, and do not wait."""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env=environment(),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process, which must run."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End it at once, as by ``kill -9``."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit status, waited for."""
        assert self.process is not None
        status = self.process.wait(LONGEST_WAIT_S)
        self.process = None
        return status

    def lines(self) -> list[str]:
        """What it has logged, in whole lines."""
        text = self._log.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Journal entries of an event."""
        entries = [json.loads(line) for line in self.lines() if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]

    def _listening(self) -> str:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError("\n".join(["the server ended:", *self.lines()]))
        for line in self.lines():
            _, found, rest = line.partition("running on ")
            if found:
                return rest.split()[0]
        return ""
