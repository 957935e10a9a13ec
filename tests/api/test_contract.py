"""Every route answers what the contract says, in this shape and no other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from api.limits import LARGEST_BODY_BYTES
from engine.store import Store
from engine.store import read as ask
from tests.api.running import PROBLEM, InProcess, broken, busy, counts
from tests.api.workspaces import write_quick_workspace

ANSWER = {
    "decision_id", "surface", "unit", "decided_at", "revision", "config", "choices", "assignments",
    "slates", "contacts", "suppressed", "fallback", "logged",
}  # fmt: skip
CHOICE = {"slot", "action", "propensity", "reason", "policy", "snapshot"}
OUTCOME = {"metric": "watch", "value": 1.5}
SOON = 50
"""Milliseconds in which no commit can end while the test holds the database."""


def held_out(answer: dict[str, Any]) -> bool:
    return any(a["kind"] == "holdout" for a in answer["assignments"])


def in_control(answer: dict[str, Any]) -> bool:
    return any(a["variant"] == "control" for a in answer["assignments"])


def reason(answer: dict[str, Any], slot: str) -> str:
    found: str = next(c["reason"] for c in answer["choices"] if c["slot"] == slot)
    return found


# Deciding -----------------------------------------------------------------------------------------


def test_a_decision_has_exactly_the_keys_of_the_contract(served: InProcess) -> None:
    answer = served.decide("shape", context={"weeks": 3, "device": "web"}, trigger="session_start")
    assert answer.keys() == ANSWER
    assert UUID(answer["decision_id"]).version == 7
    assert (answer["surface"], answer["unit"], answer["logged"]) == ("home", "u:shape", True)
    assert datetime.fromisoformat(answer["decided_at"]).tzinfo == UTC
    assert answer["revision"] == served.engine.workspace.revision
    assert answer["config"].keys() == {"layout", "hero"}
    assert [c["slot"] for c in answer["choices"]] == ["hero", "layout"]
    for choice in answer["choices"]:
        assert choice.keys() == CHOICE
        assert 0 < choice["propensity"] <= 1
    assert (answer["slates"], answer["contacts"], answer["suppressed"]) == ({}, [], [])
    assert answer["fallback"] is None


def test_an_assignment_has_exactly_the_keys_of_the_contract(served: InProcess) -> None:
    answer = served.decide_where(in_control)
    assert answer["assignments"] == [
        {
            "kind": "experiment",
            "id": "layout_test",
            "variant": "control",
            "probability": pytest.approx(0.95 * 0.5 * 0.9 * 0.5),
        }
    ]
    assert reason(answer, "layout") == "experiment"


def test_the_held_out_get_the_defaults(served: InProcess) -> None:
    answer = served.decide_where(held_out)
    assert [a["kind"] for a in answer["assignments"]] == ["holdout"]
    assert {c["action"] for c in answer["choices"]} == {"flat", "plain"}
    assert {c["propensity"] for c in answer["choices"]} == {1.0}
    assert {c["reason"] for c in answer["choices"]} == {"holdout"}


def test_a_missing_required_attribute_falls_back_and_says_why(served: InProcess) -> None:
    answer = served.decide_where(lambda a: not held_out(a), "nudge")
    assert answer["fallback"] == "required attribute consent is missing"
    assert reason(answer, "channel") == "fallback"
    assert answer["logged"] is True


def test_only_the_slots_asked_for_are_decided(served: InProcess) -> None:
    answer = served.decide("one-slot", slots=["hero"])
    assert answer["config"].keys() == {"hero"}
    assert len(answer["choices"]) == 1


def test_an_anonymous_id_alone_is_the_unit(served: InProcess) -> None:
    response = served.post("/v1/decide", {"surface": "home", "anonymous_id": "c1"})
    assert response.json()["unit"] == "a:c1"


def test_the_same_request_id_gives_the_same_answer(served: InProcess) -> None:
    body = {"surface": "home", "user_id": "again", "request_id": "again-1"}
    first, second = (served.post("/v1/decide", body) for _ in range(2))
    assert first.content == second.content
    assert Store(served.database).read(lambda c: ask.by_request(c, "again-1")) is not None


def test_the_same_request_id_at_once_is_one_decision(served: InProcess) -> None:
    body = {"surface": "home", "user_id": "at-once", "request_id": "at-once-1"}
    before = counts(served.database)["decisions"]

    async def together() -> set[bytes]:
        posts = (served.http.post("/v1/decide", json=body) for _ in range(20))
        return {response.content for response in await asyncio.gather(*posts)}

    assert len(served.run(together)) == 1
    assert counts(served.database)["decisions"] == before + 1


@pytest.mark.parametrize(
    "changed", [{"user_id": "other"}, {"slots": ["hero"]}, {"context": {"weeks": 2}}]
)
def test_a_request_id_reused_with_other_content_is_a_conflict(
    served: InProcess, changed: dict[str, Any]
) -> None:
    body = {"surface": "home", "user_id": "conflict", "request_id": "conflict-1"}
    served.post("/v1/decide", body)
    before = counts(served.database)
    response = served.post("/v1/decide", body | changed)
    assert response.status_code == 409
    assert response.json()["errors"][0]["field"] == "request_id"
    assert counts(served.database) == before


def test_a_sticky_draw_is_kept_through_its_period(served: InProcess) -> None:
    drawn = {
        served.decide("sticky", "nudge", context={"consent": True})["choices"][0]["action"]
        for _ in range(8)
    }
    assert len(drawn) == 1


def test_a_peek_logs_nothing_and_has_no_id(served: InProcess) -> None:
    before = counts(served.database)
    for surface in ("home", "nudge"):
        answer = served.decide("peek", surface, mode="peek", request_id="peek-1")
        assert answer.keys() == ANSWER
        assert (answer["decision_id"], answer["logged"]) == (None, False)
    assert counts(served.database) == before


# Deadlines and a failing log ----------------------------------------------------------------------


def defaults(answer: dict[str, Any], why: str) -> bool:
    """Whether an answer is the declared defaults, marked as such."""
    assert (answer["decision_id"], answer["logged"]) == (None, False)
    assert answer["fallback"] == why
    assert {c["reason"] for c in answer["choices"]} == {"fallback"}
    return {c["slot"]: c["action"] for c in answer["choices"]} == {
        "layout": "flat",
        "hero": "plain",
    }


def test_past_its_deadline_a_decision_on_its_way_is_answered_with_defaults_and_voided(
    served: InProcess,
) -> None:
    before = counts(served.database)
    with busy(served.database):
        answer = served.decide("late", deadline_ms=SOON, request_id="late-1")
    assert defaults(answer, "deadline")
    served.decide("after-late")
    after = counts(served.database)
    assert after["decisions"] == before["decisions"] + 2
    assert after["voids"] == before["voids"] + 1


def test_past_its_deadline_a_decision_still_queued_is_withdrawn(served: InProcess) -> None:
    before = counts(served.database)

    async def behind_another() -> tuple[dict[str, Any], asyncio.Task[Any]]:
        body: dict[str, Any] = {"surface": "home", "user_id": "ahead"}
        ahead = asyncio.create_task(served.http.post("/v1/decide", json=body))
        queued = taken = False
        while not taken:
            taken = queued and not served.engine.status().waiting
            queued = queued or bool(served.engine.status().waiting)
            await asyncio.sleep(0)
        body = {"surface": "home", "user_id": "queued", "deadline_ms": SOON}
        return (await served.http.post("/v1/decide", json=body)).json(), ahead

    with busy(served.database):
        answer, ahead = served.run(behind_another)
    assert defaults(answer, "deadline")
    assert served.run(lambda: ahead).json()["logged"] is True
    after = counts(served.database)
    assert after["decisions"] == before["decisions"] + 1
    assert after["voids"] == before["voids"]


def test_a_voided_decision_asked_for_again_is_still_its_defaults(served: InProcess) -> None:
    """What was answered once stays the answer; a decision that says otherwise would be used."""
    with busy(served.database):
        first = served.decide("void", deadline_ms=SOON, request_id="void-1")
    again = served.decide("void", request_id="void-1")
    assert again == first


def test_a_failing_log_answers_defaults_and_is_not_ready(served: InProcess) -> None:
    with broken(served.database, "decisions", "activations", "outcomes"):
        assert defaults(served.decide("failing"), "the log is unavailable")
        ready = served.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not storing")
        assert served.get("/healthz").status_code == 200
        assert "unlogged" in [event for event, _ in served.journal.entries]
        lost = served.post("/v1/outcomes", {"outcome_id": "lost", "user_id": "u", **OUTCOME})
        assert lost.status_code == 503
        assert lost.headers["content-type"] == PROBLEM
        assert lost.headers["retry-after"].isdigit()
    assert served.decide("failing")["logged"] is True
    assert served.get("/readyz").status_code == 200


def test_a_decision_that_cannot_be_read_again_is_a_problem_and_the_log_says_why(
    served: InProcess,
) -> None:
    served.decide("unreadable", request_id="unreadable-1")
    body = {"surface": "home", "user_id": "unreadable", "request_id": "unreadable-1"}
    with broken(served.database, "voids"):
        served.journal.entries.clear()
        response = served.post("/v1/decide", body)
    assert response.status_code == 503
    assert response.headers["content-type"] == PROBLEM
    assert response.headers["retry-after"].isdigit()
    ((event, told),) = served.journal.entries
    assert (event, told["error"]) == ("failed", "StoreError")
    assert "voids" in told["message"]
    assert "unreadable" not in str(told)


def test_deciding_documents_every_status_it_answers_with(served: InProcess) -> None:
    document = served.get("/openapi.json").json()
    responses = document["paths"]["/v1/decide"]["post"]["responses"]
    statuses = {"200", "400", "404", "408", "409", "413", "431", "500", "503"}
    assert responses.keys() == statuses


def test_a_log_that_works_again_is_ready_before_anybody_decides(served: InProcess) -> None:
    """A balancer sends nothing to what is not ready: readiness may not wait for a request."""
    with broken(served.database, "decisions", "activations"):
        served.decide("unready")
        assert served.get("/readyz").status_code == 503
    assert served.get("/readyz").status_code == 200


def test_a_log_that_cannot_be_read_answers_defaults_where_draws_are_sticky(
    served: InProcess,
) -> None:
    with broken(served.database, "sticky_draws"):
        answer = served.decide("unread", "nudge", context={"consent": True})
    assert (answer["logged"], answer["fallback"]) == (False, "the log is unavailable")
    assert answer["config"] == {"channel": None}


# What follows a decision --------------------------------------------------------------------------


def test_exposures_are_counted_once_a_slot(served: InProcess) -> None:
    id_ = served.decide("exposed")["decision_id"]
    body = {"decision_id": id_, "slots": ["hero"], "occurred_at": "2026-03-04T20:47:00+01:00"}
    body["occurred_at"] = datetime.now(UTC).isoformat()
    first = served.post("/v1/exposures", body)
    assert first.json() == {"accepted": 1, "duplicates": 0, "unmatched": 0}
    rest = served.post("/v1/exposures", {"decision_id": id_})
    assert rest.json() == {"accepted": 1, "duplicates": 1, "unmatched": 0}


def test_an_exposure_of_an_unknown_decision_is_not_found(served: InProcess) -> None:
    response = served.post("/v1/exposures", {"decision_id": "nobody"})
    assert response.status_code == 404
    assert response.json()["errors"][0]["field"] == "decision_id"


def test_outcomes_are_counted_as_accepted_duplicate_and_unmatched(served: InProcess) -> None:
    id_ = served.decide("followed")["decision_id"]
    at = datetime.now(UTC).isoformat()
    one = {"outcome_id": "o-1", "decision_id": id_, "occurred_at": at, **OUTCOME}
    early = {"outcome_id": "o-2", "decision_id": "not-yet", "occurred_at": at, **OUTCOME}
    by_unit = {"outcome_id": "o-3", "user_id": "followed", "occurred_at": at, **OUTCOME}
    first = served.post("/v1/outcomes", one)
    assert first.json() == {"accepted": 1, "duplicates": 0, "unmatched": 0}
    rest = served.post("/v1/outcomes", [one, early, by_unit])
    assert rest.json() == {"accepted": 2, "duplicates": 1, "unmatched": 1}


def test_an_outcome_without_a_time_sent_again_is_a_duplicate(served: InProcess) -> None:
    """What was sent is the same; that the server's clock went on is none of the sender's doing."""
    body = {"outcome_id": "untimed-1", "user_id": "untimed", **OUTCOME}
    assert served.post("/v1/outcomes", body).json()["accepted"] == 1
    assert served.post("/v1/outcomes", body).json()["duplicates"] == 1


def test_an_outcome_id_with_other_content_is_a_conflict_and_nothing_is_stored(
    served: InProcess,
) -> None:
    body = {"outcome_id": "reused-1", "user_id": "reused", **OUTCOME}
    served.post("/v1/outcomes", body)
    before = counts(served.database)
    fresh = {"outcome_id": "reused-2", "user_id": "reused", **OUTCOME}
    response = served.post("/v1/outcomes", [fresh, body | {"value": 2.0}])
    assert response.status_code == 409
    assert response.json()["errors"][0]["field"] == "[1].outcome_id"
    assert counts(served.database) == before


# Looking back -------------------------------------------------------------------------------------


def test_explaining_tells_each_rule_clause_by_clause(served: InProcess) -> None:
    id_ = served.decide("why", context={"weeks": 3, "device": "phone"})["decision_id"]
    document = served.get(f"/v1/decisions/{id_}").json()
    assert document["record_version"] == 1
    assert document["identity"] == {
        "user_id": "why", "anonymous_id": None, "unit": "u:why", "version": 0, "stitches": [],
    }  # fmt: skip
    assert document["context"] == {"device": "phone", "weeks": 3}
    assert document["unknown"]["churn_risk"] == "missing"
    layout = next(c for c in document["choices"] if c["slot"] == "layout")
    assert layout["candidates"] == ["B", "compact", "flat"]
    assert layout["eligible"] == ["compact", "flat"]
    history, phones = layout["rules"]
    assert history["verdict"] == "true"
    assert history["removed"] == []
    assert [c["verdict"] for c in history["clauses"]] == ["true", "true"]
    assert phones["by_action"]["B"]["verdict"] == "true"
    assert phones["removed"] == ["B"]


def test_an_unknown_attribute_opens_no_gate_and_the_record_says_unknown(served: InProcess) -> None:
    id_ = served.decide("blank")["decision_id"]
    document = served.get(f"/v1/decisions/{id_}").json()
    layout = next(c for c in document["choices"] if c["slot"] == "layout")
    assert layout["rules"][0]["verdict"] == "unknown"
    assert layout["rules"][0]["removed"] == ["B"]


def test_explaining_shows_exposures_and_outcomes(served: InProcess) -> None:
    id_ = served.decide("shown")["decision_id"]
    served.post("/v1/exposures", {"decision_id": id_})
    served.post("/v1/outcomes", {"outcome_id": "shown-1", "decision_id": id_, **OUTCOME})
    document = served.get(f"/v1/decisions/{id_}").json()
    assert [e["slot"] for e in document["exposures"]] == ["hero", "layout"]
    outcome = document["outcomes"][0]
    assert outcome | {"occurred_at": "", "received_at": ""} == {
        "outcome_id": "shown-1", "metric": "watch", "value": 1.5, "by": "decision",
        "corrects": None, "item_id": None, "late": False, "occurred_at": "", "received_at": "",
    }  # fmt: skip


@pytest.mark.parametrize("surface", ["home", "nudge", "triggered"])
def test_a_replay_is_identical(served: InProcess, surface: str) -> None:
    more: dict[str, Any] = {"home": {"trigger": "session_start"}, "triggered": {"trigger": "open"}}
    context = {"weeks": 2, "genres": ["noir"], "joined": "2026-01-01T00:00:00Z", "consent": True}
    for _ in range(2):
        answer = served.decide("replayed", surface, context=context, **more.get(surface, {}))
        replay = served.post(f"/v1/decisions/{answer['decision_id']}/replay")
        assert replay.json() == {
            "decision_id": answer["decision_id"],
            "identical": True,
            "differences": [],
            "largest_difference": 0.0,
        }


@pytest.mark.parametrize("depth", [10, 200, 600, 800, 850, 900, 950, 1_000, 5_000])
def test_no_depth_of_nesting_fails_the_engine(served: InProcess, depth: int) -> None:
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    body = (
        b'{"surface": "home", "user_id": "nested", "request_id": "nested-%d", "context": {"x": %s}}'
    )
    response = served.request("POST", "/v1/decide", content=body % (depth, nested))
    assert response.status_code == (200 if depth <= 600 else response.status_code)
    assert response.status_code in {200, 400}


@pytest.mark.parametrize("depth", [10, 600, 900, 950, 1_000, 5_000])
def test_no_depth_of_nesting_in_an_outcome_fails_the_engine(served: InProcess, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    body = (
        b'{"outcome_id": "deep", "user_id": "u", "metric": "watch", "value": 1, "occurred_at": %s}'
    )
    for content in (body % nested, b"[%s]" % (body % nested), nested):
        response = served.request("POST", "/v1/outcomes", content=content)
        assert response.status_code == 400


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("POST", "/replay")])
@pytest.mark.parametrize("id_", ["nobody", "%00", "%ff", "a%20b", "'; drop table decisions"])
def test_an_unknown_decision_is_not_found(
    served: InProcess, method: str, tail: str, id_: str
) -> None:
    response = served.request(method, f"/v1/decisions/{id_}{tail}")
    assert response.status_code == 404
    assert response.headers["content-type"] == PROBLEM
    assert response.json()["errors"][0]["field"] == "decision_id"


# Reports ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """An application with forty decisions that matured at once, and an outcome of each."""
    folder = tmp_path_factory.mktemp("quick")
    workspace = write_quick_workspace(folder / "workspace")
    with InProcess(workspace, f"sqlite:///{folder}/log.db") as application:
        for number in range(40):
            answer = application.decide(f"u{number}", context={"weeks": number % 5})
            outcome = {"outcome_id": f"o{number}", "metric": "watch", "value": number % 3}
            body = outcome | {"decision_id": answer["decision_id"]}
            assert application.post("/v1/outcomes", body).json()["accepted"] == 1
        application.run(lambda: asyncio.sleep(0.06))
        yield application


def test_lift_is_answered_as_json(quick: InProcess) -> None:
    asked = {"experiment": "quick_test", "metric": "watch", "horizon": "fixed"}
    response = quick.get("/v1/lift", params=asked)
    report = response.json()
    assert response.status_code == 200, report
    assert report["srm"].keys() == {"p_value", "verdict"}
    (row,) = report["results"]
    assert row.keys() == {
        "metric", "variant", "baseline", "n", "mean", "baseline_mean", "difference", "low", "high",
        "relative", "relative_low", "relative_high", "p_value", "interval", "verdict",
        "always_valid", "adjustment", "p_adjusted", "chance_to_win", "advice", "population",
    }  # fmt: skip
    assert (row["metric"], row["variant"], row["baseline"]) == ("watch", "b", "control")
    assert row["low"] < row["difference"] < row["high"]


def test_off_policy_values_are_answered_as_json(quick: InProcess) -> None:
    params = {"surface": "home", "slot": "layout", "against": "logging"}
    response = quick.get("/v1/ope", params=[*params.items(), ("target", "B"), ("target", "flat")])
    report = response.json()
    assert response.status_code == 200, report
    assert {row["target"] for row in report["results"]} == {"B", "flat"}
    for row in report["results"]:
        assert row.keys() == {
            "target", "estimator", "value", "se", "low", "high", "interval", "n", "n_units",
            "hyperparameter", "note",
        }  # fmt: skip
    for row in report["comparisons"]:
        assert row.keys() == {
            "target", "against", "estimator", "difference", "se", "low", "high", "interval",
            "p_value", "p_adjusted", "low_adjusted", "high_adjusted", "correction", "verdict",
            "advice",
        }  # fmt: skip
    assert report["diagnostics"].keys() == {"B", "flat"}
    for diagnostics in report["diagnostics"].values():
        assert diagnostics.keys() >= {
            "ess", "max_weight_share", "mean_weight", "mean_weight_p", "verdict", "reason",
        }  # fmt: skip


def test_a_report_on_what_is_not_declared_is_not_found(served: InProcess) -> None:
    for path, params, field in (
        ("/v1/lift", {"experiment": "nothing"}, "experiment"),
        ("/v1/ope", {"surface": "home", "slot": "nothing", "target": "flat"}, "slot"),
    ):
        response = served.get(path, params=params)
        assert response.status_code == 404
        assert response.json()["errors"][0]["field"] == field


# Operations ---------------------------------------------------------------------------------------


def test_health_and_readiness(served: InProcess) -> None:
    assert served.get("/healthz").json() == {"status": "ok"}
    ready = served.get("/readyz")
    assert ready.status_code == 200
    assert ready.json().keys() == {
        "status", "revision", "snapshots", "reload_fault", "learning_fault",
    }  # fmt: skip
    assert ready.json()["snapshots"].keys() == {"layout:home.layout"}


def test_metrics_tell_outcomes_by_what_became_of_them(served: InProcess) -> None:
    def told() -> dict[str, float]:
        pattern = r"^(evenhand_outcomes_total|evenhand_request_seconds_count)(\{.*\}) (\S+)$"
        found = re.findall(pattern, served.get("/metrics").text, re.MULTILINE)
        return {labels: float(value) for _, labels, value in found}

    before = told()
    subject = {"decision_id": "not-yet", **OUTCOME}
    one = {"outcome_id": "counted-1", **subject}
    served.post("/v1/outcomes", [one, {"outcome_id": "counted-2", **subject}, one])
    served.post("/v1/exposures", {})
    after = told()
    more = {
        '{result="accepted"}': 2,
        '{result="duplicate"}': 1,
        '{result="unmatched"}': 2,
        '{route="/v1/outcomes",status="200"}': 1,
        '{route="/v1/exposures",status="400"}': 1,
    }
    assert {name: after[name] - before.get(name, 0) for name in more} == more


def test_metrics_name_routes_and_no_person(served: InProcess) -> None:
    id_ = served.decide("somebody-private")["decision_id"]
    served.get(f"/v1/decisions/{id_}")
    text = served.get("/metrics").text
    assert re.search(r'evenhand_request_seconds_count\{route="/v1/decide",status="200"\} \d', text)
    assert 'route="/v1/decisions/{decision_id}"' in text
    assert "evenhand_choices_total{" in text
    assert 'evenhand_healthy{part="storing"} 1.0' in text
    assert "private" not in text
    assert id_ not in text


def test_a_peek_that_falls_back_is_no_unlogged_decision(served: InProcess) -> None:
    def unlogged() -> list[str]:
        return re.findall(
            r'^evenhand_unlogged_decisions_total\{surface="nudge"\} .*$',
            served.get("/metrics").text,
            re.MULTILINE,
        )

    before = unlogged()
    assert served.decide("peeking", "nudge", mode="peek")["fallback"]
    assert unlogged() == before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("POST", "/v1/decide/", 404),
        ("GET", "/v1/decide", 405),
        ("DELETE", "/v1/outcomes", 405),
        ("PUT", "/v1/exposures", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_what_is_no_route_is_a_problem(
    served: InProcess, method: str, path: str, status: int
) -> None:
    response = served.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == PROBLEM
    assert response.json()["status"] == status
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/v1/decide", "/v1/outcomes", "/v1/exposures"])
def test_a_body_too_large_is_refused_declared_or_not(served: InProcess, path: str) -> None:
    async def in_parts() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100_000

    before = counts(served.database)
    declared = served.request("POST", path, content=b" " * (LARGEST_BODY_BYTES + 1))
    undeclared = served.request("POST", path, content=in_parts())
    for response in (declared, undeclared):
        assert response.status_code == 413
        assert response.headers["content-type"] == PROBLEM
        assert "1,000,000 bytes" in response.json()["detail"]
    assert counts(served.database) == before


def test_a_body_without_a_declared_length_is_read(served: InProcess) -> None:
    async def in_parts() -> AsyncIterator[bytes]:
        yield b'{"surface": "home", '
        yield b'"user_id": "in-parts"}'

    response = served.request("POST", "/v1/decide", content=in_parts())
    assert response.json()["unit"] == "u:in-parts"


# Learning -----------------------------------------------------------------------------------------


def test_matured_outcomes_are_learned_once_and_the_snapshot_served(quick: InProcess) -> None:
    before = quick.get("/readyz").json()["snapshots"]["layout:home.layout"]
    assert quick.run(quick.engine.learn_once) == 1
    assert quick.run(quick.engine.learn_once) == 0
    after = quick.get("/readyz").json()["snapshots"]["layout:home.layout"]
    assert before != after
    answer = quick.decide_where(lambda a: a["assignments"] == [])
    assert answer["choices"][0]["snapshot"] == after
    replay = quick.post(f"/v1/decisions/{answer['decision_id']}/replay")
    assert replay.json()["identical"]


def test_a_report_on_a_log_that_cannot_be_read_says_so(quick: InProcess) -> None:
    with broken(quick.database, "assignments"):
        response = quick.get("/v1/lift", params={"experiment": "quick_test"})
    assert response.status_code == 503
