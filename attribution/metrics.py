"""Metrics without frames: which outcomes count for a decision, when it matures, its value.

Times are integer microseconds since the Unix epoch, UTC. The engine learns through these
functions and reports go through `attribution.joins`; a test holds the two to the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from attribution.errors import AttributionError

Aggregate = Literal["max", "min", "sum", "mean", "last", "first", "count"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """How the outcomes of one name become one number for a decision or a unit.

    ``window_s`` is how long after the decision an outcome may occur, ``lateness_s`` how much
    longer it may take to arrive; ``default`` is the value where nothing counted. ``opens_s`` is how
    long after the decision the window opens, such as a week for retention in the second.
    """

    name: str
    window_s: float
    lateness_s: float = 0.0
    aggregate: Aggregate = "sum"
    default: float = 0.0
    opens_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            raise AttributionError("`name` of a metric is empty. Give it a name.")
        for field in ("window_s", "lateness_s", "opens_s"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0):
                raise AttributionError(
                    f"`{self.name}.{field}` is {value}. It must be a finite number of seconds ≥ 0."
                )
        if self.opens_s and self.opens_s >= self.window_s:
            raise AttributionError(
                f"`{self.name}.opens_s` is {self.opens_s} and `window_s` {self.window_s}. "
                "A window opens before it closes."
            )
        if self.aggregate not in AGGREGATES:
            raise AttributionError(
                f"`{self.name}.aggregate` is {self.aggregate!r}. Known: {', '.join(AGGREGATES)}."
            )
        if not math.isfinite(self.default):
            raise AttributionError(f"`{self.name}.default` is {self.default}. It must be finite.")

    @property
    def window_us(self) -> int:
        """Length of the window, in microseconds."""
        return round(self.window_s * 1_000_000)

    @property
    def opens_us(self) -> int:
        """Time from a decision to the opening of its window, in microseconds."""
        return round(self.opens_s * 1_000_000)

    @property
    def maturity_us(self) -> int:
        """Time from a decision to its maturity, in microseconds: window plus lateness."""
        return self.window_us + round(self.lateness_s * 1_000_000)


@dataclass(frozen=True, slots=True, order=True)
class OutcomeEvent:
    """One outcome of one metric; ordered by when it occurred, then arrived, then by value."""

    occurred_at: int
    received_at: int
    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise AttributionError(f"`value` of an outcome is {self.value}. It must be finite.")


def matures_at(spec: MetricSpec, decided_at: int) -> int:
    """Time from which a decision may be learned from or evaluated, in microseconds."""
    return decided_at + spec.maturity_us


def counts(spec: MetricSpec, decided_at: int, event: OutcomeEvent) -> bool:
    """Whether an outcome counts for a decision.

    It must occur in [decided_at + opens, decided_at + window], ends included, and have arrived by
    the time the decision matures. Time alone decides, so a later arrival changes no report.
    """
    return (
        decided_at + spec.opens_us <= event.occurred_at <= decided_at + spec.window_us
        and event.received_at <= matures_at(spec, decided_at)
    )


def metric_value(spec: MetricSpec, decided_at: int, events: Iterable[OutcomeEvent]) -> float:
    """The metric of one decision: the aggregate of the events that count, else the default.

    The order of ``events`` never changes the result, to the last bit: they are sorted, and
    sums are exact before their one rounding.

    >>> watch = MetricSpec("watch", window_s=60, aggregate="max")
    >>> metric_value(watch, 0, [OutcomeEvent(1, 1, 0.3), OutcomeEvent(2, 2, 0.8)])
    0.8
    >>> metric_value(watch, 0, [OutcomeEvent(61_000_000, 61_000_000, 1.0)])
    0.0
    """
    values = [event.value for event in sorted(e for e in events if counts(spec, decided_at, e))]
    if not values:
        return float(spec.default)
    match spec.aggregate:
        case "max":
            return max(values)
        case "min":
            return min(values)
        case "sum":
            return math.fsum(values)
        case "mean":
            return math.fsum(values) / len(values)
        case "last":
            return values[-1]
        case "first":
            return values[0]
        case "count":
            return float(len(values))
