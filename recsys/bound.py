"""A model beside a catalogue: candidates for every kind of slate.

The items of the catalogue that the model was not trained on enter as mixtures of those that it was:
of items that the same users chose, if an update adopted them, else of items of like content.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.affinity import Affinity, Floats
from recsys.call import Call, SlateKind
from recsys.candidates import Candidates
from recsys.catalogue import Catalogue, Mask, Rows
from recsys.content import Content
from recsys.errors import RecsysError
from recsys.model import MIXTURE, Model, mixture_weights
from recsys.related import accessories, alternatives, due_again, ranked
from recsys.retrieval import best

_MOST_FRESH = 10_000  # the newest items that are made mixtures of
_MOST_COMPARED = 20_000  # the most popular items that they are compared with
_HOT = 20_000  # the most popular items, among which those of a moment are sought first
_FILL = 1e-3  # of the span of scores: what fills up stands this close below


class Fresh(NamedTuple):
    """f rows of a catalogue that the model was not trained on, as mixtures of its items."""

    rows: Rows
    items: npt.NDArray[np.int32]
    weights: Floats


class _Liked(NamedTuple):
    """h items of the model with weights, and the catalogue's row that brought each."""

    items: Rows
    weights: Floats
    origins: Rows


@dataclass(frozen=True, eq=False)
class BoundModel:
    """A model bound to a catalogue; start at `bind`. It is a `CandidateSource`.

    Parameters
    ----------
    content
        Of the catalogue's items, or of one's whose words and embeddings are the same.
    place
        (n,), the catalogue's row of each item of the model, -1 where it has none.
    """

    model: Model
    catalogue: Catalogue
    content: Content
    place: Rows
    fresh: Fresh

    def candidates(
        self,
        call: Call,
        catalogue: Catalogue,
        kind: SlateKind,
        allowed: Mask | None,
        count: int,
    ) -> Candidates:
        """See `CandidateSource`; scores of kinds that relate to seeds are above 0.

        Raises
        ------
        RecsysError
            If the catalogue has other items than that which the model is bound to, if the kind
            relates to seeds and the call names none that the catalogue has, or if "accessories" are
            asked for and no attribute has the role compatible_with.
        """
        if catalogue.index is not self.catalogue.index:
            raise RecsysError("the model is bound to a catalogue of other items. Bind it anew.")
        mask = np.ones(catalogue.size, np.bool_) if allowed is None else allowed
        if kind == "for_you":
            return self._for_you(call, mask, count)
        if kind == "because_you":
            return self._because_you(call, mask, count)
        if kind == "replenishment":
            return self._replenishment(call, catalogue, mask, count)
        if kind == "editorial":
            return self._popular(call, mask, count)
        return self._related(call, catalogue, kind, mask, count)

    # What a history says --------------------------------------------------------------------------

    def _for_you(self, call: Call, mask: Mask, count: int) -> Candidates:
        affinity = self.model.affinity
        liked = self._liked(*self._history(call))
        if affinity is None or len(liked.items) == 0:
            return self._popular(call, mask, count)
        found = self._chosen(affinity, liked, call.now, mask, count)
        return self._filled(found, call, mask, count)

    def _because_you(self, call: Call, mask: Mask, count: int) -> Candidates:
        ids, weights = self._history(call)
        if call.seeds:
            self._seed_rows(call)
            ids, weights = call.seeds, np.ones(len(call.seeds), np.float32)
        else:
            there = [i for i, row in enumerate(self.catalogue.rows(ids)) if row >= 0][:1]
            ids, weights = tuple(ids[i] for i in there), weights[there]
        rows = self.catalogue.rows(ids)
        mask = _without(mask, rows)
        liked = self._liked(ids, weights)
        affinity = self.model.affinity or self.model.nearest
        found = _none(self._sources)
        if len(liked.items):
            found = _positive(self._chosen(affinity, liked, call.now, mask, count))
        if len(found.rows) < count and (rows >= 0).any():
            seeds = rows[rows >= 0]
            alike = self.content.similarities(seeds)
            nearest = seeds[alike.argmax(axis=0)]
            others = ranked(alike.mean(axis=0), mask, count, self._sources, "content", nearest)
            return self._joined(found, others, count)
        return found

    def _history(self, call: Call) -> tuple[tuple[str, ...], Floats]:
        if not call.personal:
            return (), np.zeros(0, np.float32)
        return self.model.history(call.history, call.now)

    def _liked(self, ids: tuple[str, ...], weights: Floats) -> _Liked:
        """What of a history the model can make something of, fresh items by their mixtures."""
        items = self.model.index.rows(ids)
        rows = self.catalogue.rows(ids)
        direct = np.flatnonzero(items >= 0)
        fresh = np.flatnonzero((items < 0) & (rows >= 0))
        at = self._fresh_at[rows[fresh]]
        fresh, at = fresh[at >= 0], at[at >= 0]
        mixed = self.fresh.weights[at] * weights[fresh, None]
        used = mixed > 0.0
        return _Liked(
            np.concatenate([items[direct], self.fresh.items[at][used]]).astype(np.intp),
            np.concatenate([weights[direct], mixed[used]]).astype(np.float32),
            np.concatenate([rows[direct], np.repeat(rows[fresh], used.sum(axis=1))]),
        )

    def _chosen(
        self, affinity: Affinity, liked: _Liked, now: int, mask: Mask, count: int
    ) -> Candidates:
        """The best of the model's items and of the fresh ones by a history."""
        taste = affinity.taste(liked.items, liked.weights)
        power = np.float32(self.model.settings.trend)

        def boost(items: Rows) -> Floats:
            return np.asarray(self.model.popularity.trend(now, items) ** power)

        items, scores = affinity.best(taste, boost, self._items_allowed(mask), count)
        there = np.flatnonzero(mask[self.fresh.rows] & (self.fresh.weights[:, 0] > 0.0))
        mixed = self.fresh.items[there]
        fresh_scores = np.zeros(0, np.float32)
        if len(there):
            of, back = np.unique(mixed, return_inverse=True)
            parts = affinity.scores(taste, of.astype(np.intp))[back].reshape(mixed.shape)
            fresh_scores = (parts * self.fresh.weights[there]).sum(axis=1)
        rows = np.concatenate([self.place[items], self.fresh.rows[there]])
        joined = np.concatenate([scores, fresh_scores])
        brought = np.concatenate([np.zeros(len(items), np.int8), np.ones(len(there), np.int8)])
        order = np.lexsort((rows, -joined))[:count]
        because = self._because(affinity, liked, items, there, order)
        return Candidates(
            rows[order], joined[order].astype(np.float64), brought[order], because, self._sources
        )

    def _because(
        self, affinity: Affinity, liked: _Liked, items: Rows, fresh: Rows, order: Rows
    ) -> Rows:
        """(m,), the row of what gave most to each candidate; -1 where it was nothing good."""
        known = order < len(items)
        representative = np.empty(len(order), np.intp)
        representative[known] = items[order[known]]
        at = fresh[order[~known] - len(items)]
        representative[~known] = self.fresh.items[at, 0]
        parts = affinity.parts(liked.items, liked.weights, representative)
        most = parts.argmax(axis=0)
        gave = parts[most, np.arange(len(order))] > 0.0
        return np.where(gave, liked.origins[most], -1)

    # What is popular ------------------------------------------------------------------------------

    def _popular(self, call: Call, mask: Mask, count: int) -> Candidates:
        rows, scores = self._popular_rows(call, mask, count)
        return Candidates(
            rows,
            scores.astype(np.float64),
            np.full(len(rows), self._sources.index("popularity"), np.int8),
            np.full(len(rows), -1, np.intp),
            self._sources,
        )

    def _popular_rows(self, call: Call, mask: Mask, count: int) -> tuple[Rows, Floats]:
        name = self.model.settings.segment
        segment = call.context.get(name) if name is not None else None
        segment = segment if isinstance(segment, str) else None
        popularity = self.model.popularity
        hot = self._hot[mask[self._all_places[self._hot]]]
        if len(hot) >= count and segment is None:
            rows, scores = best(hot, popularity.scores(call.now, None, hot), count)
            return self._all_places[rows], scores
        rows = np.flatnonzero(mask)
        return best(rows, self._popular_everywhere(call.now, segment)[rows], count)

    def _popular_everywhere(self, now: int, segment: str | None = None) -> Floats:
        """(n,), the popularity of the catalogue's items, of fresh ones by their mixtures."""
        scores = self.model.popularity.scores(now, segment)
        everywhere = np.zeros(self.catalogue.size, np.float32)
        mixtures = scores[self.fresh.items] * self.fresh.weights
        everywhere[self.fresh.rows] = mixtures.sum(axis=1)
        there = self._all_places >= 0
        everywhere[self._all_places[there]] = scores[there]
        return everywhere

    @cached_property
    def _hot(self) -> Rows:
        """The items that are counted most, or lately most, in ascending order."""
        there = np.flatnonzero(self._all_places >= 0)
        popularity = self.model.popularity
        most = [
            best(there, amounts[there], _HOT)[0]
            for amounts in (popularity.counts, popularity.recent)
        ]
        return np.unique(np.concatenate(most))

    def _filled(self, found: Candidates, call: Call, mask: Mask, count: int) -> Candidates:
        """The candidates and, if they are too few, what is popular beside them."""
        if len(found.rows) >= count:
            return found
        return self._joined(found, self._popular(call, _without(mask, found.rows), count), count)

    def _joined(self, found: Candidates, others: Candidates, count: int) -> Candidates:
        """The candidates, then others, whose scores are pressed together right below theirs."""
        new = ~np.isin(others.rows, found.rows)
        rows = others.rows[new][: count - len(found.rows)]
        scores = others.scores[new][: len(rows)]
        if len(found.rows) and len(rows):
            span = np.ptp(found.scores) or abs(found.scores[-1]) or 1.0
            top = scores[0] - scores[-1] or 1.0
            scores = found.scores[-1] - _FILL * span * (1.0 + (scores[0] - scores) / top)
        return Candidates(
            np.concatenate([found.rows, rows]),
            np.concatenate([found.scores, scores]),
            np.concatenate([found.source, others.source[new][: len(rows)]]),
            np.concatenate([found.because, others.because[new][: len(rows)]]),
            self._sources,
        )

    # What relates to seeds ------------------------------------------------------------------------

    def _related(
        self, call: Call, catalogue: Catalogue, kind: SlateKind, mask: Mask, count: int
    ) -> Candidates:
        seeds = self._seed_rows(call)
        mask = _without(mask, seeds)
        together = self._chosen_together(seeds)
        if kind == "bundles":
            return ranked(together, mask, count, self._sources, "item_knn", seeds[0])
        if kind == "accessories":
            score = accessories(catalogue, seeds, together, self._popular_everywhere(call.now))
            return ranked(score, mask, count, self._sources, "content", seeds[0])
        alike = self.content.similarities(seeds)
        score = np.maximum(alike.mean(axis=0), 0.0) + together
        if kind == "alternatives":
            score = alternatives(catalogue, int(seeds[0]), score)
        nearest = seeds[alike.argmax(axis=0)]
        return ranked(score, mask, count, self._sources, "content", nearest)

    def _seed_rows(self, call: Call) -> Rows:
        rows = self.catalogue.rows(call.seeds)
        if not (rows >= 0).any():
            said = (
                f"is {list(call.seeds)}, none of which"
                if call.seeds
                else "is empty: it names no item"
            )
            raise RecsysError(
                f"call.seeds {said} the catalogue has. Name the items that the slate relates to."
            )
        return rows[rows >= 0]

    def _chosen_together(self, seeds: Rows) -> Floats:
        """(n,) in [0, 1], how alike the users of items and of the seeds are."""
        liked = self._liked(
            tuple(self.catalogue.ids[row] for row in seeds), np.ones(len(seeds), np.float32)
        )
        found = np.zeros(self.catalogue.size, np.float32)
        taste = self.model.nearest.taste(liked.items, liked.weights) / max(1, len(seeds))
        there = self.place >= 0
        found[self.place[there]] = taste[there]
        return found

    def _replenishment(
        self, call: Call, catalogue: Catalogue, mask: Mask, count: int
    ) -> Candidates:
        weights = self.model.settings.weights
        bought = {
            interaction.item_id: interaction.at
            for interaction in (call.history if call.personal else ())
            if weights.get(interaction.kind, 1.0) > 0.0 and interaction.item_id in catalogue.index
        }
        items = self.model.index.rows(bought)
        days = np.where(items >= 0, self.model.repeat_days[items], np.nan)
        rows, due = due_again(catalogue, bought, days, call.now)
        there = mask[rows]
        rows, due = rows[there][:count], due[there][:count]
        source = np.full(len(rows), self._sources.index("replenishment"), np.int8)
        return Candidates(rows, due, source, rows, self._sources)

    # Where items stand ----------------------------------------------------------------------------

    @cached_property
    def _sources(self) -> tuple[str, ...]:
        names = (self.model.kind, "content", "popularity", "item_knn", "replenishment")
        return tuple(dict.fromkeys(names))

    @cached_property
    def _same(self) -> bool:
        """Whether the model's items are the catalogue's, so that rows and items are one."""
        return len(self.place) == self.catalogue.size and bool(
            (self.place == np.arange(len(self.place))).all()
        )

    @cached_property
    def _all_places(self) -> Rows:
        """The catalogue's row of each item of the model, then of those adopted; -1 where none."""
        adopted = self.catalogue.rows(self.model.adopted.index.ids)
        return np.concatenate([self.place, adopted])

    @cached_property
    def _fresh_at(self) -> Rows:
        """(n,), where a row stands among the fresh ones, -1 where it does not."""
        at = np.full(self.catalogue.size, -1, np.intp)
        at[self.fresh.rows] = np.arange(len(self.fresh.rows))
        return at

    def _items_allowed(self, mask: Mask) -> Mask:
        if self._same:
            return mask
        return np.asarray(mask[self.place] & (self.place >= 0))


