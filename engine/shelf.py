"""What slates are filled from: a state of the catalogue, with what proposes its items.

A shelf is one value that is replaced whole, so that no slate ever sees half of a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.items import StoredItem
from engine.workspace import Items
from recsys.call import Call, SlateKind
from recsys.candidates import Candidates, CandidateSource
from recsys.catalogue import Catalogue, Mask


@dataclass(frozen=True, slots=True)
class Source:
    """What proposes items, and the digest of the model that it is."""

    candidates: CandidateSource
    digest: str


@dataclass(frozen=True, eq=False)
class Shelf:
    """What slates are filled from: a state of the catalogue, and a source for each recommender.

    ``change`` is the last entry about items that the catalogue holds.
    """

    catalogue: Catalogue
    change: int
    sources: Mapping[str, Source]

    def source(self, recommender: str) -> Source:
        """What proposes items for a recommender; before a model is trained, the newest items."""
        return self.sources.get(recommender, _UNTRAINED)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Items that an external recommender ranks, and the id under which it traces that."""

    items: tuple[tuple[str, float], ...]
    trace_id: str = ""


# Sources ----------------------------------------------------------------------------------------


class Untrained:
    """Before a model is trained: all items, what was told of last first."""

    def candidates(
        self,
        call: Call,  # noqa: ARG002  # as all sources
        catalogue: Catalogue,
        kind: SlateKind,  # noqa: ARG002  # as all sources
        allowed: Mask | None,
        count: int,
    ) -> Candidates:
        """See :class:`recsys.candidates.CandidateSource`."""
        rows = np.arange(catalogue.size) if allowed is None else np.flatnonzero(allowed)
        newest = np.argsort(-catalogue.updated_at[rows], kind="stable")[:count]
        return _ranked(rows[newest], -np.arange(len(newest), dtype=np.float64), "newest")


_UNTRAINED = Source(Untrained(), "")


class Given:
    """The items that an external recommender ranked, as far as the catalogue has them."""

    def __init__(self, name: str, ranked: Ranked) -> None:
        self._name = name
        self._scores: dict[str, float] = {}
        for item_id, score in ranked.items:
            self._scores.setdefault(item_id, score)

    def candidates(
        self,
        call: Call,  # noqa: ARG002  # as all sources
        catalogue: Catalogue,
        kind: SlateKind,  # noqa: ARG002  # as all sources
        allowed: Mask | None,
        count: int,
    ) -> Candidates:
        """See :class:`recsys.candidates.CandidateSource`."""
        rows = catalogue.rows(self._scores)
        scores = np.array(list(self._scores.values()), np.float64)
        there = rows >= 0
        if allowed is not None:
            there &= allowed[rows]
        rows, scores = rows[there], scores[there]
        best = np.argsort(-scores, kind="stable")[:count]
        return _ranked(rows[best], scores[best], self._name)


def _ranked(rows: Any, scores: Any, name: str) -> Candidates:
    m = len(rows)
    return Candidates(rows, scores, np.zeros(m, np.int8), np.full(m, -1, np.intp), (name,))


# Shelves ----------------------------------------------------------------------------------------


def restocked(shelf: Shelf, items: Items, news: Mapping[str, StoredItem], change: int) -> Shelf:
    """The shelf with items as they are stored now."""
    catalogue = shelf.catalogue
    removed = [id_ for id_, item in news.items() if item.removed]
    places = catalogue.rows(removed).tolist()
    gone = [id_ for id_, row in zip(removed, places, strict=True) if row >= 0]
    present = {id_: item for id_, item in news.items() if not item.removed}
    if gone:
        catalogue = catalogue.remove(gone)
    if present:
        now = max(item.at for item in present.values())
        told_ = [part for id_, item in present.items() for part in item.told(id_, items.schema)]
        catalogue = catalogue.upsert(told_, now)
    free = sorted(id_ for id_, item in present.items() if not item.blocked)
    freed = [id_ for id_ in free if id_ in catalogue.blocked_ids]
    if freed:
        catalogue = catalogue.unblock(freed)
    blocked = sorted(id_ for id_, item in present.items() if item.blocked)
    if blocked:
        catalogue = catalogue.block(blocked)
    return replace(shelf, catalogue=catalogue, change=change)
