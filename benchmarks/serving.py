"""Durable decisions over HTTP, beside an empty FastAPI + Pydantic endpoint with bodies of a size.

    python -m benchmarks.serving

One worker, SQLite with synchronous=FULL, policies that have learned:

- start: time from the command to readiness, and resident memory then;
- closed loop: 32 connections ask as fast as they are answered; requests a second, and the processor
  time that the server spends on one, of decisions, of outcomes and of the empty endpoint, as median
  and spread of rounds that alternate;
- open loop: 500 decisions a second and as many outcomes, sent at their appointed times whatever
  has been answered, with learning on; latency from the appointed time, so that a stall delays all
  that should have been sent during it (no coordinated omission). Once with snapshots swapped every
  two seconds, once with reports made beside that, one after the other. The generator's own
  lateness is printed, since it shares the machine: latencies hold no more than it lets them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks import surface

CONNECTIONS, ROUNDS, ROUND_S = 32, 5, 3.0
RATE, OPEN_S = 500, 20.0
LEARNED = 600
_FLOOR = """
import sys
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

class Body(BaseModel):
    user_id: str
    surface: str
    context: dict[str, float | str]

class Answer(BaseModel):
    text: str

app = FastAPI()
answer = Answer(text="x" * (int(sys.argv[2]) - len('{"text":""}')))

@app.post("/v1/decide")
async def decide(body: Body) -> Answer:
    return answer

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools",
            access_log=False, log_level="warning")
"""


def main() -> None:
    """Run all and print them."""
    # The generator's own collections would be told as latencies.
    gc.collect()
    gc.freeze()
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="evenhand-bench-") as name:
        uvloop.run(_main(Path(name)))
    gc.enable()


async def _main(folder: Path) -> None:
    write_workspace(folder)
    database = file_in(folder)
    rng = random.Random(1)
    bodies = [decide_body(rng, i) for i in range(2_000)]
    with evenhand(folder, database, learn_every=1) as ours:
        await teach(ours.port, bodies)
    with evenhand(folder, database, learn_every=0) as ours:
        spent, held = ours.cpu_s(), ours.resident_mb()
        print(
            f"start: ready after {ours.ready_s:.2f} s, {spent:.2f} s of CPU, {held:.0f} MB resident"
        )
        size = len(await _post(ours.port, "/v1/decide", bodies[0]))
        with _floor(size) as floor:
            await _closed(ours, floor, bodies)
    with evenhand(folder, database, learn_every=2) as ours:
        print(f"open loop: {RATE} decisions and {RATE} outcomes a second for {OPEN_S:g} s")
        await _open(ours.port, bodies, "learning")
        async with _reporting(ours.port):
            await _open(ours.port, bodies, "learning, and reports")
        print(f"  {ours.resident_mb():.0f} MB resident at the end")


async def teach(port: int, bodies: Sequence[bytes]) -> None:
    """Decide and report outcomes until every policy serves a snapshot that learned from them."""
    before = (await _ready(port))["snapshots"]
    for number in range(LEARNED):
        id_ = await _decided(port, bodies[number])
        await _post(port, "/v1/outcomes", _outcome(id_, number))
    while True:
        now = (await _ready(port))["snapshots"]
        if all(now[learner] != snapshot for learner, snapshot in before.items()):
            return
        await asyncio.sleep(0.2)


async def _closed(ours: Server, floor: Server, bodies: Sequence[bytes]) -> None:
    ids = [await _decided(ours.port, body) for body in bodies]
    outcomes = (_outcome(id_, number) for number, id_ in enumerate(cycle(ids)))
    empty, decided, reported = "empty FastAPI + Pydantic endpoint (floor)", "decisions", "outcomes"
    loads = {
        empty: (floor, "/v1/decide", cycle(bodies)),
        decided: (ours, "/v1/decide", cycle(bodies)),
        reported: (ours, "/v1/outcomes", outcomes),
    }
    rates: dict[str, list[float]] = {label: [] for label in loads}
    spent: dict[str, list[float]] = {label: [] for label in loads}
    for _ in range(ROUNDS):
        for label, (server, path, asked) in loads.items():
            before = server.cpu_s()
            rates[label].append(await closed_round([server.port], asked, path))
            spent[label].append((server.cpu_s() - before) / ROUND_S / rates[label][-1])
    print(f"closed loop: {CONNECTIONS} connections, {ROUNDS} rounds of {ROUND_S:g} s, requests/s")
    for label in loads:
        low, middle, high = spread(rates[label])
        each = 1e6 * statistics.median(spent[label])
        print(f"  {middle:8,.0f}  [{low:,.0f}, {high:,.0f}]  {each:4.0f} µs of CPU each  {label}")
    for what, of in (("requests/s", rates), ("CPU each", spent)):
        for label in (decided, reported):
            low, middle, high = spread([a / b for a, b in zip(of[label], of[empty], strict=True)])
            print(f"  {middle:8.2f}  [{low:.2f}, {high:.2f}]  of the floor: {what} of {label}")


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Least, median and largest."""
    return min(values), statistics.median(values), max(values)


async def closed_round(
    ports: Sequence[int], bodies: Iterator[bytes], path: str = "/v1/decide"
) -> float:
    """Requests a second of servers that share the connections; each takes the next body."""
    until = time.perf_counter() + ROUND_S
    counts = await asyncio.gather(
        *(
            _ask_until(ports[number % len(ports)], path, bodies, until)
            for number in range(CONNECTIONS)
        )
    )
    return sum(counts) / ROUND_S


