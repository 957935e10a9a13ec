"""Candidates: the items that may fill a slate, with their scores and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys.call import Call, SlateKind
from recsys.catalogue import Catalogue, Mask, Rows
from recsys.errors import RecsysError


@dataclass(frozen=True, eq=False)
class Candidates:
    """m distinct items of a catalogue, the best first.

    Parameters
    ----------
    rows
        (m,), rows of the catalogue.
    scores
        (m,), finite, descending; comparable within one set of candidates only.
    source
        (m,), what brought each: an index into ``sources``.
    because
        (m,), the catalogue row of the seed that brought it, -1 where none did.

    Raises
    ------
    RecsysError
        If the arrays are not of that form.
    """

    rows: Rows
    scores: npt.NDArray[np.float64]
    source: npt.NDArray[np.int8]
    because: Rows
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        shapes = {a.shape for a in (self.rows, self.scores, self.source, self.because)}
        if shapes != {(len(self.rows),)}:
            raise RecsysError(f"candidates have arrays of shapes {sorted(shapes)}. Give (m,) each.")
        if len(self.rows) == 0:
            return
        if not np.isfinite(self.scores).all():
            raise RecsysError("candidates.scores holds numbers that are not finite.")
        ordered = np.sort(self.rows)
        if ordered[0] < 0 or (ordered[1:] == ordered[:-1]).any():
            raise RecsysError("candidates.rows names an item twice, or one that is not there.")
        if self.source.min() < 0 or self.source.max() >= len(self.sources):
            raise RecsysError(
                f"candidates.source names a source beyond the {len(self.sources)} given."
            )


class CandidateSource(Protocol):
    """Whatever proposes items: the embedded model bound to a catalogue, or an external one."""

    def candidates(
        self,
        call: Call,
        catalogue: Catalogue,
        kind: SlateKind,
        allowed: Mask | None,
        count: int,
    ) -> Candidates:
        """At most ``count`` candidates, none that ``allowed`` (n,) rules out.

        Fewer only where fewer are allowed, or where the kind relates to the seeds and fewer do.
        """
        ...
