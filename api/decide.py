"""``POST /v1/decide``: the one route under load, decoded and encoded without a detour."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from api.faults import body_fault
from api.problems import Problem, problem
from api.telemetry import Telemetry
from engine.answer import Answer
from engine.request import LONGEST_DEADLINE_MS, LONGEST_ID, MOST_ATTRIBUTES, DecideRequest
from engine.service import Engine

PATH = "/v1/decide"


class DecideBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to decide on: a surface, at least one identifier, and what is known of the moment.

    A context value is bare, or ``{"value": …, "at": RFC 3339}`` where it was observed earlier.
    """

    surface: str
    user_id: str | None = None
    anonymous_id: str | None = None
    request_id: str | None = None
    trigger: str | None = None
    context: dict[str, Any] = {}
    slots: list[str] | None = None
    deadline_ms: int | None = None
    mode: Literal["decide", "peek"] = "decide"


_DECODER = msgspec.json.Decoder(DecideBody)
_ENCODER = msgspec.json.Encoder()


async def decide(
    engine: Engine, telemetry: Telemetry, sent: bytes, traceparent: bytes | None
) -> Response:
    """Answer one request for a decision, given its body; the engine's refusals are raised."""
    try:
        body = _DECODER.decode(sent)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        is_json = isinstance(error, msgspec.ValidationError)
        detail = "the body is not what this route takes" if is_json else "the body is not JSON"
        # Reading a large one again takes a while, in which others want decisions.
        fault = await asyncio.to_thread(body_fault, sent, DecideBody, error)
        return problem(400, detail, [fault])
    answer = await engine.decide(
        DecideRequest(
            surface=body.surface,
            user_id=body.user_id,
            anonymous_id=body.anonymous_id,
            trigger=body.trigger,
            context=body.context,
            slots=None if body.slots is None else tuple(body.slots),
            request_id=body.request_id,
            deadline_ms=body.deadline_ms,
            peek=body.mode == "peek",
            traceparent=None if traceparent is None else traceparent.decode("latin-1"),
        )
    )
    if body.mode == "decide":
        telemetry.answered(answer)
    return Response(_ENCODER.encode(answer), media_type="application/json")


def openapi() -> tuple[dict[str, Any], dict[str, Any]]:
    """The route's path item and the schemas that it refers to, for the OpenAPI document."""
    (body, answer, problem_), schemas = msgspec.json.schema_components(
        [DecideBody, Answer, Problem], ref_template="#/components/schemas/{name}"
    )
    _say_what_is_taken(schemas["DecideBody"])
    errors = {
        "400": "The body is malformed or names what the workspace does not have.",
        "404": "The surface is not declared.",
        "409": "The `request_id` was used with other content.",
        "413": "The body is too large.",
        "500": "The engine failed.",
        "503": "A repeated request was logged, but cannot be read back.",
    }
    operation = {
        "operationId": "decide",
        "tags": ["decisions"],
        "summary": "Decide on a surface",
        "description": "The decision is durable in the log before it is answered.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "The decision.",
                "content": {"application/json": {"schema": answer}},
                "links": _LINKS,
            },
            **{
                status: {
                    "description": text,
                    "content": {"application/problem+json": {"schema": problem_}},
                }
                for status, text in errors.items()
            },
        },
    }
    return {"post": operation}, schemas


_DECISION_ID = "$response.body#/decision_id"
_LINKS = {
    "explain": {
        "operationRef": "#/paths/~1v1~1decisions~1{decision_id}/get",
        "parameters": {"decision_id": _DECISION_ID},
    },
    "replay": {
        "operationRef": "#/paths/~1v1~1decisions~1{decision_id}~1replay/post",
        "parameters": {"decision_id": _DECISION_ID},
    },
    "expose": {
        "operationRef": "#/paths/~1v1~1exposures/post",
        "requestBody": {"decision_id": _DECISION_ID},
    },
}


def _say_what_is_taken(body: dict[str, Any]) -> None:
    """Add to the body's schema what the engine asks of it beside its types."""
    known = body["properties"]
    for name in ("user_id", "anonymous_id", "request_id"):
        known[name]["anyOf"][0] |= {
            "minLength": 1,
            "maxLength": LONGEST_ID,
            "description": "Printable characters.",
        }
    known["deadline_ms"]["anyOf"][0] |= {"minimum": 1, "maximum": LONGEST_DEADLINE_MS}
    known["slots"]["anyOf"][0] |= {"minItems": 1, "uniqueItems": True}
    known["context"] |= {"maxProperties": MOST_ATTRIBUTES}
    body["anyOf"] = [
        {"required": [name], "properties": {name: {"type": "string"}}}
        for name in ("user_id", "anonymous_id")
    ]
