"""What slates are filled from: a state of the catalogue, with what proposes its items.

A shelf is one value that is replaced whole, so that no slate ever sees half of a change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.items import StoredItem
from engine.workspace import Slate
from recsys.bound import BoundModel, bind
from recsys.call import Call, SlateKind
from recsys.candidates import Candidates, CandidateSource
from recsys.catalogue import Catalogue, Column, Item, Mask
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

    def fault(self, recommender: str) -> str | None:
        """Why the newest items stand in for a recommender that was trained."""
        model = self.models.get(recommender)
        if model is None or recommender in self.sources:
            return None
        return (
            f"{recommender}: model {model.version[:12]} knows none of the catalogue's "
            f"{self.catalogue.size} items; train it on them"
        )

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


_FILL = 0.01
"""Of the span of scores: how far below them stands what fills up."""

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
    """The items that an external recommender ranked, as far as the catalogue has them.

    Where too few of them are allowed to fill a slate, ``beside`` proposes the rest, right below.
    """

    def __init__(self, name: str, ranked: Ranked, beside: CandidateSource) -> None:
        self._name = name
        self._beside = beside
        self._scores: dict[str, float] = {}
        for item_id, score in ranked.items:
            self._scores.setdefault(item_id, score)

    def candidates(
        self,
        call: Call,
        catalogue: Catalogue,
        kind: SlateKind,
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
        found = _ranked(rows[best], scores[best], self._name)
        if len(best) >= min(call.k, count):
            return found
        rest = np.ones(catalogue.size, np.bool_) if allowed is None else allowed.copy()
        rest[found.rows] = False
        others = self._beside.candidates(call, catalogue, kind, rest, count - len(best))
        return _below(found, others)


def _below(found: Candidates, others: Candidates) -> Candidates:
    """Both; the scores of others are of another scale, so that their order alone is kept."""
    if len(found.rows) == 0:
        return others
    span = float(np.ptp(found.scores)) or 1.0
    ranks = np.arange(1, len(others.rows) + 1) / max(1, len(others.rows))
    return Candidates(
        np.concatenate([found.rows, others.rows]),
        np.concatenate([found.scores, found.scores.min() - _FILL * span * ranks]),
        np.concatenate([found.source, others.source + len(found.sources)]).astype(np.int8),
        np.concatenate([found.because, others.because]),
        (*found.sources, *others.sources),
    )


def _ranked(rows: Any, scores: Any, name: str) -> Candidates:
    m = len(rows)
    return Candidates(rows, scores, np.zeros(m, np.int8), np.full(m, -1, np.intp), (name,))


# Shelves ----------------------------------------------------------------------------------------


def restocked(shelf: Shelf, news: Mapping[str, StoredItem], change: int) -> Shelf:
    """The shelf with items as they are stored now."""
    catalogue = shelf.catalogue
    rows = dict(zip(news, catalogue.rows(news).tolist(), strict=True))
    gone = [
        item_id
        for item_id, item in news.items()
        if rows[item_id] >= 0 and (item.removed or _was_removed(catalogue, rows[item_id], item))
    ]
    if gone:
        catalogue = catalogue.remove(gone)
    present = {item_id: item for item_id, item in news.items() if not item.removed}
    if present:
        now = max(item.at for item in present.values())
        catalogue = catalogue.upsert(list(_told(catalogue, present)), now)
    freed = [
        item_id
        for item_id, item in present.items()
        if not item.blocked and item_id in catalogue.blocked_ids
    ]
    if freed:
        catalogue = catalogue.unblock(freed)
    blocked = [item_id for item_id, item in present.items() if item.blocked]
    if blocked:
        catalogue = catalogue.block(blocked)
    return with_catalogue(shelf, catalogue, change)


def _was_removed(catalogue: Catalogue, row: int, item: StoredItem) -> bool:
    """Whether an item was removed and told of again since: it knows less, or of an earlier time."""
    for name, column in catalogue.columns.items():
        told = item.attributes.get(name)
        if (told is None and column.known[row]) or (
            told is not None and told[1] < column.updated_at[row]
        ):
            return True
    vectors = catalogue.vectors
    return item.vector is None and vectors is not None and bool(vectors[row].any())


def _told(catalogue: Catalogue, stored: Mapping[str, StoredItem]) -> Iterator[Item]:
    """What a catalogue is still to be told of items: nothing that it holds already.

    Most news are of one attribute, such as stock, and columns without any are left as they are.
    """
    rows = catalogue.rows(stored).tolist()
    for (item_id, item), row in zip(stored.items(), rows, strict=True):
        for part in item.told(item_id, catalogue.schema):
            news = {
                name: value
                for name, value in part.attributes.items()
                if row < 0 or _is_news(catalogue.columns[name], row, value, part.at)
            }
            vector = part.vector
            if row >= 0 and vector is not None and catalogue.vectors is not None:
                held = catalogue.vectors[row]
                vector = None if np.array_equal(held, np.array(vector, held.dtype)) else vector
            yield Item(item_id, news, vector, part.at)


def _is_news(column: Column, row: int, value: object, at: int | None) -> bool:
    if int(column.updated_at[row]) != at:
        return True
    held = column.at(row)
    return (list(held) if isinstance(held, tuple) else held) != value


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
