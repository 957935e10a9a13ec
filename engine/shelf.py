"""What slates are filled from: a state of the catalogue, with what proposes its items.

A shelf is one value that is replaced whole, so that no slate ever sees half of a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.items import StoredItem
from engine.workspace import Items, Slate
from recsys.bound import BoundModel, bind
from recsys.call import Call, SlateKind
from recsys.candidates import Candidates, CandidateSource
from recsys.catalogue import Catalogue, Mask
from recsys.errors import RecsysError
from recsys.model import Model
from recsys.scoring import LinearScorer


@dataclass(frozen=True, slots=True)
class Source:
    """What proposes items, and which version of it: of a model its digest.

    Beside the digest stands the position of the last interaction of the log that it was kept up
    with, if there was any since it was trained.
    """

    candidates: CandidateSource
    version: str


@dataclass(frozen=True, slots=True)
class Versioned:
    """A trained model, and the version that traces name."""

    model: Model
    version: str


@dataclass(frozen=True, eq=False)
class Shelf:
    """What slates are filled from: a state of the catalogue, and each recommender's model.

    ``change`` is the last entry about items that the catalogue holds; ``sources`` are the models
    that know some of its items, bound to it. ``scorers`` are by slate what has learned to predict
    the slate's objective.
    """

    catalogue: Catalogue
    change: int = 0
    models: Mapping[str, Versioned] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    scorers: Mapping[str, LinearScorer] = field(default_factory=dict)

    def scorer(self, slate: Slate) -> LinearScorer | None:
        """What predicts a slate's objective; None where relevance is the objective."""
        if slate.scorer is None:
            return None
        learned = self.scorers.get(slate.id)
        # One that has learned of other features is of another slate of that name.
        if learned is None or learned.names != slate.scorer.names:
            return slate.scorer
        return learned

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
    return with_catalogue(shelf, catalogue, change)


def with_catalogue(shelf: Shelf, catalogue: Catalogue, change: int) -> Shelf:
    """The shelf with another state of the catalogue, its models bound to that."""
    bound = _bound(catalogue, change, shelf.models, shelf.sources)
    return replace(bound, scorers=shelf.scorers)


def with_models(
    shelf: Shelf, models: Mapping[str, Versioned], scorers: Mapping[str, LinearScorer]
) -> Shelf:
    """The shelf with other models and scorers."""
    bound = _bound(shelf.catalogue, shelf.change, models, shelf.sources)
    return replace(bound, scorers=scorers)


def _bound(
    catalogue: Catalogue,
    change: int,
    models: Mapping[str, Versioned],
    before: Mapping[str, Source],
) -> Shelf:
    sources = {}
    for id_, of in models.items():
        known = before.get(id_)
        bound = known.candidates if known else None
        if isinstance(bound, BoundModel) and bound.model is of.model:
            if bound.catalogue is catalogue:
                sources[id_] = Source(bound, of.version)
                continue
        else:
            bound = None
        # A model that knows none of the items proposes none of them: the newest ones stand in.
        with suppress(RecsysError):
            sources[id_] = Source(bind(of.model, catalogue, bound), of.version)
    return Shelf(catalogue, change, models, sources)
