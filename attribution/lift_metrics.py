"""What lift compares: kinds of metric over columns of one value for each unit.

Every kind but a quantile is a smooth function of means, so that centred moments of its columns
are all that a report needs of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from attribution.errors import AttributionError, refuse_rows

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Better: TypeAlias = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What every kind of metric has.

    Parameters
    ----------
    column
        The column of values, one for each unit; missing where the unit has not matured.
    name
        What the report calls it; the column's name by default.
    covariates
        Columns known before assignment, by which the comparison is made more precise.
    floor, cap
        Values beyond these count as these (winsorisation). They must come from before the
        assignment, such as a quantile of last year's values: limits taken from the values that
        are compared depend on the effect, and break always-valid intervals.
    better
        The direction that is wanted, if one is.
    margin
        Makes it a guardrail: the largest worsening, in the metric's unit, that is no harm.
    resting
        The value of a unit of which nothing was seen. Values that differ from it are counted, and
        an interval waits until there are enough of them.
    """

    column: str
    name: str = ""
    covariates: tuple[str, ...] = field(default=(), kw_only=True)
    floor: float = field(default=-math.inf, kw_only=True)
    cap: float = field(default=math.inf, kw_only=True)
    better: Better | None = field(default=None, kw_only=True)
    margin: float | None = field(default=None, kw_only=True)
    resting: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not self.column:
            raise AttributionError("`column` of a metric is empty. Name the column of its values.")
        object.__setattr__(self, "name", self.name or self.default_name)
        object.__setattr__(self, "covariates", tuple(self.covariates))
        if not self.floor < self.cap:
            raise AttributionError(
                f"`floor` of {self.name!r} is {self.floor} and `cap` {self.cap}. "
                "The floor must lie below the cap."
            )
        if self.better not in {None, "up", "down"}:
            raise AttributionError(f"`better` of {self.name!r} is {self.better!r}. Say up or down.")
        if self.margin is not None:
            if not (math.isfinite(self.margin) and self.margin >= 0):
                raise AttributionError(
                    f"`margin` of {self.name!r} is {self.margin}. It must be a number ≥ 0."
                )
            if self.better is None:
                raise AttributionError(
                    f"`better` of {self.name!r} is missing. A guardrail's direction must be said."
                )

    @property
    def default_name(self) -> str:
        return self.column

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Columns of the outcome, the one whose departures are counted first."""
        return (self.column,)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of which moments are kept: the outcome's, then the covariates."""
        return (*self.outcomes, *self.covariates)

    def value(self, mean: FloatArray) -> float:
        """The metric of means (d,) of the outcome's columns."""
        return float(mean[0])

    def gradient(self, mean: FloatArray) -> FloatArray:
        """(d,) derivatives of `value` by the means."""
        return np.ones_like(mean)

    def prepared(self, values: FloatArray) -> FloatArray:
        """(n,) values of the first column as they enter, capped and checked."""
        return np.clip(values, self.floor, self.cap)


@dataclass(frozen=True, slots=True)
class Mean(Metric):
    """The mean of a number for each unit, such as revenue."""


@dataclass(frozen=True, slots=True)
class Proportion(Metric):
    """The share of units with a 1 among zeros and ones."""

    def prepared(self, values: FloatArray) -> FloatArray:
        refuse_rows(
            ~np.isnan(values) & (values != 0) & (values != 1),
            self.column,
            "is neither 0 nor 1",
            "A proportion is made of zeros and ones; use Mean for other numbers.",
            values,
        )
        return values


@dataclass(frozen=True, slots=True)
class Count(Metric):
    """The mean of a number of events for each unit: whole and not negative."""

    def prepared(self, values: FloatArray) -> FloatArray:
        known = ~np.isnan(values)
        refuse_rows(
            known & ((values < 0) | (values != np.round(values))),
            self.column,
            "is no count",
            "Counts are whole numbers from 0; use Mean for other numbers.",
            values,
        )
        return np.clip(values, self.floor, self.cap)


@dataclass(frozen=True, slots=True)
class Retention(Metric):
    """The share of units that were active in a window, such as days 8 to 14 after assignment.

    Its column counts a unit's activity in the window; any at all is retention. The window must
    be closed for units with a value, so that each unit enters once (`MetricSpec.opens_s`).
    """

    def prepared(self, values: FloatArray) -> FloatArray:
        return np.where(np.isnan(values), np.nan, (values > 0).astype(np.float64))


@dataclass(frozen=True, slots=True)
class Ratio(Metric):
    """One total over another, such as revenue per order: Σ column / Σ per, by the delta method.

    Its row is the unit still: units with more in ``per`` weigh more, and their number may itself
    be an effect.
    """

    per: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not self.per:
            raise AttributionError(f"`per` of the ratio of {self.column!r} is missing. Name it.")
        Metric.__post_init__(self)

    @property
    def default_name(self) -> str:
        return f"{self.column}/{self.per}"

    @property
    def outcomes(self) -> tuple[str, ...]:
        return (self.column, self.per)

    def value(self, mean: FloatArray) -> float:
        return float(mean[0] / mean[1]) if mean[1] else math.nan

    def gradient(self, mean: FloatArray) -> FloatArray:
        return np.array([1.0, -self.value(mean)]) / (mean[1] or math.nan)


@dataclass(frozen=True, slots=True)
class Quantile(Metric):
    """A quantile of a number for each unit, such as the 90th percentile of minutes watched."""

    quantile: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise AttributionError(
                f"`quantile` of {self.column!r} is {self.quantile}. It must lie in (0, 1)."
            )
        Metric.__post_init__(self)
        if self.covariates:
            raise AttributionError(
                f"`covariates` of {self.name!r} do not apply to a quantile. Leave them out."
            )

    @property
    def default_name(self) -> str:
        return f"{self.column} p{100 * self.quantile:g}"


def as_metrics(
    metrics: Sequence[str | Metric], covariates: Sequence[str] | None
) -> tuple[Metric, ...]:
    """Metrics with names of their own; a plain name is a mean, ``covariates`` those of all.

    Raises
    ------
    AttributionError
        If there is none, or two have one name.
    """
    if not metrics:
        raise AttributionError("`metrics` is empty. Name at least one column.")
    made = [Mean(metric) if isinstance(metric, str) else metric for metric in metrics]
    if covariates:
        made = [
            metric
            if metric.covariates or isinstance(metric, Quantile)
            else replace(metric, covariates=tuple(covariates))
            for metric in made
        ]
    names = [metric.name for metric in made]
    for name in names:
        if names.count(name) > 1:
            raise AttributionError(
                f"`metrics` has {name!r} {names.count(name)} times. Give each a `name` of its own."
            )
    return tuple(made)
