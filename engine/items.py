"""Items as the engine keeps them: what was last told of each attribute, and for which time.

News may come late and more than once: of each attribute the latest counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from engine.errors import RequestError
from engine.ids import rfc3339
from engine.request import LONGEST_ID, LONGEST_LIST, LONGEST_TEXT, check_id, parse_time
from recsys.catalogue import LARGEST_PART, Item, ItemSchema
from recsys.errors import RecsysError

MOST_ITEMS = 1_000
"""How many items are told of at once."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ItemChange:
    """News of an item: values as columns hold them, times in microseconds.

    ``blocked`` None leaves a block as it is. Of a ``removed`` item only a block is remembered.
    """

    item_id: str
    at: int
    attributes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    vector: tuple[float, ...] | None = None
    blocked: bool | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class ItemRequest:
    """News of an item as a service sends them; ``at`` in microseconds, None for now."""

    item_id: str
    attributes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    vector: tuple[float, ...] | None = None
    blocked: bool | None = None
    removed: bool = False
    at: int | None = None


def checked(schema: ItemSchema, request: ItemRequest, prefix: str, at: int) -> ItemChange:
    """News of an item, as they may be stored.

    ``prefix`` stands before the names of fields in messages.

    Raises
    ------
    RequestError
        If the id is none, an attribute is not declared or its value not of its type, or the
        embedding is of another size than the workspace says, or beyond what is summed.
    """
    check_id(f"{prefix}item_id", request.item_id)
    if request.removed and (request.attributes or request.vector is not None):
        raise RequestError(f"{prefix}removed", "stands beside news of the item; send one of them")
    values: dict[str, Any] = {}
    for name, given in request.attributes.items():
        field_ = f"{prefix}attributes.{name[:LONGEST_ID]}"
        if name not in schema.attributes:
            known = ", ".join(f'"{known}"' for known in schema.attributes) or "none"
            raise RequestError(field_, f"is no attribute of items; known: {known}")
        if schema.attributes[name] == "time" and given is not None:
            values[name] = parse_time(field_, given)
            continue
        _check_size(field_, given)
        try:
            value = schema.value(name, given)
        except RecsysError as error:
            raise RequestError(field_, f"cannot be: {error}") from error
        values[name] = list(value) if isinstance(value, tuple) else value
    size = None if request.vector is None else len(request.vector)
    if size is not None and (size == 0 or size != schema.vector_size):
        raise RequestError(
            f"{prefix}vector",
            f"has {size} numbers; the workspace says `items.vector_size` {schema.vector_size}",
        )
    if any(abs(part) > LARGEST_PART for part in request.vector or ()):
        raise RequestError(
            f"{prefix}vector",
            f"holds a number beyond {LARGEST_PART:g}; send embeddings of length 1 or so",
        )
    return ItemChange(request.item_id, at, values, request.vector, request.blocked, request.removed)


def _check_size(field_: str, given: object) -> None:
    texts = given if isinstance(given, list) else [given]
    if len(texts) > LONGEST_LIST:
        raise RequestError(field_, f"has {len(texts):,} entries; give at most {LONGEST_LIST:,}")
    for text in texts:
        if isinstance(text, str) and len(text) > LONGEST_TEXT:
            raise RequestError(
                field_, f"has {len(text):,} characters; give at most {LONGEST_TEXT:,}"
            )


class StoredItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item as it is stored: each value beside the time that it was told for."""

    attributes: dict[str, tuple[Any, int]] = {}
    vector: tuple[float, ...] | None = None
    vector_at: int = 0
    at: int = 0
    removed: bool = False
    blocked: bool = False

    def changed(self, change: ItemChange) -> StoredItem:
        """The item after some news of it; what is older than its removal is no news."""
        blocked = self.blocked if change.blocked is None else change.blocked
        late = self.removed and change.at < self.at
        attributes, vector, vector_at = dict(self.attributes), self.vector, self.vector_at
        if change.removed:
            attributes = {name: told for name, told in attributes.items() if told[1] > change.at}
            if vector_at <= change.at:
                vector, vector_at = None, 0
        elif not late:
            for name, value in change.attributes.items():
                if name not in attributes or change.at >= attributes[name][1]:
                    attributes[name] = (value, change.at)
            if change.vector is not None and change.at >= vector_at:
                vector, vector_at = change.vector, change.at
        return StoredItem(
            attributes=attributes,
            vector=vector,
            vector_at=vector_at,
            at=max(self.at, change.at),
            removed=change.at >= self.at if change.removed else self.removed and late,
            blocked=blocked,
        )

    def told(self, item_id: str, schema: ItemSchema) -> Iterable[Item]:
        """The news that a catalogue is told of the item, one for each time.

        What the schema no longer declares, or declares otherwise, is left out.
        """
        times: dict[int, dict[str, Any]] = {self.at: {}}
        for name, (value, at) in self.attributes.items():
            try:
                schema.value(name, value)
            except RecsysError:
                continue
            times.setdefault(at, {})[name] = value
        fits = self.vector is not None and len(self.vector) == schema.vector_size
        if fits:
            times.setdefault(self.vector_at, {})
        for at, attributes in times.items():
            vector = self.vector if fits and at == self.vector_at else None
            yield Item(item_id, attributes, vector, at)


def item_document(item_id: str, item: StoredItem, schema: ItemSchema) -> dict[str, Any]:
    """What is known of an item as JSON data: each value with the time that it was told for."""

    def shown(name: str, value: Any) -> Any:
        is_time = schema.attributes.get(name) == "time" and isinstance(value, int)
        return rfc3339(value) if is_time else value

    return {
        "item_id": item_id,
        "attributes": {
            name: {"value": shown(name, value), "at": rfc3339(at)}
            for name, (value, at) in sorted(item.attributes.items())
        },
        "vector": item.vector,
        "blocked": item.blocked,
        "at": rfc3339(item.at),
    }
