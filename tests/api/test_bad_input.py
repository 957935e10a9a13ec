"""A request that cannot be answered gets a problem that names the field, and leaves no trace."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.running import PROBLEM, InProcess, counts

DECIDE = "/v1/decide"
OUTCOMES = "/v1/outcomes"
EXPOSURES = "/v1/exposures"
LONG = "x" * 10_000
NUMBER = "context.churn_risk"
DEEP = b"[" * 100_000 + b"]" * 100_000
STORED = "stored-decision"
REUSED = "reused-outcome"


@dataclass(frozen=True, slots=True)
class Bad:
    """A bad request: its body as JSON data or as bytes, and what must be said of it."""

    id: str
    path: str
    body: Any = None
    field: str = ""
    says: str = ""
    status: int = 400
    method: str = "POST"


def asked(**changed: Any) -> dict[str, Any]:
    """A sound request for a decision, changed."""
    return {"surface": "home", "user_id": "u1"} | changed


def said(**changed: Any) -> dict[str, Any]:
    """A sound outcome, changed."""
    sound = {"outcome_id": "o1", "user_id": "u1", "metric": "watch", "value": 1.0}
    return sound | changed


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


def ago(**of_time: float) -> str:
    return (datetime.now(UTC) - timedelta(**of_time)).isoformat()


def context(**values: Any) -> dict[str, Any]:
    return asked(context=values)


def raw(body: dict[str, Any], name: str, value: bytes) -> bytes:
    """The body as JSON with a value that no JSON library would write."""
    return json.dumps(body | {name: "@"}).encode().replace(b'"@"', value)


NOT_JSON = [
    Bad(f"{name}-{path.rsplit('/', 1)[1]}", path, body)
    for path in (DECIDE, OUTCOMES, EXPOSURES)
    for name, body in (
        ("empty", b""),
        ("truncated", b'{"surface": "ho'),
        ("trailing", b'{"surface": "home", "user_id": "u1"} {}'),
        ("text", b"surface=home&user_id=u1"),
        ("invalid-utf8", b'{"surface": "\xff\xfe"}'),
        ("deep", DEEP),
        ("deep-inside", b'{"context": {"device": ' + DEEP + b"}}"),
        ("half-a-number", b'{"deadline_ms": 1e}'),
    )
]

SCALARS: tuple[Any, ...] = (None, 7, "text", [], True)
NOT_AN_OBJECT = [
    Bad(f"{type(body).__name__}-{path.rsplit('/', 1)[1]}", path, body, "", "give an object")
    for path in (DECIDE, EXPOSURES)
    for body in SCALARS
]

DECISIONS = [
    Bad("no-surface", DECIDE, {"user_id": "u1"}, "surface", "missing"),
    Bad("no-id", DECIDE, {"surface": "home"}, "user_id", "give at least one"),
    Bad("null-surface", DECIDE, asked(surface=None), "surface", "is None; give a string"),
    Bad("number-as-id", DECIDE, asked(user_id=7), "user_id", "is 7; give a string"),
    Bad("list-as-id", DECIDE, asked(user_id=["u1"]), "user_id", "is ['u1']; give a string"),
    Bad("long-list-as-id", DECIDE, asked(user_id=[LONG]), "user_id", "…; give a string"),
    Bad("unknown-field", DECIDE, asked(usr="u1"), "usr", 'unknown; did you mean "user_id"?'),
    Bad("far-off-field", DECIDE, asked(zzz=1), "zzz", 'known: "anonymous_id", "context"'),
    Bad("long-field", DECIDE, asked() | {LONG: 1}, LONG[:63] + "…", "unknown"),
    Bad("field-with-a-backtick", DECIDE, asked() | {"a`b": 1}, "a`b", "unknown"),
    Bad("unknown-surface", DECIDE, asked(surface="away"), "surface", '"home"', 404),
    Bad("empty-surface", DECIDE, asked(surface=""), "surface", "", 404),
    Bad("long-surface", DECIDE, asked(surface=LONG), "surface", "…", 404),
    Bad("unknown-trigger", DECIDE, asked(trigger="yawn"), "trigger", '"session_start"'),
    Bad("no-trigger", DECIDE, asked(surface="triggered"), "trigger", '"open"'),
    Bad("empty-id", DECIDE, asked(user_id=""), "user_id", "empty"),
    Bad("empty-anonymous-id", DECIDE, asked(anonymous_id=""), "anonymous_id", "empty"),
    Bad("empty-request-id", DECIDE, asked(request_id=""), "request_id", "empty"),
    Bad("long-id", DECIDE, asked(user_id=LONG), "user_id", "10,000 characters"),
    Bad("long-request-id", DECIDE, asked(request_id=LONG), "request_id", "at most 256"),
    Bad("null-character", DECIDE, asked(user_id="u\x00"), "user_id", "control"),
    Bad("newline", DECIDE, asked(anonymous_id="u\n1"), "anonymous_id", "control"),
    Bad("override", DECIDE, asked(user_id="u\u202e1"), "user_id", "control"),
    Bad("half-surrogate", DECIDE, raw(asked(), "user_id", rb'"\ud800"'), "user_id", "'\\ud800'"),
    Bad("half-in-slots", DECIDE, raw(asked(), "slots", rb'["hero", "\udfff"]'), "slots[1]", "half"),
    Bad("half-inside", DECIDE, raw(asked(), "context", rb'{"a": {"b": "\ud800"}}'), "context.a.b"),
    Bad("half-as-name", DECIDE, raw(asked(), "context", rb'{"\ud800": 1}'), "context", "half"),
    Bad("utf16", DECIDE, json.dumps({"surface": "home"}).encode("utf-16")),
    Bad("slots-as-text", DECIDE, asked(slots="hero"), "slots", "is 'hero'; give a list"),
    Bad("no-slots", DECIDE, asked(slots=[]), "slots", "empty"),
    Bad("slot-twice", DECIDE, asked(slots=["hero", "hero"]), "slots", "twice"),
    Bad("unknown-slot", DECIDE, asked(slots=["hero", "foot"]), "slots[1]", '"layout"'),
    Bad("number-as-slot", DECIDE, asked(slots=["hero", 1]), "slots[1]", "is 1; give a string"),
    Bad("deadline-zero", DECIDE, asked(deadline_ms=0), "deadline_ms", "1 to 60,000"),
    Bad("deadline-negative", DECIDE, asked(deadline_ms=-5), "deadline_ms", "is -5"),
    Bad("deadline-huge", DECIDE, asked(deadline_ms=10**9), "deadline_ms", "60,000"),
    Bad("deadline-enormous", DECIDE, asked(deadline_ms=10**30), "deadline_ms"),
    Bad("deadline-text", DECIDE, asked(deadline_ms="10"), "deadline_ms", "is '10'; give an"),
    Bad(
        "deadline-true", DECIDE, asked(deadline_ms=True), "deadline_ms", "is True; give an integer"
    ),
    Bad("deadline-half", DECIDE, asked(deadline_ms=1.5), "deadline_ms", "is 1.5; give an integer"),
    Bad("deadline-infinite", DECIDE, raw(asked(), "deadline_ms", b"1e999"), "deadline_ms", "1e999"),
    Bad("deadline-endless", DECIDE, raw(asked(), "deadline_ms", b"1" * 5_000), "deadline_ms", "…"),
    Bad(
        "unknown-mode",
        DECIDE,
        asked(mode="guess"),
        "mode",
        """is 'guess'; give "decide" or "peek\"""",
    ),
    Bad("number-as-mode", DECIDE, asked(mode=5), "mode", 'is 5; give "decide" or "peek"'),
    Bad("null-mode", DECIDE, asked(mode=None), "mode", 'is None; give "decide" or "peek"'),
    Bad("context-as-list", DECIDE, asked(context=[1]), "context", "is [1]; give an object"),
    Bad("context-too-deep", DECIDE, raw(asked(), "context", b"[" * 900 + b"]" * 900), "context"),
    Bad("context-too-large", DECIDE, asked(context={f"a{i}": 1 for i in range(501)}), "context"),
    Bad("number-for-string", DECIDE, context(device=7), "context.device", "give a string"),
    Bad("text-for-integer", DECIDE, context(weeks="3"), "context.weeks", "give an integer"),
    Bad("half-for-integer", DECIDE, context(weeks=1.5), "context.weeks", "is 1.5"),
    Bad("true-for-integer", DECIDE, context(weeks=True), "context.weeks", "is True"),
    Bad("integer-too-large", DECIDE, context(weeks=2**60), "context.weeks", "2^53"),
    Bad("true-for-number", DECIDE, context(churn_risk=True), "context.churn_risk"),
    Bad("nan", DECIDE, raw(asked(), "context", b'{"churn_risk": NaN}'), NUMBER, "is NaN; give"),
    Bad("infinity", DECIDE, raw(asked(), "context", b'{"churn_risk": -Infinity}'), NUMBER, "-Inf"),
    Bad("overflow", DECIDE, raw(asked(), "context", b'{"churn_risk": 1e999}'), NUMBER, "1e999"),
    Bad(
        "nan-in-a-list", DECIDE, raw(asked(), "context", b'{"a": [1, [2, NaN]]}'), "context.a[1][1]"
    ),
    Bad("number-for-boolean", DECIDE, context(consent=1), "context.consent", "true or false"),
    Bad("no-zone", DECIDE, context(joined="2026-01-01T00:00:00"), "context.joined", "with zone"),
    Bad("date", DECIDE, context(joined="2026-01-01"), "context.joined", "RFC 3339"),
    Bad("no-time", DECIDE, context(joined="yesterday"), "context.joined", "'yesterday'"),
    Bad("number-for-time", DECIDE, context(joined=1_767_225_600), "context.joined"),
    Bad("text-for-list", DECIDE, context(genres="noir"), "context.genres", "a list"),
    Bad("numbers-in-list", DECIDE, context(genres=["noir", 1]), "context.genres"),
    Bad("list-too-long", DECIDE, context(genres=["g"] * 1_001), "context.genres", "1,000"),
    Bad("string-too-long", DECIDE, context(device=LONG), "context.device", "1,000 characters"),
    Bad("object", DECIDE, context(device={"v": "tv"}), "context.device", "bare value"),
    Bad(
        "of-the-future",
        DECIDE,
        context(weeks={"value": 1, "at": ago(days=-2)}),
        "context.weeks.at",
        "future",
    ),
    Bad(
        "observed-without-zone",
        DECIDE,
        context(weeks={"value": 1, "at": "2026-01-01T00:00:00"}),
        "context.weeks.at",
        "with zone",
    ),
    Bad(
        "reused-request",
        DECIDE,
        asked(request_id=STORED, user_id="another"),
        "request_id",
        "other content",
        409,
    ),
]

