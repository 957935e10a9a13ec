"""What the study promises of every cell, and a row of its tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

LOOKS = 60
ALPHA = 0.05
COVERED = 0.94
TAIL = 0.035
FALSE_ALARMS = 0.06


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one kind of interval in a cell; misses are shares of those answered.

    ``width`` is the mean width over that of the plain interval of the same data, ``false_alarms``
    the share of logs in which any of the looks excluded the truth; NaN where it is not asked.
    """

    cell: str
    which: str
    answered: float
    too_high: float
    too_low: float
    width: float
    false_alarms: float = math.nan
    least_answered: float = 0.99
    widest: float = math.inf

    @property
    def coverage(self) -> float:
        """Share of the intervals that held the truth."""
        return 1 - self.too_high - self.too_low

    @property
    def kept(self) -> bool:
        """Whether all that is promised of the cell was kept."""
        return (
            self.coverage >= COVERED
            and max(self.too_high, self.too_low) <= TAIL
            and self.answered >= self.least_answered
            and self.width <= self.widest
            and not self.false_alarms > FALSE_ALARMS
        )

    def told(self) -> str:
        """A line of the table; a dash where no more than that is promised."""
        most = "" if math.isinf(self.widest) else f" of {self.widest:g}"
        alarms = "–" if math.isnan(self.false_alarms) else f"{self.false_alarms:.3f}"
        return (
            f"| {self.cell} | {self.which} | {self.answered:.1%} | {self.coverage:.3f} | "
            f"{self.too_high:.3f} | {self.too_low:.3f} | {self.width:.2f}{most} | {alarms} | "
            f"{'yes' if self.kept else '**no**'} |"
        )
