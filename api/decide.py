"""``POST /v1/decide``: what to decide on, and how it is asked of the engine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from api.raw import ID, Call, RawRoute
from engine.answer import Answer
from engine.request import LONGEST_DEADLINE_MS, MOST_ATTRIBUTES, DecideRequest

_DEADLINE = msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": LONGEST_DEADLINE_MS})
_SLOTS = msgspec.Meta(extra_json_schema={"minItems": 1, "uniqueItems": True})
_CONTEXT = msgspec.Meta(extra_json_schema={"maxProperties": MOST_ATTRIBUTES})


class DecideBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to decide on: a surface, at least one identifier, and what is known of the moment.

    A context value is bare, or ``{"value": …, "at": RFC 3339}`` where it was observed earlier.
    """

    surface: str
    user_id: Annotated[str, ID] | None = None
    anonymous_id: Annotated[str, ID] | None = None
    request_id: Annotated[str, ID] | None = None
    trigger: str | None = None
    context: Annotated[dict[str, Any], _CONTEXT] = {}
    slots: Annotated[list[str], _SLOTS] | None = None
    deadline_ms: Annotated[int, _DEADLINE] | None = None
    mode: Literal["decide", "peek"] = "decide"


async def decide(call: Call[DecideBody]) -> Answer:
    """The decision is durable in the log before it is answered."""
    body = call.body
    trace = next((value for name, value in call.headers if name == b"traceparent"), None)
    answer = await call.engine.decide(
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
            traceparent=None if trace is None else trace.decode("latin-1"),
        )
    )
    if body.mode == "decide":
        call.telemetry.answered(answer)
    return answer


_DECISION_ID = "$response.body#/decision_id"

DECIDE = RawRoute(
    path="/v1/decide",
    takes=DecideBody,
    model=DecideBody,
    gives=Answer,
    handle=decide,
    tag="decisions",
    summary="Decide on a surface",
    errors={
        400: "The body is malformed or names what the workspace does not have.",
        404: "The surface is not declared.",
        409: "The `request_id` was used with other content.",
        503: "A repeated request was logged, but cannot be read back.",
    },
    asks={
        "anyOf": [
            {"required": [name], "properties": {name: {"type": "string"}}}
            for name in ("user_id", "anonymous_id")
        ]
    },
    links={
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
    },
)
