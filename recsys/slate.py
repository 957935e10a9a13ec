"""A slate: ranked items with their scores, positions and the probabilities they were drawn with."""

from __future__ import annotations

import msgspec


class SlateItem(msgspec.Struct, frozen=True):
    """An item at a position (from 1), drawn there with ``propensity`` given those before it."""

    item_id: str
    score: float
    position: int
    propensity: float


class Slate(msgspec.Struct, frozen=True):
    """A ranked list and the id under which its making is traced."""

    trace_id: str
    items: tuple[SlateItem, ...]
