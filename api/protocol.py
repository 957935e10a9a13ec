"""HTTP as uvicorn reads it, with a limit on heads, and problems for what is no request."""

from __future__ import annotations

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.access import SECURITY_HEADERS
from api.limits import LARGEST_HEAD_BYTES, head_too_large
from api.problems import problem


class LimitedProtocol(HttpToolsProtocol):
    """Ends a connection whose request line and headers go on and on.

    httptools gathers a head without bound before anybody sees it, so what came since the last
    part of a request was complete is counted here. :class:`api.limits.HeadLimit` refuses a head
    that is too large and did become complete.
    """

    _unread = 0

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has no end."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > LARGEST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, head_too_large())

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
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close."""
        self._refuse(400, f"{msg[:1].lower()}{msg[1:].rstrip('.')}; send HTTP/1.1")

    def _refuse(self, status: int, detail: str) -> None:
        response = problem(status, detail, headers={**SECURITY_HEADERS, "Connection": "close"})
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()