def bind(model: Model, catalogue: Catalogue, before: BoundModel | None = None) -> BoundModel:
    """The model beside a catalogue, which need not be that of its training.

    Parameters
    ----------
    before
        What the model was bound to: what has not changed since is taken from there.

    Raises
    ------
    RecsysError
        If the catalogue has none of the model's items.
    """
    if before is not None and before.model is model:
        content = before.content.of(catalogue)
        if content is before.content:
            return BoundModel(model, catalogue, content, before.place, before.fresh)
    else:
        content = Content(catalogue)
    place = catalogue.rows(model.index.ids)
    if not (place >= 0).any():
        raise RecsysError(
            f"the model knows {model.size} items of catalogue {model.catalogue_digest[:12]}…, none "
            f"of which is among this one's {catalogue.size}. Train a model on this catalogue."
        )
    return BoundModel(model, catalogue, content, place, _fresh(model, catalogue, content, place))


def _fresh(model: Model, catalogue: Catalogue, content: Content, place: Rows) -> Fresh:
    """Items that the model was not trained on, the newest if they are very many."""
    unknown = np.ones(catalogue.size, np.bool_)
    unknown[place[place >= 0]] = False
    adopted = catalogue.rows(model.adopted.index.ids)
    mixed = np.flatnonzero((adopted >= 0) & (model.adopted.weights[:, 0] > 0.0))
    unknown[adopted[mixed]] = False
    rows = np.flatnonzero(unknown)
    if len(rows) > _MOST_FRESH:
        rows = np.sort(rows[np.lexsort((rows, -catalogue.updated_at[rows]))][:_MOST_FRESH])
    known = np.flatnonzero(place >= 0)
    compared, _ = best(known, model.popularity.counts[known], _MOST_COMPARED)
    positions, similarities = content.nearest(rows, place[compared], MIXTURE)
    short = ((0, 0), (0, MIXTURE - positions.shape[1]))
    items = np.pad(compared[positions].astype(np.int32), short)
    weights = np.pad(mixture_weights(similarities), short)
    return Fresh(
        np.concatenate([adopted[mixed], rows]),
        np.concatenate([model.adopted.items[mixed], items]),
        np.concatenate([model.adopted.weights[mixed], weights]),
    )


def _positive(found: Candidates) -> Candidates:
    good = found.scores > 0.0
    return Candidates(
        found.rows[good], found.scores[good], found.source[good], found.because[good], found.sources
    )


def _none(sources: tuple[str, ...]) -> Candidates:
    rows = np.zeros(0, np.intp)
    return Candidates(rows, np.zeros(0), np.zeros(0, np.int8), rows, sources)


def _without(mask: Mask, rows: Rows) -> Mask:
    left = mask.copy()
    left[rows[rows >= 0]] = False
    return left