OUTCOME = [
    Bad("outcome-null", OUTCOMES, None, "", "is None; give an object or a list"),
    Bad("outcome-number", OUTCOMES, 7, "", "is 7; give an object or a list"),
    Bad("outcome-text", OUTCOMES, "text"),
    Bad("no-outcomes", OUTCOMES, [], "", "at least one"),
    Bad("list-of-lists", OUTCOMES, [[]], "[0]"),
    Bad("too-many", OUTCOMES, [said(outcome_id=f"o{i}") for i in range(1_001)], "", "1000"),
    Bad("no-outcome-id", OUTCOMES, without(said(), "outcome_id"), "outcome_id", "missing"),
    Bad("no-metric", OUTCOMES, without(said(), "metric"), "metric", "missing"),
    Bad("no-value", OUTCOMES, without(said(), "value"), "value", "missing"),
    Bad("nobody", OUTCOMES, without(said(), "user_id"), "decision_id", "exactly one"),
    Bad("two-subjects", OUTCOMES, said(decision_id="d"), "decision_id", "exactly one"),
    Bad("unknown-key", OUTCOMES, said(vaule=1), "vaule", 'did you mean "value"?'),
    Bad("unknown-metric", OUTCOMES, said(metric="joy"), "metric", "cancel, visit, watch"),
    Bad("empty-metric", OUTCOMES, said(metric=""), "metric"),
    Bad("long-metric", OUTCOMES, said(metric=LONG), "metric"),
    Bad("empty-outcome-id", OUTCOMES, said(outcome_id=""), "outcome_id"),
    Bad("long-outcome-id", OUTCOMES, said(outcome_id=LONG), "outcome_id"),
    Bad("control-in-outcome-id", OUTCOMES, said(outcome_id="o\x07"), "outcome_id", "control"),
    Bad("outcome-half-surrogate", OUTCOMES, raw(said(), "user_id", rb'"\udfff"'), "user_id"),
    Bad("long-user-id", OUTCOMES, said(user_id=LONG), "user_id"),
    Bad("value-text", OUTCOMES, said(value="1"), "value", "give a number"),
    Bad("value-true", OUTCOMES, said(value=True), "value", "is True"),
    Bad("value-null", OUTCOMES, said(value=None), "value"),
    Bad("value-nan", OUTCOMES, raw(said(), "value", b"NaN"), "value", "finite"),
    Bad("value-infinite", OUTCOMES, raw(said(), "value", b"Infinity"), "value", "finite"),
    Bad("value-overflow", OUTCOMES, raw(said(), "value", b"1e999"), "value", "finite"),
    Bad("value-enormous", OUTCOMES, said(value=10**400), "value"),
    Bad("value-endless", OUTCOMES, raw(said(), "value", b"1" * 5_000), "value", "…"),
    Bad("occurred-without-zone", OUTCOMES, said(occurred_at="2026-01-01T00:00:00"), "occurred_at"),
    Bad("occurred-date", OUTCOMES, said(occurred_at="2026-01-01"), "occurred_at", "RFC 3339"),
    Bad("occurred-words", OUTCOMES, said(occurred_at="just now"), "occurred_at"),
    Bad("occurred-number", OUTCOMES, said(occurred_at=1_767_225_600), "occurred_at", "RFC 3339"),
    Bad("occurred-digits", OUTCOMES, said(occurred_at="1767225600"), "occurred_at", "RFC 3339"),
    Bad("occurred-true", OUTCOMES, said(occurred_at=True), "occurred_at"),
    Bad("years-late", OUTCOMES, said(occurred_at=ago(days=900)), "occurred_at", "400 days"),
    Bad("tomorrow", OUTCOMES, said(occurred_at=ago(days=-3)), "occurred_at", "a day ahead"),
    Bad("first-day", OUTCOMES, said(occurred_at="0001-01-01T00:00:00+23:59"), "occurred_at"),
    Bad("last-day", OUTCOMES, said(occurred_at="9999-12-31T23:59:59-23:59"), "occurred_at"),
    Bad("corrects-nothing", OUTCOMES, said(corrects="nothing"), "corrects", "no stored outcome"),
    Bad("corrects-itself", OUTCOMES, said(corrects="o1"), "corrects", "no stored outcome"),
    Bad("second-of-two", OUTCOMES, [said(), said(outcome_id="o2", metric="joy")], "[1].metric"),
    Bad("second-unknown", OUTCOMES, [said(), said(vaule=1)], "[1].vaule", "unknown"),
    Bad("second-lacking", OUTCOMES, [said(), without(said(), "metric")], "[1].metric", "missing"),
    Bad("second-untimed", OUTCOMES, [said(), said(occurred_at="x")], "[1].occurred_at", "RFC 3339"),
    Bad("second-typed", OUTCOMES, [said(), said(outcome_id="o2", value="x")], "[1].value"),
    Bad("reused-outcome", OUTCOMES, said(outcome_id=REUSED), "outcome_id", "other content", 409),
    Bad(
        "reused-within",
        OUTCOMES,
        [said(), said(value=2.0)],
        "[1].outcome_id",
        "other content",
        409,
    ),
]

