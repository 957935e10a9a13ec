"""Items as the engine keeps them: what was last told of each attribute, and for which time.

News may come late and more than once: of each attribute the latest counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from recsys.catalogue import Item, ItemSchema
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
