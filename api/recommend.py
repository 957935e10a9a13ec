"""``POST /v1/recommend``: one slate, without a decision on anything else."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from api.raw import ID, Call, RawRoute
from engine.answer import Recommended
from engine.request import (
    LONGEST_DEADLINE_MS,
    LONGEST_LIST,
    MOST_ATTRIBUTES,
    MOST_FILTERS,
    DecideRequest,
    RecommendRequest,
)
from recsys.call import LARGEST_K

_DEADLINE = msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": LONGEST_DEADLINE_MS})
_K = msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": LARGEST_K})
_CONTEXT = msgspec.Meta(extra_json_schema={"maxProperties": MOST_ATTRIBUTES})
_FILTERS = msgspec.Meta(extra_json_schema={"maxProperties": MOST_FILTERS})
_MANY = msgspec.Meta(extra_json_schema={"maxItems": LONGEST_LIST})


class RecommendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to recommend to, where, and what is known of the moment.

    ``slate`` is needed where the surface has several; ``k`` is the slate's own where it is left
    out. ``filters`` are values that an item's attributes must have, or bounds of a number as
    ``{"min": 10, "max": 20}``. ``decision_id`` names the decision that referred to the slate.
    """

    surface: str
    user_id: Annotated[str, ID] | None = None
    anonymous_id: Annotated[str, ID] | None = None
    slate: str | None = None
    k: Annotated[int, _K] | None = None
    context: Annotated[dict[str, Any], _CONTEXT] = {}
    seeds: Annotated[list[Annotated[str, ID]], _MANY] = []
    exclude: Annotated[list[Annotated[str, ID]], _MANY] = []
    filters: Annotated[dict[str, Any], _FILTERS] = {}
    deadline_ms: Annotated[int, _DEADLINE] | None = None
    decision_id: Annotated[str, ID] | None = None


async def recommend(call: Call[RecommendBody]) -> Recommended:
    """Ranked items with their scores, reasons and probabilities. What the engine knows of the
    user is added to what the body says; the call is durable in the log before it is answered."""
    body = call.body
    trace = next((value for name, value in call.headers if name == b"traceparent"), None)
    return await call.engine.recommend(
        RecommendRequest(
            DecideRequest(
                surface=body.surface,
                user_id=body.user_id,
                anonymous_id=body.anonymous_id,
                context=body.context,
                deadline_ms=body.deadline_ms,
                traceparent=None if trace is None else trace.decode("latin-1"),
            ),
            slate=body.slate,
            k=body.k,
            seeds=tuple(body.seeds),
            exclude=tuple(body.exclude),
            filters=body.filters,
            decision_id=body.decision_id,
        )
    )


_TRACE_ID = "$response.body#/trace_id"

RECOMMEND = RawRoute(
    path="/v1/recommend",
    takes=RecommendBody,
    model=RecommendBody,
    gives=Recommended,
    handle=recommend,
    tag="decisions",
    summary="Fill one slate",
    errors={
        400: "The body is malformed or names what the workspace does not have.",
        404: "The surface is not declared.",
        503: "What is known of the user cannot be read, or the deadline passed.",
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
            "parameters": {"decision_id": _TRACE_ID},
        },
        "replay": {
            "operationRef": "#/paths/~1v1~1decisions~1{decision_id}~1replay/post",
            "parameters": {"decision_id": _TRACE_ID},
        },
    },
)