EXPOSURE = [
    Bad("no-decision", EXPOSURES, {}, "decision_id", "missing"),
    Bad("unknown-decision", EXPOSURES, {"decision_id": "nobody"}, "decision_id", "", 404),
    Bad("empty-decision", EXPOSURES, {"decision_id": ""}, "decision_id"),
    Bad("long-decision", EXPOSURES, {"decision_id": LONG}, "decision_id"),
    Bad("decision-control", EXPOSURES, {"decision_id": "a\tb"}, "decision_id", "control"),
    Bad("exposed-slots-text", EXPOSURES, {"decision_id": "@", "slots": "hero"}, "slots"),
    Bad("exposed-no-slots", EXPOSURES, {"decision_id": "@", "slots": []}, "slots"),
    Bad("exposed-elsewhere", EXPOSURES, {"decision_id": "@", "slots": ["foot"]}, "slots", "layout"),
    Bad("exposed-unknown-key", EXPOSURES, {"decision_id": "@", "slot": "hero"}, "slot"),
    Bad(
        "exposed-years-ago",
        EXPOSURES,
        {"decision_id": "@", "occurred_at": ago(days=900)},
        "occurred_at",
    ),
]

ELSEWHERE = [
    Bad("long-path", f"/v1/decisions/{LONG}", None, "decision_id", "", 400, "GET"),
    Bad("lift-of-nothing", "/v1/lift", None, "experiment", "missing", 400, "GET"),
    Bad("ope-of-nothing", "/v1/ope?surface=home&slot=hero", None, "target", "missing", 400, "GET"),
    Bad("lift-null", "/v1/lift?experiment=a%00b", None, "experiment", "control", 400, "GET"),
    Bad("lift-units", "/v1/lift?experiment=e&units=most", None, "units", "most", 400, "GET"),
    Bad("lift-units-back", "/v1/lift?experiment=e&units=1:0.5", None, "units", "", 400, "GET"),
    Bad(
        "ope-of-a-file",
        "/v1/ope?surface=home&slot=hero&target=plain&target=/etc/secret.csv",
        None,
        "target",
        "file",
        400,
        "GET",
    ),
    Bad(
        "ope-against-a-file",
        "/v1/ope?surface=home&slot=hero&target=plain&against=secret.parquet",
        None,
        "against",
        "file",
        400,
        "GET",
    ),
]

