"""What users' choices say of items: a history makes a taste, and a taste has scores of items.

A taste is whatever a model keeps of a history between two questions: all items' scores where they
are added up from item-item weights, a query vector where items have factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys.als import Ridge
from recsys.catalogue import Mask, Rows
from recsys.retrieval import Index, best

Floats = npt.NDArray[np.float32]
Boost = Callable[[Rows], Floats]
"""(m,) factors of the scores of (m,) items."""

_SPARE = 2  # times as many are retrieved where scores are boosted after the retrieval


class Affinity(Protocol):
    """Scores of the n items of a model, in the order of the model's items."""

    def taste(self, items: Rows, weights: Floats) -> Floats:
        """What (h,) items with (h,) weights say of a user."""
        ...

    def scores(self, taste: Floats, items: Rows) -> Floats:
        """(m,), the scores of some items."""
        ...

    def best(self, taste: Floats, boost: Boost, allowed: Mask, count: int) -> tuple[Rows, Floats]:
        """At most ``count`` allowed items by score · boost, best first; negative ones unboosted."""
        ...

    def parts(self, items: Rows, weights: Floats, of: Rows) -> Floats:
        """(h, m), how much each item of the history gives to the score of each of some items."""
        ...


@dataclass(frozen=True, eq=False)
class DenseWeights:
    """Item-item weights as a matrix (n, n), row j being what item j gives."""

    matrix: npt.NDArray[np.float16]

    def taste(self, items: Rows, weights: Floats) -> Floats:
        """See `Affinity`."""
        return weights @ self.matrix[items].astype(np.float32)

    def scores(self, taste: Floats, items: Rows) -> Floats:
        """See `Affinity`."""
        return taste[items]

    def best(self, taste: Floats, boost: Boost, allowed: Mask, count: int) -> tuple[Rows, Floats]:
        """See `Affinity`."""
        rows = np.flatnonzero(allowed)
        return best(rows, boosted(taste[rows], boost(rows)), count)

    def parts(self, items: Rows, weights: Floats, of: Rows) -> Floats:
        """See `Affinity`."""
        return weights[:, None] * self.matrix[np.ix_(items, of)].astype(np.float32)


@dataclass(frozen=True, eq=False)
class NearestItems:
    """Item-item weights of each item's nearest: (n, c) items, (n, c) similarities, 0 for none."""

    items: npt.NDArray[np.int32]
    similarities: Floats

    def taste(self, items: Rows, weights: Floats) -> Floats:
        """See `Affinity`."""
        given = weights[:, None] * self.similarities[items]
        n = len(self.items)
        return np.bincount(self.items[items].ravel(), given.ravel(), n).astype(np.float32)

    def scores(self, taste: Floats, items: Rows) -> Floats:
        """See `Affinity`."""
        return taste[items]

    def best(self, taste: Floats, boost: Boost, allowed: Mask, count: int) -> tuple[Rows, Floats]:
        """See `Affinity`; items without a score are left out."""
        related = np.flatnonzero(allowed & (taste > 0.0))
        return best(related, taste[related] * boost(related), count)

    def parts(self, items: Rows, weights: Floats, of: Rows) -> Floats:
        """See `Affinity`."""
        found = np.zeros((len(items), len(of)), np.float32)
        for row, (item, weight) in enumerate(zip(items, weights, strict=True)):
            given = np.zeros(len(self.items), np.float32)
            given[self.items[item][::-1]] = self.similarities[item][::-1]
            found[row] = weight * given[of]
        return found


@dataclass(frozen=True, eq=False)
class Factors:
    """Items as vectors; a history is folded in as alternating least squares would."""

    index: Index
    system: Ridge

    def taste(self, items: Rows, weights: Floats) -> Floats:
        """See `Affinity`: (d,)."""
        vectors = self.index.vectors(items)
        return np.asarray(self.system.solve(vectors[None], weights[None])[0])

    def scores(self, taste: Floats, items: Rows) -> Floats:
        """See `Affinity`."""
        return self.index.scores(taste, items)

    def best(self, taste: Floats, boost: Boost, allowed: Mask, count: int) -> tuple[Rows, Floats]:
        """See `Affinity`; boosts choose among twice as many as are asked for."""
        everything = None if allowed.all() else allowed
        rows, scores = self.index.top(taste, _SPARE * count, everything)
        order = np.argsort(rows)
        rows = rows[order]
        return best(rows, boosted(scores[order], boost(rows)), count)

    def parts(self, items: Rows, weights: Floats, of: Rows) -> Floats:
        """See `Affinity`: w_j v_iᵀ A⁻¹ v_j, with A the system that the history's taste solves."""
        vectors = self.index.vectors(items)
        weighted = vectors * weights[:, None]
        system = weighted.T @ vectors + self.system.gram
        diagonal = self.system.lambda_ * (weights.sum() + self.system.alpha * self.system.others)
        system[np.diag_indices_from(system)] += diagonal
        return np.asarray(weighted @ np.linalg.solve(system, self.index.vectors(of).T))


def boosted(scores: Floats, factors: Floats) -> Floats:
    """Scores · factors, which leave negative scores alone: a trend must not make them worse."""
    return np.where(scores > 0.0, scores * factors, scores).astype(np.float32)
