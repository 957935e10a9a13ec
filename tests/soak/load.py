"""The load, the reloading and the samples of memory."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import httpx

from tests.api.running import Server
from tests.api.workspaces import QUICK, write_quick_workspace

CLIENTS = 4
USERS = 2_000
REQUESTS_A_ROUND = 3
"""A decision, its exposure and an outcome of it."""

Progress = Callable[["Sample"], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was answered by a time, and the resident memory of the server and of its learner."""

    seconds: float
    requests: int
    server_bytes: int
    learner_bytes: int


@dataclass
class Soaked:
    """Samples in their order, and what went amiss with requests."""

    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    learned: int = 0
    reloads: int = 0


def soak(
    folder: Path,
    *,
    seconds: float = float("inf"),
    rounds: int | None = None,
    rate: float | None = None,
    every_s: float = 1.0,
    progress: Progress = lambda _: None,
) -> Soaked:
    """Load a server until a time is over or a number of rounds done; ``rate`` is rounds a second.

    It learns every second, and reloads one of two revisions in turn every ten samples.
    """
    workspace = write_quick_workspace(folder / "workspace")
    server = Server(
        workspace, f"sqlite:///{folder}/log.db", folder / "server.log", "--learn-every=1"
    )
    soaked = Soaked()
    over = Event()
    numbers = itertools.count() if rounds is None else iter(range(rounds))
    done: list[int] = []
    with server:
        began = time.monotonic()
        pace = _pace(began, rate)
        clients = [
            Thread(target=_work, args=(server.url, numbers, done, pace, over, soaked.faults))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        try:
            while any(client.is_alive() for client in clients):
                over.wait(every_s)
                sample = _sample(server.pid, began, len(done))
                soaked.samples.append(sample)
                progress(sample)
                if len(soaked.samples) % 10 == 0:
                    soaked.reloads += 1
                    _reload(server, workspace, soaked.reloads)
                if sample.seconds > seconds:
                    over.set()
        finally:
            over.set()
            for client in clients:
                client.join()
        soaked.learned = len(server.logged("learned"))
        soaked.faults += [f"journalled: {e}" for e in server.logged("failed")]
    return soaked


def _pace(began: float, rate: float | None) -> Callable[[int], None]:
    """What waits for a round's appointed time, whatever the rounds before it took."""

    def wait(number: int) -> None:
        if rate is not None:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))

    return wait


def _work(
    url: str,
    numbers: Iterator[int],
    done: list[int],
    pace: Callable[[int], None],
    over: Event,
    faults: list[str],
) -> None:
    with httpx.Client(base_url=url, timeout=30) as http:
        for number in numbers:
            if over.is_set():
                return
            pace(number)
            try:
                _round(http, number)
            except (httpx.HTTPError, AssertionError) as error:
                faults.append(f"round {number}: {error!r}")
                return
            done.append(number)


def _round(http: httpx.Client, number: int) -> None:
    def sent(path: str, **body: object) -> httpx.Response:
        response = http.post(path, json=body)
        assert response.status_code == 200, response.text
        return response

    user, context = f"u{number % USERS}", {"weeks": number % 7}
    decided = sent(
        "/v1/decide", surface="home", user_id=user, request_id=f"r{number}", context=context
    ).json()
    assert decided["logged"], decided
    id_ = decided["decision_id"]
    sent("/v1/exposures", decision_id=id_)
    sent("/v1/outcomes", outcome_id=f"o{number}", decision_id=id_, metric="watch", value=1.0)


def _reload(server: Server, workspace: Path, number: int) -> None:
    text = QUICK.replace("value: 2", f"value: {2 + number % 2}")
    (workspace / "quick.yaml").write_text(text, encoding="utf-8")
    server.signal(signal.SIGHUP)


def _sample(pid: int, began: float, rounds: int) -> Sample:
    learner = max((resident_bytes(child) for child in children(pid)), default=0)
    return Sample(time.monotonic() - began, REQUESTS_A_ROUND * rounds, resident_bytes(pid), learner)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except FileNotFoundError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    return [
        int(child)
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for child in file.read_text().split()
    ]
