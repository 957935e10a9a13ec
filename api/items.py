"""``/v1/items``: news of items, and what is known of one."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request

from api.raw import ID, Call, RawRoute
from api.routes import engine_of, problems
from engine.items import MOST_ITEMS, ItemRequest
from engine.request import LONGEST_ID, MOST_ATTRIBUTES, parse_time

router = APIRouter()

# Read by the engine's own parser, which names the value whatever it is.
_Moment = Annotated[
    Any,
    msgspec.Meta(
        extra_json_schema={"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
    ),
]
_ATTRIBUTES = msgspec.Meta(extra_json_schema={"maxProperties": MOST_ATTRIBUTES})
_VECTOR = msgspec.Meta(extra_json_schema={"minItems": 1})
_MANY = msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MOST_ITEMS})


class ItemBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """News of an item, true since ``at``: attributes that are not named stay as they were.

    A null makes an attribute unknown. ``blocked`` keeps the item out of every slate until it is
    unblocked; ``removed`` forgets the item.
    """

    item_id: Annotated[str, ID]
    attributes: Annotated[dict[str, Any], _ATTRIBUTES] = {}
    vector: Annotated[list[float], _VECTOR] | None = None
    blocked: bool | None = None
    removed: bool = False
    at: _Moment = None


class ItemsReceipt(msgspec.Struct, frozen=True):
    """How many items were changed, and of how many nothing new was said."""

    accepted: int
    unchanged: int


async def tell_items(call: Call[ItemBody | list[ItemBody]]) -> ItemsReceipt:
    """One item or a list, stored all or none. The next slate knows of it, on other replicas the
    first within about a second. Of news that come out of order the latest holds."""
    listed = isinstance(call.body, list)
    bodies = call.body if isinstance(call.body, list) else [call.body]
    requests = [
        ItemRequest(
            item_id=body.item_id,
            attributes=body.attributes,
            vector=None if body.vector is None else tuple(body.vector),
            blocked=body.blocked,
            removed=body.removed,
            at=None if body.at is None else parse_time(f"[{i}].at" if listed else "at", body.at),
        )
        for i, body in enumerate(bodies)
    ]
    stored = await call.engine.tell_items(requests, listed=listed)
    return ItemsReceipt(stored.accepted, stored.duplicates)


ITEMS = RawRoute(
    path="/v1/items",
    takes=ItemBody | Annotated[list[ItemBody], _MANY],
    model=ItemBody,
    gives=ItemsReceipt,
    handle=tell_items,
    tag="items",
    summary="Tell of items",
    errors={404: "No such item is there to be blocked, unblocked or removed."},
    methods=("POST", "PUT"),
)

ItemId = Annotated[str, Path(min_length=1, max_length=LONGEST_ID)]


@router.get(
    "/v1/items/{item_id:path}",
    tags=["items"],
    summary="What is known of an item",
    responses=problems(400, 404, 500, 503),
)
async def item(request: Request, item_id: ItemId) -> dict[str, Any]:
    """Each attribute with the time it was told for, and whether the item is blocked."""
    return await engine_of(request).item(item_id)


@router.delete(
    "/v1/items/{item_id:path}",
    tags=["items"],
    summary="Forget an item",
    responses=problems(400, 404, 500, 503),
)
async def remove_item(request: Request, item_id: ItemId) -> dict[str, bool]:
    """No slate shows it any more. A block outlasts it; older news do not bring it back."""
    await engine_of(request).tell_items([ItemRequest(item_id, removed=True)], listed=False)
    return {"removed": True}