TABLE = [*NOT_JSON, *NOT_AN_OBJECT, *DECISIONS, *OUTCOME, *EXPOSURE, *ELSEWHERE]


@pytest.fixture(scope="module")
def seeded(served: InProcess) -> tuple[InProcess, str]:
    """The application, and a decision stored beside an outcome; their ids are in use."""
    id_ = served.decide("seed", request_id=STORED)["decision_id"]
    served.post(OUTCOMES, said(outcome_id=REUSED, value=9.0))
    return served, id_


@pytest.mark.parametrize("bad", TABLE, ids=[bad.id for bad in TABLE])
def test_it_is_refused_by_name_and_leaves_no_trace(seeded: tuple[InProcess, str], bad: Bad) -> None:
    served, id_ = seeded
    body = bad.body
    if isinstance(body, dict) and body.get("decision_id") == "@":
        body = body | {"decision_id": id_}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    before = counts(served.database)
    served.journal.entries.clear()
    response = served.request(
        bad.method, bad.path, content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == bad.status, response.text
    assert response.headers["content-type"] == PROBLEM
    problem = response.json()
    assert problem["status"] == bad.status
    assert problem["title"]
    assert problem["detail"]
    assert [error["field"] for error in problem["errors"]] == [bad.field]
    assert bad.says in problem["errors"][0]["message"]
    assert len(response.content) < 2_000
    assert counts(served.database) == before
    assert served.journal.entries == []


def test_the_table_is_long() -> None:
    assert len(TABLE) >= 60
    assert len({bad.id for bad in TABLE}) == len(TABLE)
