"""A recommender elsewhere proposes; what it may not, or cannot in time, is told."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.api.running import InProcess
from tests.engine.shop import SHOP, STOCKED

VIEWING = {"viewing": "camera-c", "region": "DE"}


class Partner(ThreadingHTTPServer):
    """A recommender on a port of its own that answers as told, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], str | None]] = []
        self.cookies: list[str | None] = []
        self.status = 200
        self.answer: bytes = b"{}"
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/candidates"

    def rank(self, *items: tuple[str, float]) -> None:
        """Answer with some items from now on."""
        ranked = [{"item_id": id_, "score": score} for id_, score in items]
        self.answer = json.dumps({"trace_id": "p-1", "items": ranked}).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Partner

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((json.loads(body), self.headers["Authorization"]))
        self.server.cookies.append(self.headers["Cookie"])
        self.server.may_answer.wait()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.send_header("Set-Cookie", "of=this-unit")
        if self.server.answer.startswith(b"\x1f\x8b"):
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def partner() -> Iterator[Partner]:
    with Partner() as server:
        yield server
        server.may_answer.set()
        server.shutdown()


@pytest.fixture
def shop(partner: Partner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    monkeypatch.setenv("PARTNER_KEY", "s3cret")
    text = SHOP.replace(
        "    kind: accessories\n", "    kind: accessories\n    recommender: partner\n"
    )
    text += f"recommenders:\n  partner: {{kind: http, url: '{partner.url}', deadline: 2s, "
    text += "key_from: PARTNER_KEY}\n"
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "shop.yaml").write_text(text, encoding="utf-8")
    with InProcess(folder, f"sqlite:///{tmp_path}/log.db") as served:
        told = [{"item_id": id_, "attributes": item} for id_, item in STOCKED.items()]
        assert served.post("/v1/items", told).status_code == 200
        yield served


def slate(shop: InProcess, **more: Any) -> dict[str, Any]:
    answer = shop.decide("visitor", "product", context=VIEWING, **more)
    found: dict[str, Any] = answer["slates"]["accessories"]
    return found


def test_what_a_partner_ranks_stands_under_the_rules_of_the_workspace(
    shop: InProcess, partner: Partner
) -> None:
    partner.rank(("battery", 9.0), ("strap", 3.0), ("lens-n", 2.5), ("card", 2.0), ("unknown", 1.0))
    answer = shop.decide("visitor", "product", context=VIEWING)
    found = answer["slates"]["accessories"]
    assert found["fallback"] is None
    ranked = [i["item_id"] for i in found["items"] if i["reason"] == "partner"]
    assert ranked == ["strap", "card"]
    document = shop.get(f"/v1/decisions/{answer['decision_id']}").json()["slates"]["accessories"]
    versions = {"items": "1", "recommender": "partner", "model": "p-1", "scorer": ""}
    assert document["versions"] == versions
    kept_out = {entry["rule"]: entry["items"] for entry in document["removed"]}
    assert "battery" in kept_out["in_stock"]
    assert set(document["timings_ms"]) >= {"external", "composition"}
    assert shop.post(f"/v1/decisions/{answer['decision_id']}/replay").json()["identical"]


@pytest.mark.parametrize("ranked", [[], [("battery", 9.0)], [("strap", 2.0)]], ids=str)
def test_what_a_partner_leaves_of_a_slate_is_filled_below_what_it_ranks(
    shop: InProcess, partner: Partner, ranked: list[tuple[str, float]]
) -> None:
    partner.rank(*ranked)
    found = slate(shop)
    theirs = [item["item_id"] for item in found["items"] if item["reason"] == "partner"]
    assert len(found["items"]) == 3
    assert theirs == [id_ for id_, _ in ranked if id_ != "battery"]
    assert found["shortfall"] == ""


