"""HTTP as uvicorn reads it, with limits on heads and time, and problems for what is none."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.access import SECURITY_HEADERS
from api.limits import LARGEST_HEAD_BYTES, head_too_large
from api.problems import problem


class JoinedWrites:
    """A transport that sends what one step of the event loop writes in one piece.

    uvicorn writes an answer's head and body apart, which is two packets and two system calls: a
    tenth of the time that a decision takes in all.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send soon."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Send now."""
        parts, self._parts = self._parts, []
        # A client that left meanwhile has closed the transport, which refuses to be written to.
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Send, then close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LimitedProtocol(HttpToolsProtocol):
    """Ends a connection whose request goes on and on, or whose client does not take its answer.

    httptools gathers a head without bound before anybody sees it, so what came since the last
    part of a request was complete is counted here. :class:`api.gate.Gate` refuses a head
    that is too large and did become complete.

    uvicorn's one limit on time, for idle connections, is lifted by any byte. Here a request must
    have come whole, and an answer be taken, within a time of its own. Nothing is scheduled for a
    request: each connection is looked at now and then.
    """

    longest_request_s = 30.0
    longest_idle_s = 80.0
    longest_unsent_s = 30.0
    look_every_s = 5.0

    _unread = 0
    _arriving = False
    _since = 0.0
    _unsent_since: float | None = None
    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A client is there, and has until a time to say something."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]  # all that uvicorn uses of one
        self._since = self.loop.time()
        self._looking = self.loop.call_later(self.look_every_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._looking:
            self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has no end."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > LARGEST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, head_too_large())

    def on_message_begin(self) -> None:
        """The first byte of a request is there."""
        self._arriving = True
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body is there; how large it may be is not decided here."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._unread = 0
        self._arriving = False
        self._since = self.loop.time()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request is answered; what of it was refused unread still comes in its time."""
        if not self._arriving:
            self._since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        """End the connection if its client is overdue, else look again later."""
        now = self.loop.time()
        if self._unsent_for(now) > self.longest_unsent_s:
            # Closing would wait until the rest is taken.
            self.transport.abort()
            return
        if self._answering() and (not self._arriving or self.flow.read_paused):
            # Who waits is the client.
            self._since = now
        elif self._arriving and now - self._since > self.longest_request_s:
            self._end_late_request()
        elif not self._arriving and now - self._since > self.longest_idle_s:
            self.transport.close()
        self._looking = self.loop.call_later(self.look_every_s, self._look)

    def _answering(self) -> bool:
        # There is none before the first request, whatever the annotation says.
        return bool(self.cycle) and not self.cycle.response_complete

    def _unsent_for(self, now: float) -> float:
        """For how long, as far as was looked, something of an answer waits to be taken."""
        if not self.transport.get_write_buffer_size():
            self._unsent_since = None
            return 0.0
        if self._unsent_since is None:
            self._unsent_since = now
        return now - self._unsent_since

    def _end_late_request(self) -> None:
        if self.transport.is_closing():
            return
        if self._answering() and self.cycle.response_started:
            self.transport.close()
            return
        said = f"the request did not come whole within {self.longest_request_s:g} s; send it again"
        self._refuse(408, said)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close."""
        self._refuse(400, f"{msg[:1].lower()}{msg[1:].rstrip('.')}; send HTTP/1.1")

    def _refuse(self, status: int, detail: str) -> None:
        response = problem(status, detail, headers={**SECURITY_HEADERS, "Connection": "close"})
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()
