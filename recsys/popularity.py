"""How many users chose an item, and how many of them lately.

    expected_i = count_i · Σ recent / Σ count
    trend_i    = (recent_i + κ) / (expected_i + κ),   κ = 3 users

where ``recent`` counts a user who chose the item d days before as 2^(−d / half-life). A trend is
true near its time: d days later, when it is the last that is known, its logarithm counts
2^(−d / 4 half-lives), and d days before, when others were true, 2^(−d / half-life).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys.catalogue import Rows
from recsys.interactions import Interactions

Numbers = npt.NDArray[np.float64]

MICROSECONDS_A_DAY = 86_400_000_000
_PSEUDO_USERS = 3.0  # κ
_LASTING = 4.0  # half-lives in which the logarithm of the last known trend halves
_SEGMENT_USERS = 50.0  # as many of all users count beside those of the segment


@dataclass(frozen=True, eq=False)
class Popularity:
    """Of n items.

    Parameters
    ----------
    at
        Microseconds since 1970, UTC: when ``recent`` was counted.
    half_life_days
        After which a choice counts half.
    counts, recent
        (n,), of all users' choices.
    segments
        What the rows of ``by_segment`` stand for.
    by_segment
        (s, n), ``recent`` of the users in each segment.
    """

    at: int
    half_life_days: float
    counts: Numbers
    recent: Numbers
    segments: tuple[str, ...]
    by_segment: Numbers

    def decay(self, days: float | Numbers) -> Numbers:
        """2^(−days / half-life)."""
        return np.asarray(np.exp2(-np.asarray(days) / self.half_life_days))

    @cached_property
    def _log_trend(self) -> npt.NDArray[np.float32]:
        total = self.counts.sum()
        expected = self.counts * (self.recent.sum() / total if total > 0.0 else 0.0)
        trend = (self.recent + _PSEUDO_USERS) / (expected + _PSEUDO_USERS)
        return np.log(trend).astype(np.float32)

    def trend(self, now: int, items: Rows | None = None) -> npt.NDArray[np.float32]:
        """The trend at a time, as the module says, of all items (n,) or of some (m,)."""
        log_trend = self._log_trend if items is None else self._log_trend[items]
        days = (now - self.at) / MICROSECONDS_A_DAY
        validity = self.decay(days / _LASTING if days > 0.0 else -days)
        return np.asarray(np.exp(log_trend * np.float32(validity)))

    def scores(
        self, now: int, segment: str | None = None, items: Rows | None = None
    ) -> npt.NDArray[np.float32]:
        """How many choices would fall on each item at a time, or on each of some (m,).

        In a segment that is known they are those of its users, and of 50 out of all users.
        """
        there = slice(None) if items is None else items
        everywhere = self.counts[there] * self.trend(now, items)
        if segment not in self.segments:
            return everywhere.astype(np.float32)
        inside = self.by_segment[self.segments.index(segment)][there]
        total = max(float(self.counts.sum()), 1.0)
        return np.asarray(inside + _SEGMENT_USERS / total * everywhere, np.float32)

    def later(self, batch: Interactions, items: Rows, size: int) -> Popularity:
        """After more interactions, whose items are at ``items`` (m,) of now ``size``."""
        grown = size - len(self.counts)
        at = max(self.at, int(batch.at.max())) if len(batch) else self.at
        past = float(self.decay((at - self.at) / MICROSECONDS_A_DAY))
        then = replace(
            self,
            at=at,
            counts=np.pad(self.counts, (0, grown)),
            recent=np.pad(self.recent * past, (0, grown)),
            by_segment=np.pad(self.by_segment * past, ((0, 0), (0, grown))),
        )
        added = popularity(batch, items, size, self.half_life_days, at, self.segments)
        return replace(
            then,
            counts=then.counts + added.counts,
            recent=then.recent + added.recent,
            by_segment=then.by_segment + added.by_segment,
        )


def popularity(
    chosen: Interactions,
    items: Rows,
    size: int,
    half_life_days: float,
    at: int,
    segments: tuple[str, ...],
) -> Popularity:
    """Count the choices of ``size`` items; that of row i is at ``items[i]``."""
    empty = Popularity(
        at,
        half_life_days,
        np.zeros(size),
        np.zeros(size),
        segments,
        np.zeros((len(segments), size)),
    )
    weights = empty.decay((at - chosen.at) / MICROSECONDS_A_DAY)
    by_segment = empty.by_segment
    for row, segment in enumerate(segments):
        if segment in chosen.segments:
            inside = chosen.segment == chosen.segments.index(segment)
            by_segment[row] = np.bincount(items[inside], weights[inside], size)
    return replace(
        empty,
        counts=np.bincount(items, minlength=size).astype(np.float64),
        recent=np.bincount(items, weights, size).astype(np.float64),
    )
