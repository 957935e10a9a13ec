"""A PostgreSQL server for the tests: the one that the environment names, or one of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

VARIABLE = "EVENHAND_TEST_POSTGRES"
"""Address of a database whose role may create others, as postgresql://user@host/postgres."""

_STARTING_S = 60.0
_USER = "postgres"
_numbers = count()


@dataclass(frozen=True)
class Postgres:
    """A server that tests may make databases on."""

    admin: str
    process: OwnServer | None = None

    def create(self) -> str:
        """The address of a new, empty database."""
        name = f"evenhand_test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0'.encode())
        return make_url(self.admin).set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        name = make_url(url).database
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


class OwnServer:
    """A server process with its files in a folder of its own, on a private port."""

    def __init__(self, programs: Path) -> None:
        # The server's user must be able to enter every folder above its files.
        self._folder = Path(tempfile.mkdtemp(prefix="evh-", dir="/tmp"))
        self._programs = programs
        self._as: dict[str, str] = {}
        if os.geteuid() == 0:
            # initdb refuses root.
            owner = pwd.getpwnam(_USER)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": _USER}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", f"--pgdata={self._data}", f"--username={_USER}", "--auth=trust",
                  "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")  # fmt: skip

    @property
    def admin(self) -> str:
        """The address of its first database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres", "-D", self._data, f"-p{self.port}",
                    "-h127.0.0.1", f"-k{self._folder}", "-cmax_connections=200",
                ],
                stdout=log, stderr=log, cwd=self._folder, start_new_session=True, **self._as,  # type: ignore[call-overload]  # the user's name, where it is given
            )  # fmt: skip
        deadline = time.monotonic() + _STARTING_S
        while True:
            try:
                psycopg.connect(self.admin, connect_timeout=5).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End at once and cut every connection, as a failing machine does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let its processes stand still, as those of a paused machine do."""
        assert self._process is not None
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in (self._process.pid, *map(int, children.read_text().split())):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def remove(self) -> None:
        """Stop, and remove its files."""
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        ran = subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True, text=True, cwd=self._folder, check=False, **self._as,  # type: ignore[call-overload]  # the user's name, where it is given
        )  # fmt: skip
        if ran.returncode != 0:
            raise RuntimeError(f"{program} failed: {ran.stderr}")


def programs() -> Path | None:
    """The folder of an installed server's programs, the newest version's."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3])
    )
    found: Sequence[str | Path] = [shutil.which("initdb") or "", *debian]
    initdb = Path(found[-1])
    return initdb.resolve().parent if initdb.is_file() else None


class NoServerError(Exception):
    """No PostgreSQL is named or installed."""


@contextmanager
def own_server() -> Iterator[Postgres]:
    """A server started for the caller; raises NoServerError where none is installed."""
    folder = programs()
    if folder is None:
        raise NoServerError(f"no PostgreSQL: set {VARIABLE}, or install the package postgresql")
    server = OwnServer(folder)
    try:
        server.start()
        yield Postgres(server.admin, server)
    finally:
        server.remove()


@contextmanager
def any_server() -> Iterator[Postgres]:
    """The server that the environment names, or one started for the caller."""
    named = os.environ.get(VARIABLE)
    if named:
        yield Postgres(named)
    else:
        with own_server() as started:
            yield started
