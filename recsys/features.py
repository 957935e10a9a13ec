"""What scorers read of candidates; whatever follows `Feature` stands beside what is here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys.call import Call
from recsys.candidates import Candidates
from recsys.catalogue import Catalogue
from recsys.errors import RecsysError
from recsys.rules import MICROSECONDS_PER_DAY, TRUE, Matches, column_of, numbers

FloatArray = npt.NDArray[np.float64]

LARGEST_NUMBER = 1e15
"""Of an attribute that a scorer reads, so that its prediction is a single float."""


class Feature(Protocol):
    """One number of each candidate."""

    @property
    def name(self) -> str:
        """What tells it from the others of a scorer."""
        ...

    def values(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:
        """(m,), NaN where it is unknown."""
        ...


def encode(
    features: Sequence[Feature], call: Call, catalogue: Catalogue, candidates: Candidates
) -> FloatArray:
    """(m, f), NaN where unknown, in the precision that traces keep.

    Raises
    ------
    RecsysError
        If a feature gives another number of values, or one that is infinite.
    """
    m = len(candidates.rows)
    found = np.empty((m, len(features)), np.float32)
    for column, feature in enumerate(features):
        values = np.asarray(feature.values(call, catalogue, candidates), np.float64)
        if values.shape != (m,) or (np.abs(values) > np.finfo(np.float32).max).any():
            raise RecsysError(
                f"feature {feature.name!r} gives values of shape {values.shape} for {m} "
                "candidates, or one beyond 3e38. It must give one number each, NaN if unknown."
            )
        found[:, column] = values
    return found.astype(np.float64)


@dataclass(frozen=True)
class Relevance:
    """The source's score, 0 for the lowest of the candidates and 1 for the highest."""

    name: str = "relevance"

    def values(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:  # noqa: ARG002  # as all features
        """See `Feature.values`."""
        scores = candidates.scores
        span = float(np.ptp(scores)) if len(scores) else 0.0
        return np.zeros(len(scores)) if span == 0.0 else (scores - scores.min()) / span


@dataclass(frozen=True)
class Number:
    """A column of numbers, by name or role; those beyond `LARGEST_NUMBER` count as unknown."""

    column: str

    @property
    def name(self) -> str:
        """The column's."""
        return self.column

    def values(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:  # noqa: ARG002  # as all features
        """See `Feature.values`."""
        column = numbers(catalogue, self.column)
        values = column.values[candidates.rows]
        # One feed's fault in one item must not cost every slate that the item is a candidate of.
        told = column.known[candidates.rows] & (np.abs(values) <= LARGEST_NUMBER)
        return np.where(told, values, math.nan)


@dataclass(frozen=True)
class Has:
    """1 for items that have a value, 0 for others.

    Parameters
    ----------
    value
        None: the value that the call's context has under ``context``; unknown without one.
    """

    column: str
    value: str | bool | None = None
    context: str = ""

    @property
    def name(self) -> str:
        """Column and value, or where the value stands."""
        return f"{self.column}={self.context or self.value}"

    def values(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:
        """See `Feature.values`."""
        wanted = self.value if self.value is not None else call.context.get(self.context)
        if wanted is None:
            return np.full(len(candidates.rows), math.nan)
        verdicts = Matches({self.column: wanted}).verdicts(catalogue, candidates.rows, call)
        return np.where(verdicts < 0, math.nan, verdicts == TRUE)


@dataclass(frozen=True)
class Freshness:
    """1 on the day an item was published, half of it after each half-life."""

    half_life_days: float = 30.0
    column: str = "published"
    name: str = "freshness"

    def values(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:
        """See `Feature.values`."""
        column = column_of(catalogue, self.column)
        at = column.values[candidates.rows]
        days = np.maximum(call.now - at, 0) / MICROSECONDS_PER_DAY
        return np.where(
            column.known[candidates.rows], 0.5 ** (days / self.half_life_days), math.nan
        )


@dataclass(frozen=True)
class From:
    """1 for what one source proposed, 0 for the rest."""

    source: str

    @property
    def name(self) -> str:
        """The source's."""
        return f"from={self.source}"

    def values(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:  # noqa: ARG002  # as all features
        """See `Feature.values`."""
        theirs = [name == self.source for name in candidates.sources]
        return np.array(theirs, np.float64)[candidates.source]
