"""The Python client, against a server that notes what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from api.client import Client, ProblemError


class Noting(HTTPServer):
    """Refuses every request, and keeps its method and path as they came."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Refusing)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Refusing(BaseHTTPRequestHandler):
    server: Noting

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path))
        self.rfile.read(int(self.headers.get("content-length", "0")))
        body = {"detail": "no such decision", "errors": [{"field": "decision_id", "message": "-"}]}
        data = json.dumps(body).encode()
        self.send_response(404)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815  the library calls it so

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        pass


@pytest.fixture
def noting() -> Iterator[Noting]:
    server = Noting()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("id_", "quoted"),
    [
        ("0198-ab", "0198-ab"),
        ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("../lift", "..%2Flift"),
        ("é %", "%C3%A9%20%25"),
    ],
)
def test_an_id_stays_one_part_of_the_path(noting: Noting, id_: str, quoted: str) -> None:
    with Client(noting.url) as evenhand:
        with pytest.raises(ProblemError):
            evenhand.explain(id_)
        with pytest.raises(ProblemError):
            evenhand.replay(id_)
    assert noting.asked == [
        ("GET", f"/v1/decisions/{quoted}"),
        ("POST", f"/v1/decisions/{quoted}/replay"),
    ]


def test_a_refusal_is_raised_with_its_status_and_fields(noting: Noting) -> None:
    with Client(noting.url) as evenhand, pytest.raises(ProblemError, match="no such decision") as e:
        evenhand.explain("nobody")
    assert e.value.status == 404
    assert e.value.errors == ({"field": "decision_id", "message": "-"},)
