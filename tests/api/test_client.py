"""The Python client: what it asks, what it raises, and that a retry counts once."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from api.client import RETRIES, Client, ProblemError
from tests.api.running import Server, counts
from tests.api.workspaces import write_slates, write_workspace


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('client')}/log.db"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[str]:
    """The address of a server that runs for all tests of this module."""
    folder = tmp_path_factory.mktemp("client-server")
    workspace = write_workspace(folder / "workspace")
    with Server(workspace, database, folder / "log", "--learn-every=0") as server:
        yield server.url


@contextmanager
def losing_answers(url: str, lost: int) -> Iterator[str]:
    """A relay to a server that breaks the connection in place of its first ``lost`` answers."""
    host, port = url.removeprefix("http://").split(":")
    left = lost

    def relay(listening: socket.socket) -> None:
        nonlocal left
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            with closing(near), closing(socket.create_connection((host, int(port)))) as far:
                other = {near: far, far: near}
                while True:
                    (ready, *_), _, _ = select.select([near, far], [], [])
                    sent = ready.recv(65_536)
                    if ready is far and left > 0:
                        left -= 1
                        break
                    if not sent:
                        break
                    other[ready].sendall(sent)

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=relay, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_decision_is_asked_for_followed_up_explained_and_replayed(url: str) -> None:
    with Client(url) as evenhand:
        decision = evenhand.decide(
            "home", user_id="u1", context={"weeks": 3}, trigger="session_start", slots=["layout"]
        )
        assert decision["config"].keys() == {"layout"}
        id_ = decision["decision_id"]
        assert evenhand.expose(id_)["accepted"] == 1
        assert evenhand.expose(id_, slots=["layout"])["duplicates"] == 1
        assert evenhand.outcome("watch", 1.5, decision_id=id_)["accepted"] == 1
        assert evenhand.outcome("watch", 2, user_id="u1", occurred_at=datetime.now(UTC))
        document = evenhand.explain(id_)
        assert [outcome["value"] for outcome in document["outcomes"]] == [1.5, 2.0]
        assert document["request_id"]
        assert evenhand.replay(id_)["identical"] is True


def test_a_peek_has_no_id(url: str) -> None:
    with Client(url) as evenhand:
        assert evenhand.decide("home", anonymous_id="c1", peek=True)["decision_id"] is None


def test_a_refusal_is_raised_with_its_fields(url: str) -> None:
    with Client(url) as evenhand:
        with pytest.raises(ProblemError, match='404: `surface` is "away"') as unknown:
            evenhand.decide("away", user_id="u1")
        assert unknown.value.status == 404
        assert [error["field"] for error in unknown.value.errors] == ["surface"]
        with pytest.raises(ProblemError, match="400") as bad:
            evenhand.outcome("joy", 1.0, user_id="u1")
        assert [error["field"] for error in bad.value.errors] == ["metric"]
        with pytest.raises(ProblemError, match="404"):
            evenhand.explain("nobody")


def test_lost_answers_are_asked_for_again_and_counted_once(url: str, database: str) -> None:
    before = counts(database)
    for lost in range(1, RETRIES + 1):
        with losing_answers(url, lost) as relay, Client(relay) as evenhand:
            decision = evenhand.decide("home", user_id=f"lost-{lost}")
            assert decision["logged"]
        with losing_answers(url, lost) as relay, Client(relay) as evenhand:
            receipt = evenhand.outcome("watch", 1.0, user_id=f"lost-{lost}")
            assert receipt == {"accepted": 0, "duplicates": 1, "unmatched": 0}
    after = counts(database)
    assert after["decisions"] == before["decisions"] + RETRIES
    assert after["outcomes"] == before["outcomes"] + RETRIES


def test_a_server_that_is_gone_is_said_after_the_last_try() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as evenhand, pytest.raises(httpx.ConnectError):
        evenhand.decide("home", user_id="u1")


def test_an_error_that_is_no_problem_is_raised_too(tmp_path: Path) -> None:
    """What stands between may answer in its own way."""

    def answer(listening: socket.socket) -> None:
        near, _ = listening.accept()
        with closing(near):
            near.recv(65_536)
            near.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops")

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        port = listening.getsockname()[1]
        with (
            Client(f"http://127.0.0.1:{port}") as evenhand,
            pytest.raises(ProblemError, match="502: Bad Gateway"),
        ):
            evenhand.decide("home", user_id="u1")
        thread.join()


def test_items_are_told_and_a_slate_of_them_is_asked_for(tmp_path: Path) -> None:
    workspace = write_slates(write_workspace(tmp_path / "workspace"))
    database = f"sqlite:///{tmp_path}/log.db"
    with (
        Server(workspace, database, tmp_path / "log", "--learn-every=0") as server,
        Client(server.url) as client,
    ):
        goods = [{"item_id": f"g{n}", "attributes": {"price": n, "stock": 1}} for n in range(4)]
        assert client.tell_items(goods) == {"accepted": 4, "unchanged": 0}
        slate = client.recommend(
            "shelf", user_id="u1", k=2, exclude=["g3"], filters={"price": {"min": 1}}
        )
        assert {item["item_id"] for item in slate["items"]} == {"g1", "g2"}
        told = client.outcome("watch", 1, decision_id=slate["trace_id"], item_id="g1")
        assert told["accepted"] == 1
        assert client.explain(slate["trace_id"])["outcomes"][0]["item_id"] == "g1"
