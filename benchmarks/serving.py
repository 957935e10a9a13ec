"""Durable decisions over HTTP, beside an empty FastAPI + Pydantic endpoint with bodies of a size.

    python -m benchmarks.serving

Two measurements, each on one worker with SQLite's synchronous=FULL:

- closed loop: 32 connections ask as fast as they are answered; requests a second, as median and
  spread of rounds that alternate between the two servers;
- open loop: 500 decisions a second and as many outcomes, sent at their appointed times whatever
  has been answered, with learning on; latency from the appointed time, so that a stall delays all
  that should have been sent during it (no coordinated omission).
"""

from __future__ import annotations

import asyncio
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
from pathlib import Path

import msgspec

from benchmarks import surface

CONNECTIONS, ROUNDS, ROUND_S = 32, 5, 3.0
RATE, OPEN_S = 500, 20.0
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
answer = Answer(text="x" * int(sys.argv[2]))

@app.post("/v1/decide")
async def decide(body: Body) -> Answer:
    return answer

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools",
            access_log=False, log_level="warning")
"""


def main() -> None:
    """Run both and print them."""
    with tempfile.TemporaryDirectory(prefix="evenhand-bench-") as name:
        asyncio.run(_main(Path(name)))


async def _main(folder: Path) -> None:
    (folder / "workspace").mkdir()
    content = msgspec.json.encode(surface.content())
    (folder / "workspace" / "workspace.yaml").write_bytes(content)
    rng = random.Random(1)
    bodies = [_decide_body(rng, i) for i in range(2_000)]
    with _evenhand(folder) as ours:
        size = len(await _one(ours, "/v1/decide", bodies[0]))
        with _server("-c", _FLOOR, size=size) as floor:
            await _closed(ours, floor, bodies)
        await _open(ours, bodies)


async def _closed(ours: int, floor: int, bodies: Sequence[bytes]) -> None:
    rates: dict[str, list[float]] = {"floor": [], "ours": []}
    for _ in range(ROUNDS):
        rates["floor"].append(await _closed_round(floor, bodies))
        rates["ours"].append(await _closed_round(ours, bodies))
    print(f"closed loop: {CONNECTIONS} connections, {ROUNDS} rounds of {ROUND_S:g} s, requests/s")
    for name, label in (
        ("floor", "empty FastAPI + Pydantic endpoint (floor)"),
        ("ours", "durable decisions, SQLite FULL"),
    ):
        low, middle, high = min(rates[name]), statistics.median(rates[name]), max(rates[name])
        print(f"  {middle:8,.0f}  [{low:,.0f}, {high:,.0f}]  {label}")
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["floor"])
    print(f"  {ratio:8.2f}  of the floor")


async def _closed_round(port: int, bodies: Sequence[bytes]) -> float:
    until = time.perf_counter() + ROUND_S
    counts = await asyncio.gather(
        *(_ask_until(port, bodies[start::CONNECTIONS], until) for start in range(CONNECTIONS))
    )
    return sum(counts) / ROUND_S


async def _ask_until(port: int, bodies: Sequence[bytes], until: float) -> int:
    count = 0
    async with _connection(port) as (reader, writer):
        while time.perf_counter() < until:
            await _exchange(reader, writer, "/v1/decide", bodies[count % len(bodies)])
            count += 1
    return count


async def _open(port: int, bodies: Sequence[bytes]) -> None:
    """Send each request at its appointed time; latencies count from there."""
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    decided: list[float] = []
    reported: list[float] = []
    began = time.perf_counter() + 0.2

    async def one(number: int) -> None:
        due = began + number / RATE
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        connection = await free.get()
        answer = await _exchange(*connection, "/v1/decide", bodies[number % len(bodies)])
        decided.append(time.perf_counter() - due)
        free.put_nowait(connection)
        later = due + 0.3
        await asyncio.sleep(max(later - time.perf_counter(), 0))
        connection = await free.get()
        id_ = msgspec.json.decode(answer)["decision_id"]
        outcome = {"outcome_id": id_, "decision_id": id_, "metric": "click", "value": number % 2}
        await _exchange(*connection, "/v1/outcomes", msgspec.json.encode(outcome))
        reported.append(time.perf_counter() - later)
        free.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        for _ in range(2 * CONNECTIONS):
            free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
        for number in range(int(RATE * OPEN_S)):
            group.create_task(one(number))
    while not free.empty():
        free.get_nowait()[1].close()
    print(f"open loop: {RATE} decisions and {RATE} outcomes a second for {OPEN_S:g} s, learning on")
    for label, taken in (("decisions", decided), ("outcomes", reported)):
        cuts = statistics.quantiles(taken, n=1_000)
        told = [f"{name} {1e3 * cuts[i]:.2f} ms" for name, i in (("p50", 499), ("p99", 989))]
        print(f"  {label}: {', '.join(told)}, largest {1e3 * max(taken):.2f} ms")


def _decide_body(rng: random.Random, number: int) -> bytes:
    return msgspec.json.encode(
        {"user_id": f"u{number}", "surface": "home", "context": surface.context(rng)}
    )


async def _one(port: int, path: str, body: bytes) -> bytes:
    async with _connection(port) as (reader, writer):
        return await _exchange(reader, writer, path, body)


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
    headers = await reader.readuntil(b"\r\n\r\n")
    if not headers.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(headers.decode())
    _, _, rest = headers.lower().partition(b"content-length: ")
    return await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))


@contextmanager
def _evenhand(folder: Path) -> Iterator[int]:
    port = _free_port()
    command = ["-m", "api.cli", "serve", "--no-auth", f"--port={port}", "--log-level=warning"]
    places = [f"--workspace={folder / 'workspace'}", f"--database=sqlite:///{folder}/log.db"]
    with _running([sys.executable, *command, *places, "--learn-every=2"], port):
        yield port


@contextmanager
def _server(*arguments: str, size: int) -> Iterator[int]:
    port = _free_port()
    with _running([sys.executable, *arguments, str(port), str(size)], port):
        yield port


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(root)}) as process:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
