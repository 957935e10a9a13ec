"""A client that takes its time takes nobody else's: over real sockets, with limits made short."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from api.protocol import LimitedProtocol
from tests.api.running import PROBLEM, until

LARGE = 30_000_000
"""Bytes of an answer: more than the system would keep for a client that takes none."""

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"


class Impatient(LimitedProtocol):
    """The same, with less time."""

    longest_request_s = 0.4
    longest_idle_s = 0.8
    longest_unsent_s = 0.4
    look_every_s = 0.05


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers what it was sent, or at /large much, or at /late after a while."""
    body = b""
    if scope["path"] != "/refused":
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
    if scope["path"] == "/late":
        await asyncio.sleep(1.2)
    if scope["path"] == "/large":
        body = b"x" * LARGE
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    config = uvicorn.Config(
        application, port=0, http=Impatient, lifespan="off", log_config=None, access_log=False,
        timeout_keep_alive=60, timeout_graceful_shutdown=1,
    )  # fmt: skip
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    until(lambda: running.started, "the server")
    yield running
    running.should_exit = True
    thread.join()


@contextmanager
def connected(server: uvicorn.Server) -> Iterator[socket.socket]:
    port = server.servers[0].sockets[0].getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def refusal(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout"), answer
    assert f"content-type: {PROBLEM}".encode() in head
    assert b"connection: close" in head
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize(
    "sent", [b"G", b"POST / HTTP/1.1\r\nhost: x\r\nx-slow: ", HEAD, HEAD + b"12345"],
    ids=["method", "header", "no body", "half a body"],
)  # fmt: skip
def test_a_request_that_does_not_come_whole_is_refused(server: uvicorn.Server, sent: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)
        assert refusal(rest_of(connection))["status"] == 408


def test_a_request_that_drips_is_refused(server: uvicorn.Server) -> None:
    """Each byte would lift a limit on idleness."""
    with connected(server) as connection:
        connection.sendall(HEAD)
        connection.settimeout(0.15)
        answer = b""
        for _ in range(20):
            try:
                connection.sendall(b"1")
                answer = connection.recv(65_536)
                break
            except TimeoutError:
                continue
        assert refusal(answer)["status"] == 408


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "an empty line"])
def test_a_connection_that_says_nothing_is_closed(server: uvicorn.Server, sent: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)
        assert rest_of(connection) == b""


def test_a_request_that_was_refused_early_must_come_whole_too(server: uvicorn.Server) -> None:
    with connected(server) as connection:
        connection.sendall(HEAD.replace(b"POST /", b"POST /refused") + b"123")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"408" in answer


def test_who_does_not_take_the_answer_is_let_go(server: uvicorn.Server) -> None:
    connections = server.server_state.connections
    until(lambda: not connections, "earlier connections to end")
    with connected(server) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        until(lambda: connections, "the connection")
        until(lambda: not connections, "the server to give up")


def test_an_answer_that_takes_long_to_make_is_waited_for(server: uvicorn.Server) -> None:
    with connected(server) as connection:
        connection.sendall(HEAD.replace(b"POST /", b"POST /late") + b"1234567890")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_connection_in_use_stays(server: uvicorn.Server) -> None:
    """Longer than each limit, though never for long without a whole request."""
    with connected(server) as connection:
        for _ in range(8):
            connection.sendall(HEAD + b"12345")
            threading.Event().wait(0.1)
            connection.sendall(b"67890")
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"1234567890")
            threading.Event().wait(0.1)
