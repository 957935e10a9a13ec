"""Scores candidates for a declared objective, from features that callers can add to."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys.call import Call
from recsys.candidates import Candidates
from recsys.catalogue import Catalogue

FloatArray = npt.NDArray[np.float64]


class Scorer(Protocol):
    """Whatever predicts an objective."""

    @property
    def digest(self) -> str:
        """What tells one version from another."""
        ...

    def scores(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:
        """(m,), finite, of each candidate in the unit of the objective; more is better."""
        ...


class Relevance:
    """The candidates' own scores."""

    digest = ""

    def scores(self, call: Call, catalogue: Catalogue, candidates: Candidates) -> FloatArray:  # noqa: ARG002  # as all scorers
        """See `Scorer.scores`."""
        return candidates.scores
