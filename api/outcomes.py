"""``POST /v1/exposures`` and ``POST /v1/outcomes``: what became of decisions."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from api.raw import ID, Call, RawRoute
from engine.request import parse_time
from engine.service import MOST_OUTCOMES, OutcomeRequest

# Read by the engine's own parser, which names the value whatever it is.
_Moment = Annotated[
    Any,
    msgspec.Meta(
        extra_json_schema={"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
    ),
]
_METRIC = msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": 64})
_SLOTS = msgspec.Meta(extra_json_schema={"minItems": 1})
_MANY = msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MOST_OUTCOMES})


class ExposureBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision was shown: all its slots, or those named."""

    decision_id: Annotated[str, ID]
    slots: Annotated[list[str], _SLOTS] | None = None
    occurred_at: _Moment = None


class OutcomeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happened, as a number of a metric, for a decision or for a user.

    ``corrects`` names an earlier outcome whose value this one replaces, ``item_id`` the item that
    it is about.
    """

    outcome_id: Annotated[str, ID]
    metric: Annotated[str, _METRIC]
    value: float
    decision_id: Annotated[str, ID] | None = None
    user_id: Annotated[str, ID] | None = None
    occurred_at: _Moment = None
    corrects: Annotated[str, ID] | None = None
    item_id: Annotated[str, ID] | None = None


class Receipt(msgspec.Struct, frozen=True):
    """What became of what was sent."""

    accepted: int
    duplicates: int
    unmatched: int


async def expose(call: Call[ExposureBody]) -> Receipt:
    """Each slot's first exposure is kept; later ones count as duplicates."""
    body = call.body
    slots = None if body.slots is None else tuple(body.slots)
    moment = _moment("occurred_at", body.occurred_at)
    stored = await call.engine.expose(body.decision_id, slots, moment)
    return Receipt(stored.accepted, stored.duplicates, stored.unmatched)


async def record_outcomes(call: Call[OutcomeBody | list[OutcomeBody]]) -> Receipt:
    """One outcome or a list, stored all or none. A repeated id with the same content is counted
    as a duplicate; an outcome that precedes its decision is kept, unmatched, until that comes."""
    listed = isinstance(call.body, list)
    bodies = call.body if isinstance(call.body, list) else [call.body]
    outcomes = [
        OutcomeRequest(
            outcome_id=body.outcome_id,
            metric=body.metric,
            value=body.value,
            decision_id=body.decision_id,
            user_id=body.user_id,
            occurred_at=_moment(
                f"[{i}].occurred_at" if listed else "occurred_at", body.occurred_at
            ),
            corrects=body.corrects,
            item_id=body.item_id,
        )
        for i, body in enumerate(bodies)
    ]
    stored = await call.engine.record_outcomes(outcomes, listed=listed)
    call.telemetry.received(stored)
    return Receipt(stored.accepted, stored.duplicates, stored.unmatched)


def _moment(field: str, given: object) -> int | None:
    return None if given is None else parse_time(field, given)


EXPOSURES = RawRoute(
    path="/v1/exposures",
    takes=ExposureBody,
    model=ExposureBody,
    gives=Receipt,
    handle=expose,
    tag="outcomes",
    summary="Say that a decision was shown",
    errors={404: "The decision is not stored."},
)

OUTCOMES = RawRoute(
    path="/v1/outcomes",
    takes=OutcomeBody | Annotated[list[OutcomeBody], _MANY],
    model=OutcomeBody,
    gives=Receipt,
    handle=record_outcomes,
    tag="outcomes",
    summary="Say what happened",
    errors={409: "An `outcome_id` was used with other content."},
    asks={
        "oneOf": [
            {
                "required": [given],
                "properties": {given: {"type": "string"}, other: {"type": "null"}},
            }
            for given, other in (("decision_id", "user_id"), ("user_id", "decision_id"))
        ]
    },
)
