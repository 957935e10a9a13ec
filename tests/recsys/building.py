"""Small catalogues, calls and sources for the tests of slates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.call import Call, SlateKind
from recsys.candidates import Candidates
from recsys.catalogue import Catalogue, ColumnKind, Item, ItemSchema, Mask

DAY = 86_400_000_000
NOW = 20_000 * DAY

ATTRIBUTES: Mapping[str, ColumnKind] = {
    "type": "string",
    "category": "string",
    "franchise": "string",
    "genres": "strings",
    "price": "number",
    "margin": "number",
    "stock": "number",
    "regions": "strings",
    "published": "time",
    "compatible_with": "strings",
    "replenish_days": "number",
    "paid": "boolean",
    "shown": "number",
    "cap": "number",
}


def catalogue(items: Mapping[str, Mapping[str, Any]], vector_size: int = 0) -> Catalogue:
    """Items by id; ``vector`` and ``at`` stand beside the attributes."""
    told = [
        Item(
            id_,
            {k: v for k, v in given.items() if k not in {"vector", "at"}},
            given.get("vector"),
            given.get("at"),
        )
        for id_, given in items.items()
    ]
    return Catalogue.empty(ItemSchema(ATTRIBUTES, vector_size=vector_size)).upsert(told, NOW)


def call(k: int = 3, **given: Any) -> Call:
    """A call for the slate "home" of somebody in Norway."""
    base = {"user_id": "u", "surface": "home", "slate": "home", "now": NOW, "trace_id": "t"}
    return Call(**{**base, "k": k, "context": {"region": "NO"}, **given})


@dataclass(frozen=True)
class Scores:
    """A source that proposes every item that is allowed, by given scores; others have 0."""

    scores: Mapping[str, float]

    def candidates(
        self, call: Call, catalogue: Catalogue, kind: SlateKind, allowed: Mask | None, count: int
    ) -> Candidates:
        """See `CandidateSource.candidates`."""
        scores = np.array([self.scores.get(id_, 0.0) for id_ in catalogue.ids])
        rows = np.argsort(-scores, kind="stable")
        if allowed is not None:
            rows = rows[allowed[rows]]
        rows = rows[:count]
        m = len(rows)
        return Candidates(
            rows, scores[rows], np.zeros(m, np.int8), np.full(m, -1, np.intp), ("scores",)
        )


def ids(slate: Any) -> Sequence[str]:
    """The items of a slate, in order."""
    return [item.item_id for item in slate.items]
