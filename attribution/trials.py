"""A trial: one estimator on one target, its value and every interval that can be had of it.

Trials know nothing of how weights came about: single choices, slates and continuous actions all
bring their terms here, so that there is one set of intervals for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from attribution.bootstrap import DRAWS, poisson_sums
from attribution.errors import AttributionError
from attribution.estimators import Terms
from attribution.intervals import (
    Interval,
    Part,
    Spread,
    Sums,
    blocks,
    cressie_read_levels,
    deviations,
    jackknife,
    ratio,
    skew_corrected,
    sliced,
    spread,
    totals,
    unit_sums,
)
from attribution.sequences import Bounded, bernstein_lower, betting_lower, steadied

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
IntervalName = Literal[
    "auto", "jackknife", "skew_corrected", "cressie_read", "bernstein", "anytime", "bootstrap"
]
INTERVALS: tuple[IntervalName, ...] = get_args(IntervalName)

# The estimate that belongs to a Cressie–Read interval replaces the estimator's own, which may lie
# outside of it.
CRESSIE_READ = "cressie_read, value its centre"
SKEW_CORRECTED = "jackknife, skew corrected"
BIASED = ", bias not covered"
# Where all rewards are alike these have no width, and hence no meaning.
ASYMPTOTIC = ("jackknife", "skew_corrected", "bootstrap")
# See `intervals.Spread`: at 0.1 a nominal tail of .025 is about .033.
LARGEST_ASYMMETRY = 0.1
# Up to here skewness can be corrected for (the study in docs/study.md), as long as it comes from
# rewards that were seen and not from weights that may not have been.
CORRECTABLE_ASYMMETRY = 0.3
CORRECTABLE_WEIGHTS = 0.08
# Below these degrees of freedom of the variance, m − 1 promises too much.
LEAST_DF = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What intervals need to know of a log beside an estimate's terms.

    ``unit`` (n,) codes or None; ``order`` (m,) the units in the order of time, or None as they
    are coded; ``most_rows`` the largest number of rows that a unit can have, NaN if not known.
    """

    n: int
    unit: IntArray | None
    order: IntArray | None
    reward_range: tuple[float, float] | None
    most_rows: float
    silent: bool

    @property
    def n_units(self) -> int:
        """Units; rows where no unit was given."""
        return self.n if self.unit is None else int(self.unit.max()) + 1

    def ranges(self, interval: str) -> tuple[float, float]:
        """The declared range of the reward.

        Raises
        ------
        AttributionError
            If it was not declared.
        """
        if self.reward_range is None:
            raise AttributionError(
                f'`interval` is "{interval}" but the log declares no `reward_range`, without which '
                "the worst unseen reward is unknown. Declare it."
            )
        return self.reward_range


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What all estimates of one report share."""

    sample: Sample
    interval: IntervalName
    alpha: float
    seed: int

    @property
    def guards(self) -> bool:
        """Whether a Cressie–Read interval may stand in for the jackknife."""
        return self.interval in ("auto", "cressie_read") and self.sample.reward_range is not None

    def chosen(self, shape: Shape) -> str:
        """The interval for targets of this shape.

        One choice for all estimators of a target: under heavy weights the influence values of
        one of them may look tame just because its heavy rows have not come yet.
        """
        if self.interval != "auto":
            return self.interval
        if shape.wild:
            return "cressie_read" if self.guards else "skew_corrected"
        return "jackknife" if shape.tame else "skew_corrected"

    def why(self, shape: Shape) -> str:
        """Why `chosen` chose as it did; empty where the caller did."""
        if self.interval != "auto":
            return ""
        seen = (
            f"asymmetry {shape.asymmetry:.2f} (of the weights {shape.weights:.2f}) and "
            f"{shape.df:,.0f} degrees of freedom"
        )
        if shape.tame:
            return f"jackknife: {seen}"
        if not shape.wild:
            return f"jackknife, skew corrected: {seen}"
        if self.guards:
            return f"Cressie–Read: {seen}"
        return f"jackknife in spite of {seen}, since no reward_range is declared"


@dataclass(frozen=True, slots=True)
class Shape:
    """How far the estimates of a target are from what Student's t supposes.

    ``asymmetry`` the largest of the unbiased estimates; ``weights`` that of the weights;
    ``df`` the fewest degrees of freedom of their variances. See `intervals.Spread`.
    """

    asymmetry: float
    weights: float
    df: float

    @property
    def tame(self) -> bool:
        """Whether the plain jackknife keeps its promise."""
        return max(self.asymmetry, self.weights) <= LARGEST_ASYMMETRY and self.df >= LEAST_DF

    @property
    def wild(self) -> bool:
        """Whether correcting for the skewness that was seen is not enough."""
        return not (
            self.tame
            or (self.asymmetry <= CORRECTABLE_ASYMMETRY and self.weights <= CORRECTABLE_WEIGHTS)
        )

    def joined(self, other: Shape) -> Shape:
        """The worse of two."""
        return Shape(
            max(self.asymmetry, other.asymmetry),
            max(self.weights, other.weights),
            min(self.df, other.df),
        )


@dataclass(frozen=True, eq=False)
class Trial:
    """One estimator on one target.

    Parameters
    ----------
    biased
        Its interval ignores a bias, so only those that promise nothing beyond the spread are
        had of it.
    gain_range, base_range
        What the declared range of the reward allows a row's gain and base to be.
    max_weight
        The largest weight that its terms can have.
    pmf
        The target's, where it is known, for comparisons.
    is_logging
        Whether this is the logging policy itself.
    note
        What a reader must know of how the estimate was made.
    influence
        (n,) instead of the terms' own, for estimators that are no ratio; they sum to zero.
    """

    setting: Setting
    name: str
    terms: Terms
    biased: bool = False
    gain_range: tuple[float, float] = (math.nan, math.nan)
    base_range: tuple[float, float] = (0.0, 0.0)
    max_weight: float = math.inf
    pmf: FloatArray | None = None
    is_logging: bool = False
    note: str = ""
    hyperparameter: float = math.nan
    influence: FloatArray | None = field(default=None, repr=False)

    def _sums(self, values: FloatArray) -> FloatArray:
        return unit_sums(values, self.setting.sample.unit)

    def _shared(self, values: FloatArray | float) -> FloatArray:
        """h times values, summed over units."""
        sample = self.setting.sample
        share = self.terms.share
        if isinstance(values, float):
            rows = np.full(sample.n, values)
            return self._sums(rows if isinstance(share, float) else rows * share)
        return self._sums(values if isinstance(share, float) else values * share)

    @property
    def rows(self) -> FloatArray:
        """Σ h over each unit, (m,)."""
        return self._shared(1.0)

    def parts(self) -> Iterator[list[Part]]:
        """Numerators and sizes of the ratios whose sum is the estimate, some units at a time."""
        sample, terms = self.setting.sample, self.terms
        if sample.unit is None:
            for rows in blocks(sample.n):
                yield self._ratios(terms.rows(rows), 1.0)
        else:
            yield from sliced(self._units())

    def _ratios(self, terms: Terms, one: FloatArray | float) -> list[Part]:
        share: FloatArray | float = terms.share
        size = share if self.influence is None else one
        total = terms.total
        if not terms.self_normalised:
            return [(total, size)]
        weight = terms.weight if isinstance(share, float) else terms.weight * share
        if isinstance(terms.base, float):
            return [(total, weight)]
        base = terms.base if isinstance(share, float) else terms.base * share
        return [(base, size), (total - base, weight)]

    def _units(self) -> list[Part]:
        """`_ratios` over all rows, summed by unit."""
        ones = np.ones(self.setting.sample.n)
        return [
            (self._sums(top), self._sums(ones * size))
            for top, size in self._ratios(self.terms, ones)
        ]

    @cached_property
    def _totals(self) -> list[tuple[float, float]]:
        return totals(self.parts())

    @property
    def ratios(self) -> int:
        """How many ratios make the estimate."""
        return len(self._totals)

    @cached_property
    def value(self) -> float:
        """The estimate, in the reward's unit; NaN where the sizes sum to zero."""
        return sum(ratio(*each) for each in self._totals)

    @cached_property
    def spread(self) -> Spread:
        """Standard error and asymmetry, by the jackknife."""
        return spread(self.deviations(), self.value)

    def deviations(self) -> Iterator[FloatArray]:
        """What the estimate moves by without each unit in turn, in blocks."""
        if self.influence is None:
            return deviations(self.parts(), self._totals)
        left = -self._sums(self.influence)
        return (left[units] for units in blocks(len(left)))

    def sums(self) -> Sums:
        """What Cressie–Read reads."""
        weight, rows = self._shared(self.terms.weight), self.rows
        return Sums(
            self._sums(self.terms.total),
            weight,
            rows,
            *self.gain_range,
            *self.base_range,
            imagined=self._together(weight, rows),
        )

    def _together(self, weight: FloatArray, rows: FloatArray) -> float:
        """How many rows of a unit are drawn together: all of them where one draw serves for all.

        The variance of the units' weights over that which independent rows would give them.
        """
        sample, share = self.setting.sample, self.terms.share
        excess = (self.terms.weight - 1) * share
        row = float(rows.sum()) / sample.n
        alone = float(excess @ excess)
        if sample.unit is None or not alone:
            return row
        apart = weight - rows
        return row * max(1.0, float(apart @ apart) / alone)

    def bounded(self) -> tuple[Bounded, Bounded]:
        """Terms for the lower end of the value, and of the value of the negated reward.

        With E[w] = 1 the value is E[b + w (g − l)] + l, in which every weighted term is ≥ 0.
        """
        sample = self.setting.sample
        kind = self.setting.interval
        low, high = sample.ranges(kind)
        if not isinstance(self.terms.share, float) or self.influence is not None:
            raise AttributionError(
                f'`interval` is "{kind}", which {self.name} has no proof for, since its rows count '
                'by shares that were chosen with the log. Use "jackknife".'
            )
        if not math.isfinite(self.max_weight) and kind == "bernstein":
            raise AttributionError(
                '`interval` is "bernstein" but the log declares no `max_weight`, without which the '
                'range of a term is unknown. Declare it, or use "anytime", which needs none.'
            )
        most_rows = known_rows(sample, kind)
        least, most = self.gain_range
        base_low, base_high = self.base_range
        total = self._sums(self.terms.total)
        weight = self._sums(self.terms.weight)
        rows = self.rows
        reach = self.max_weight * (most - least)
        base = np.zeros_like(total)
        if not isinstance(self.terms.base, float):
            base = self._sums(self.terms.base)
        ends = []
        for sign in (1.0, -1.0):
            worst = least if sign > 0 else -most
            best = most if sign > 0 else -least
            floor = base_low if sign > 0 else -base_high
            columns = [sign * (total - base), weight, sign * base, rows]
            if sample.order is not None:
                columns = [each[sample.order] for each in columns]
            gain, borne, known, size = columns
            bounded = math.isfinite(self.max_weight)
            ends.append(
                Bounded(
                    known + gain + worst * (size - borne),
                    size,
                    floor + worst,
                    floor + worst + reach + base_high - base_low,
                    most_rows,
                    high - low,
                    steadied(gain, borne, known, size, (worst, best), floor, self.max_weight)
                    if bounded
                    else None,
                )
            )
        return ends[0], ends[1]

    def interval(self, shape: Shape, draws: FloatArray | None) -> tuple[str, Interval]:
        """The interval chosen and its name; ``draws`` are those of `resampled`, if made."""
        setting = self.setting
        kind = "cressie_read" if self.name == "cressie_read" else setting.chosen(shape)
        if self.biased and draws is None:
            kind = "jackknife"
        if setting.sample.silent and kind in ASYMPTOTIC:
            return "none", Interval(self.value, math.nan, math.nan, math.nan)
        plain = jackknife(self.value, self.spread, setting.alpha)
        suffix = BIASED if self.biased else ""
        if kind == "jackknife":
            return kind + suffix, plain
        if kind == "skew_corrected":
            return SKEW_CORRECTED, skew_corrected(self.value, self.spread, setting.alpha)
        if draws is not None and kind == "bootstrap":
            low, high = np.quantile(draws, [setting.alpha / 2, 1 - setting.alpha / 2])
            return kind + suffix, Interval(self.value, plain.se, float(low), float(high))
        bounds = setting.sample.ranges(kind)
        if kind == "cressie_read":
            ends_at = cressie_read_levels(self.sums(), self.max_weight)
            ends = ends_at(setting.alpha)
            return CRESSIE_READ, Interval.around(plain.se, ends, ends_at(1.0), bounds)
        lower = bernstein_lower if kind == "bernstein" else betting_lower
        up, down = self.bounded()
        ends = lower(up, setting.alpha / 2), -lower(down, setting.alpha / 2)
        return kind, Interval.around(plain.se, ends, (self.value, self.value), bounds)

    def columns(self) -> list[FloatArray]:
        """What the bootstrap sums: numerators centred, and their sizes, (m,) each.

        In single precision, which the centring affords.
        """
        found: list[FloatArray] = []
        at = 0
        for block in self.parts():
            for index, ((top, size), sums) in enumerate(zip(block, self._totals, strict=True)):
                if at == 0:
                    found += [np.empty(self.setting.sample.n_units, np.float32) for _ in "ab"]
                there = slice(at, at + len(top))
                found[2 * index][there] = top - ratio(*sums) * size
                found[2 * index + 1][there] = size
            at += len(block[0][0])
        return found


def resampled(trials: Sequence[Trial]) -> list[FloatArray]:
    """Every trial in each bootstrap draw, (draws,) each, with the same weights for all of them.

    A draw that leaves nothing to divide by repeats the estimate.
    """
    stacked = np.stack([column for trial in trials for column in trial.columns()])
    sums = iter(poisson_sums(stacked, DRAWS, trials[0].setting.seed))
    found = []
    for trial in trials:
        drawn = np.full(DRAWS, trial.value)
        for _ in range(trial.ratios):
            top, below = next(sums), next(sums)
            drawn += np.divide(top, below, out=np.zeros(DRAWS), where=below != 0)
        found.append(drawn)
    return found


def known_rows(sample: Sample, kind: str) -> float:
    """The largest number of rows that a unit can have.

    Raises
    ------
    AttributionError
        If it was not declared.
    """
    if math.isnan(sample.most_rows):
        raise AttributionError(
            f'`interval` is "{kind}" and units have unequal numbers of rows, but the log declares '
            "no `max_rows`, without which the range of a unit's sum is unknown. Declare it."
        )
    return sample.most_rows
