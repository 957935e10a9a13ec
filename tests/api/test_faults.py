"""A disk that is full or read-only, and a database that another process holds for a while."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.running import PROBLEM, Server, busy, counts, evenhand, file_of, until
from tests.api.workspaces import write_quick_workspace

SOON = 300
"""Milliseconds after which a test's request may be answered with the defaults."""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    return write_quick_workspace(tmp_path / "quick")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@dataclass
class Sender:
    """Sends what a service would, and remembers what was acknowledged."""

    http: httpx.Client
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: set[str] = field(default_factory=set)

    def decide(self, name: str, **more: Any) -> dict[str, Any]:
        """The answer to a request of that name."""
        body = {"surface": "home", "user_id": name, "request_id": name, **more}
        answer: dict[str, Any] = self.http.post("/v1/decide", json=body).raise_for_status().json()
        if answer["logged"]:
            self.decisions[name] = answer
        return answer

    def report(self, name: str) -> httpx.Response:
        """The reply to an outcome of that name."""
        body = {"outcome_id": name, "user_id": "u", "metric": "watch", "value": 1}
        response = self.http.post("/v1/outcomes", json=body)
        if response.status_code == 200:
            self.outcomes.add(name)
        return response

    def ready(self) -> bool:
        """Whether the server says that it can decide and log."""
        return self.http.get("/readyz").status_code == 200

    def recovered(self, database: str) -> None:
        """Nothing acknowledged is lost, all can be sent again, and it is stored once."""
        until(self.ready, "the server to be ready by itself")
        for name, answer in list(self.decisions.items()):
            assert self.decide(name) == answer
        for name in list(self.outcomes):
            assert self.report(name).json() == {"accepted": 0, "duplicates": 1, "unmatched": 0}
        assert self.decide("later")["logged"]
        assert self.report("later").json()["accepted"] == 1
        stored = counts(database)
        assert stored["decisions"] - stored["voids"] == len(self.decisions)
        assert stored["outcomes"] == len(self.outcomes)


@contextmanager
def sending(server: Server) -> Iterator[Sender]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield Sender(http)


def is_default(answer: dict[str, Any], why: str) -> bool:
    return (answer["logged"], answer["fallback"], answer["config"]) == (False, why, {"layout": 1})


# A full disk --------------------------------------------------------------------------------------


@contextmanager
def no_larger_files(server: Server, database: str) -> Iterator[None]:
    """Let the server's files grow no more, as a quota does."""
    free = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    most = max(file.stat().st_size for file in file_of(database).parent.glob("log.db*"))
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, free[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, free)


@contextmanager
def no_space_left(server: Server, database: str) -> Iterator[None]:
    """Fill what is left of the database's disk."""
    ballast = file_of(database).with_name("ballast")
    with ballast.open("wb") as file:
        free = shutil.disk_usage(ballast.parent).free
        file.write(bytes(free))
    try:
        yield
    finally:
        ballast.unlink()


def mounted(folder: Path, *options: str) -> bool:
    """Mount a disk of a few megabytes on a folder, where this process may."""
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    return (
        bool(shutil.which("mount"))
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, "-o", "size=4m"):
        pytest.skip("this process may not mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full_disk(server: Server, database: str, fill: Callable[[Server, str], Any]) -> None:
    """What a server does while its disk is full, and afterwards."""
    with sending(server) as sender:
        assert sender.decide("before")["logged"]
        with fill(server, database):
            number = 0
            while sender.decide(f"full-{number}")["logged"]:
                number += 1
                assert number < 2_000
            assert is_default(sender.decide("full"), "the log is unavailable")
            assert not sender.ready()
            refused = sender.report("full")
            assert refused.status_code == 503
            assert refused.headers["content-type"] == PROBLEM
            assert refused.headers["retry-after"].isdigit()
            assert sender.http.get("/healthz").status_code == 200
        sender.recovered(database)


def test_a_file_that_may_not_grow_is_survived(quick: Path, database: str, log: Path) -> None:
    with Server(quick, database, log, "--learn-every=0") as server:
        full_disk(server, database, no_larger_files)


def test_a_full_disk_is_survived(quick: Path, small_disk: Path, log: Path) -> None:
    database = f"sqlite:///{small_disk}/log.db"
    with Server(quick, database, log, "--learn-every=0") as server:
        full_disk(server, database, no_space_left)


# A disk that cannot be written --------------------------------------------------------------------


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a file or folder read-only; for root, whom modes do not stop, by a mount."""
    with ExitStack() as undone:
        if os.geteuid():
            mode = path.stat().st_mode
            undone.callback(path.chmod, mode)
            path.chmod(mode & ~0o222)
        else:
            if not remounted(path, "bind") or not remounted(path, "remount,bind,ro"):
                pytest.skip("this process may not mount anything read-only")
            undone.callback(subprocess.run, ["umount", "--lazy", str(path)], check=True)
        yield


def remounted(path: Path, options: str) -> bool:
    """Mount a file or folder on itself."""
    command = ["mount", "-o", options, str(path), str(path)]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def test_a_database_in_a_read_only_folder_is_refused_with_the_repair(
    quick: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    database = f"sqlite:///{folder}/log.db"
    with read_only(folder):
        refused = evenhand("serve", "--no-auth", f"--workspace={quick}", f"--database={database}")
    assert refused.returncode == 2
    assert f'"{database}" cannot be written' in refused.stderr
    assert "give a path that can" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_database_file_that_is_read_only_answers_defaults_until_it_is_writable(
    quick: Path, database: str, log: Path
) -> None:
    with Server(quick, database, log, "--learn-every=0") as server:
        with sending(server) as sender:
            assert sender.decide("before")["logged"]
        known = sender.decisions
        server.signal(signal.SIGTERM)
        server.ended()
        with read_only(file_of(database)):
            server.start()
            with sending(server) as sender:
                sender.decisions |= known
                assert is_default(sender.decide("refused"), "the log is unavailable")
                assert sender.decide("before") == known["before"]
                assert sender.report("refused").status_code == 503
                assert not sender.ready()
        with sending(server) as sender:
            sender.decisions |= known
            sender.recovered(database)


# A database that is locked ------------------------------------------------------------------------


def test_a_database_that_is_locked_for_seconds_delays_or_answers_defaults(
    quick: Path, database: str, log: Path
) -> None:
    """By this process, as by a backup that holds the write lock."""
    with (
        Server(quick, database, log, "--learn-every=0") as server,
        sending(server) as sender,
    ):
        assert sender.decide("before")["logged"]
        with busy(database):
            for number in range(5):
                answer = sender.decide(f"locked-{number}", deadline_ms=SOON)
                assert is_default(answer, "deadline")
        sender.recovered(database)
        repeated = sender.decide("locked-0")
        assert is_default(repeated, "deadline")
        assert server.logged("unlogged")