async def _ask_until(port: int, path: str, bodies: Iterator[bytes], until: float) -> int:
    count = 0
    async with _connection(port) as (reader, writer):
        while time.perf_counter() < until:
            await _exchange(reader, writer, path, next(bodies))
            count += 1
    return count


async def _open(port: int, bodies: Sequence[bytes], title: str) -> None:
    """Send each request at its appointed time; latencies count from there."""
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    late: list[float] = []
    decided: list[float] = []
    reported: list[float] = []
    snapshots: set[str] = set()
    began = time.perf_counter() + 0.2

    async def one(number: int) -> None:
        due = began + number / RATE
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        late.append(time.perf_counter() - due)
        connection = await free.get()
        answer = await _exchange(*connection, "/v1/decide", bodies[number % len(bodies)])
        decided.append(time.perf_counter() - due)
        free.put_nowait(connection)
        told = msgspec.json.decode(answer)
        snapshots.update(c["snapshot"] for c in told["choices"] if c["snapshot"])
        later = due + 0.3
        await asyncio.sleep(max(later - time.perf_counter(), 0))
        connection = await free.get()
        await _exchange(*connection, "/v1/outcomes", _outcome(told["decision_id"], number))
        reported.append(time.perf_counter() - later)
        free.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        for _ in range(2 * CONNECTIONS):
            free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
        for number in range(int(RATE * OPEN_S)):
            group.create_task(one(number))
    while not free.empty():
        free.get_nowait()[1].close()
    print(f"  {title}: {len(snapshots)} snapshots served")
    for label, taken in (
        ("decisions", decided),
        ("outcomes", reported),
        ("the generator's lateness", late),
    ):
        cuts = statistics.quantiles(taken, n=1_000)
        told = [f"{name} {1e3 * cuts[i]:.2f} ms" for name, i in (("p50", 499), ("p99", 989))]
        print(f"    {label}: {', '.join(told)}, largest {1e3 * max(taken):.2f} ms")


@asynccontextmanager
async def _reporting(port: int) -> AsyncIterator[None]:
    """Have reports made, one after the other."""
    made = 0
    stopping = False

    async def one_after_the_other() -> None:
        nonlocal made
        while not stopping:
            await _get(port, "/v1/lift?experiment=test")
            made += 1

    task = asyncio.create_task(one_after_the_other())
    try:
        yield
    finally:
        stopping = True
        await task
        print(f"    {made} reports made")


def decide_body(rng: random.Random, number: int) -> bytes:
    """The body of a request for a decision."""
    return msgspec.json.encode(
        {"user_id": f"u{number}", "surface": "home", "context": surface.context(rng)}
    )


def _outcome(decision_id: str, number: int) -> bytes:
    outcome = {"outcome_id": f"{decision_id}-{number}", "decision_id": decision_id}
    return msgspec.json.encode({**outcome, "metric": "click", "value": number % 2})


async def _decided(port: int, body: bytes) -> str:
    """The id of the decision that a body asks for."""
    id_: str = msgspec.json.decode(await _post(port, "/v1/decide", body))["decision_id"]
    return id_


async def _post(port: int, path: str, body: bytes) -> bytes:
    async with _connection(port) as (reader, writer):
        return await _exchange(reader, writer, path, body)


async def _get(port: int, path: str) -> bytes:
    async with _connection(port) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
        return await _answer(reader)


async def _ready(port: int) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.json.decode(await _get(port, "/readyz"))
    return said


@asynccontextmanager
async def _connection(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes
) -> bytes:
    """One request on a kept connection; the answer's body."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    return await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    headers = await reader.readuntil(b"\r\n\r\n")
    if not headers.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(headers.decode())
    _, _, rest = headers.lower().partition(b"content-length: ")
    return await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))


@dataclass(frozen=True)
class Server:
    """A server that runs, and what the operating system knows of it."""

    port: int
    pid: int
    ready_s: float

    def cpu_s(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Resident memory, without its children's."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_workspace(folder: Path) -> None:
    """Write the benchmarks' workspace into a folder."""
    (folder / "workspace").mkdir()
    content = msgspec.json.encode(surface.content())
    (folder / "workspace" / "workspace.yaml").write_bytes(content)


def file_in(folder: Path) -> str:
    """The address of a SQLite log in a folder."""
    return f"sqlite:///{folder}/log.db"


@contextmanager
def evenhand(folder: Path, database: str, learn_every: float) -> Iterator[Server]:
    """A server of the workspace in a folder, ready."""
    with _running(
        "-m", "api.cli", "serve", "--no-auth", "--log-level=warning", "--port={port}",
        f"--workspace={folder / 'workspace'}", f"--database={database}",
        f"--learn-every={learn_every}", ready="/readyz",
    ) as server:  # fmt: skip
        yield server


@contextmanager
def _floor(size: int) -> Iterator[Server]:
    """The empty endpoint, whose answers have as many bytes."""
    with _running("-c", _FLOOR, "{port}", str(size), ready="/openapi.json") as server:
        yield server


@contextmanager
def _running(*command: str, ready: str) -> Iterator[Server]:
    root = Path(__file__).parents[1]
    port = _free_port()
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *(part.replace("{port}", str(port)) for part in command)],
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as process:
        try:
            while not _is_ready(port, ready):
                time.sleep(0.01)
            yield Server(port, process.pid, time.perf_counter() - began)
        finally:
            process.terminate()


def _is_ready(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