def test_a_partner_is_told_all_that_it_may_need(shop: InProcess, partner: Partner) -> None:
    partner.rank(("card", 1.0))
    bought = {"outcome_id": "o", "user_id": "visitor", "metric": "purchase", "value": 1}
    shop.post("/v1/outcomes", bought | {"item_id": "bag"})
    slate(shop)
    ((asked, key),) = partner.asked
    assert key == "Bearer s3cret"
    assert asked["user_id"] == "u:visitor"
    assert [asked[name] for name in ("surface", "slate", "kind")] == ["product"] + 2 * [
        "accessories"
    ]
    assert asked["k"] == 1000
    assert asked["context"] == VIEWING
    assert asked["seeds"] == ["camera-c"]
    assert asked["owned"] == ["bag"]
    assert [(i["item_id"], i["kind"]) for i in asked["history"]] == [("bag", "purchase")]


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (500, b"{}", "answered 500"),
        (302, b"{}", "answered 302"),
        (200, b"<html>", "not of the form asked for"),
        (200, b'{"items": [{"item_id": "card"}]}', "not of the form asked for"),
        (200, b'{"items": [{"item_id": "card", "score": 1e999}]}', "partner: "),
        (200, b'{"items": [{"item_id": "card", "score": -1e300}]}', "a score beyond 1e+38"),
        (200, gzip.compress(b'{"items": []}', mtime=0), "not of the form asked for"),
    ],
)
def test_a_broken_partner_is_fallen_back_from_and_it_is_told(
    shop: InProcess, partner: Partner, status: int, answer: bytes, why: str
) -> None:
    partner.status, partner.answer = status, answer
    found = slate(shop)
    assert why in found["fallback"]
    assert len(found["items"]) == 3
    assert [e for e, f in shop.journal.entries if e == "fell back" and why in f["why"]]


def test_a_partner_that_is_gone_is_fallen_back_from(shop: InProcess, partner: Partner) -> None:
    partner.shutdown()
    partner.server_close()
    found = slate(shop)
    assert found["fallback"].startswith("partner: ConnectError")
    assert len(found["items"]) == 3


def test_a_slow_partner_has_half_of_what_the_request_has_left(
    shop: InProcess, partner: Partner
) -> None:
    partner.may_answer.clear()
    answer = shop.decide("visitor", "product", context=VIEWING, deadline_ms=1_000)
    found = answer["slates"]["accessories"]
    assert answer["logged"]
    assert found["fallback"].startswith("partner: no answer within ")
    waited = int(found["fallback"].split()[4])
    assert waited <= 500
    assert len(found["items"]) == 3


def test_a_partner_that_says_too_much_is_cut_off(
    shop: InProcess, partner: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.recommenders.LARGEST_ANSWER_BYTES", 100)
    partner.rank(*((f"item-{n}", 1.0) for n in range(100)))
    assert "more than 100 bytes" in slate(shop)["fallback"]


def test_without_its_key_a_partner_is_not_asked(
    shop: InProcess, partner: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARTNER_KEY")
    assert "PARTNER_KEY holds no key" in slate(shop)["fallback"]
    assert partner.asked == []


@pytest.mark.parametrize("key", ["s3cret\n", "s3cr\u00e9t"])
def test_a_key_that_no_header_can_hold_is_told_of_and_never_shown(
    shop: InProcess, partner: Partner, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("PARTNER_KEY", key)
    assert "PARTNER_KEY holds what no header can" in slate(shop)["fallback"]
    assert partner.asked == []
    assert "s3cr" not in str(shop.journal.entries)


def test_what_a_partner_sets_for_one_unit_is_not_sent_with_the_next(
    shop: InProcess, partner: Partner
) -> None:
    partner.rank(("card", 1.0))
    slate(shop)
    slate(shop)
    assert partner.cookies == [None, None]


def test_a_slate_that_cannot_be_filled_is_empty_and_the_decision_stands(
    shop: InProcess, partner: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.recommenders.LARGEST_SCORE", 1e308)
    partner.rank(("card", 1e300))
    answer = shop.decide("visitor", "product", context=VIEWING)
    found = answer["slates"]["accessories"]
    assert answer["logged"]
    assert found["items"] == []
    assert "could not be filled: " in found["shortfall"]
    assert [f["slate"] for e, f in shop.journal.entries if e == "unfilled"] == ["accessories"]
    decided = f"/v1/decisions/{answer['decision_id']}"
    assert shop.get(decided).json()["slates"]["accessories"]["shortfall"] == found["shortfall"]
    assert shop.post(f"{decided}/replay").json()["identical"]
