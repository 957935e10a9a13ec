"""A trial: one estimator on one target, its value and every interval that can be had of it.

Trials know nothing of how weights came about: single choices, slates and continuous actions all
bring their terms here, so that there is one set of intervals for all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from attribution.bootstrap import PoissonSums
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
    moments_of,
    ratio,
    skew_corrected,
    sliced,
    spread,
    totals,
    unit_sums,
)
from attribution.moments import Moments
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

    ``n`` rows of ``n_units`` units, one each where ``unit`` (n,) has no codes; ``order`` (m,) the
    units in the order of time, or None as they are coded; ``most_rows`` the largest number of rows
    that a unit can have, NaN if not known; ``silent`` whether all rewards are alike.
    """

    n: int
    n_units: int
    unit: IntArray | None
    order: IntArray | None
    reward_range: tuple[float, float] | None
    most_rows: float
    silent: bool

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
class Estimate(ABC):
    """One estimator on one target: what its intervals and comparisons read of it.

    Parameters
    ----------
    biased
        Its interval ignores a bias, so only those that promise nothing beyond the spread are
        had of it.
    gain_range, base_range
        What the declared range of the reward allows a row's gain and base to be.
    max_weight
        The largest weight that its terms can have.
    is_logging
        Whether this is the logging policy itself.
    note
        What a reader must know of how the estimate was made.
    """

    setting: Setting
    name: str
    _: KW_ONLY
    biased: bool = False
    gain_range: tuple[float, float] = (math.nan, math.nan)
    base_range: tuple[float, float] = (0.0, 0.0)
    max_weight: float = math.inf
    is_logging: bool = False
    note: str = ""
    hyperparameter: float = math.nan

    @property
    @abstractmethod
    def value(self) -> float:
        """The estimate, in the reward's unit; NaN where the sizes sum to zero."""

    @property
    @abstractmethod
    def spread(self) -> Spread:
        """Standard error and asymmetry, by the jackknife."""

    @property
    def shared(self) -> bool:
        """Whether rows count by shares that were chosen with the log."""
        return False

    @abstractmethod
    def sums(self) -> Sums:
        """What Cressie–Read reads."""

    def bounded(self) -> tuple[Bounded, Bounded]:
        """What Bernstein's and the anytime intervals read: terms for the lower end of the value,
        and of the value of the negated reward.

        Raises
        ------
        AttributionError
            If units are not at hand in their order.
        """
        raise AttributionError(
            f'`interval` is "{self.setting.interval}", which takes units in their order. '
            "Read the log into memory."
        )

    def interval(self, shape: Shape, draws: FloatArray | None) -> tuple[str, Interval]:
        """The interval chosen and its name; ``draws`` are those of the bootstrap, if made."""
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


@dataclass(frozen=True, eq=False)
class Trial(Estimate):
    """An estimate from columns of all rows.

    Parameters
    ----------
    pmf
        The target's, where it is known, for comparisons.
    influence
        (n,) instead of the terms' own, for estimators that are no ratio; they sum to zero.
    """

    terms: Terms
    pmf: FloatArray | None = field(default=None, kw_only=True)
    influence: FloatArray | None = field(default=None, repr=False, kw_only=True)

    def _sums(self, values: FloatArray) -> FloatArray:
        return unit_sums(values, self.setting.sample.unit)

    @property
    def total(self) -> FloatArray:
        """Σ h (b + w g) over each unit, (m,)."""
        return self._sums(self.terms.total)

    @property
    def weight(self) -> FloatArray:
        """Σ h w over each unit, (m,)."""
        return self._sums(self.terms.weight * self.terms.share)

    @property
    def rows(self) -> FloatArray:
        """Σ h over each unit, (m,)."""
        return self._sums(np.ones(self.setting.sample.n) * self.terms.share)

    @property
    def shared(self) -> bool:
        return not isinstance(self.terms.share, float)

    def parts(self) -> Iterator[list[Part]]:
        """Numerators and sizes of the ratios whose sum is the estimate, some units at a time."""
        sample = self.setting.sample
        if sample.unit is None:
            for rows in blocks(sample.n):
                yield self._ratios(self.terms.rows(rows))
        else:
            ones = np.ones(sample.n)
            yield from sliced(
                [
                    (self._sums(top), self._sums(ones * size))
                    for top, size in self._ratios(self.terms)
                ]
            )

    def _ratios(self, terms: Terms) -> list[Part]:
        return terms.ratios(terms.share if self.influence is None else 1.0)

    @cached_property
    def totals(self) -> list[tuple[float, float]]:
        """Σ numerator and Σ size of each of its ratios."""
        return totals(self.parts())

    @property
    def ratios(self) -> int:
        """How many ratios make the estimate."""
        return len(self.totals)

    @cached_property
    def value(self) -> float:
        """The estimate, in the reward's unit; NaN where the sizes sum to zero."""
        return sum(ratio(*each) for each in self.totals)

    @cached_property
    def spread(self) -> Spread:
        """Standard error and asymmetry, by the jackknife."""
        return spread(self.deviations(), self.value)

    def deviations(self) -> Iterator[FloatArray]:
        """What the estimate moves by without each unit in turn, in blocks."""
        if self.influence is None:
            return deviations(self.parts(), self.totals)
        left = -self._sums(self.influence)
        return (left[units] for units in blocks(len(left)))

    def sums(self, less: Trial | None = None) -> Sums:
        """What Cressie–Read reads; of the difference with the logging policy ``less``, if given."""
        total = self.total if less is None else self.total - less.total
        found = Sums(moments_of(total, self.weight, self.rows), *self.gain_range, *self.base_range)
        excess = (self.terms.weight - 1) * self.terms.share
        sample = self.setting.sample
        alone = 0.0 if sample.unit is None else float(excess @ excess)
        found = replace(found, imagined=drawn_together(found.moments, alone, sample.n))
        return found if less is None else found.beside_logging()

    def bounded(self) -> tuple[Bounded, Bounded]:
        """Terms for the lower end of the value, and of the value of the negated reward.

        With E[w] = 1 the value is E[b + w (g − l)] + l, in which every weighted term is ≥ 0.
        """
        sample = self.setting.sample
        kind = self.setting.interval
        low, high = sample.ranges(kind)
        if self.shared or self.influence is not None:
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
        total, weight, rows = self.total, self.weight, self.rows
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


def resampled(trials: Sequence[Trial]) -> list[FloatArray]:
    """Every trial in each bootstrap draw, (draws,) each, with the same weights for all of them."""
    sums = PoissonSums(2 * sum(trial.ratios for trial in trials), trials[0].setting.seed)
    for block in zip(*(trial.parts() for trial in trials), strict=True):
        columns = (centred(parts, each.totals) for parts, each in zip(block, trials, strict=True))
        sums.add(chain.from_iterable(columns), len(block[0][0][0]))
    return drawn_values(sums.total(), [(trial.value, trial.ratios) for trial in trials])


def centred(parts: Sequence[Part], sums: Sequence[tuple[float, float]]) -> Iterator[FloatArray]:
    """What the bootstrap sums of some units: numerators less value times size, and sizes.

    Centred, they afford single precision.
    """
    for (top, size), whole in zip(parts, sums, strict=True):
        yield top - ratio(*whole) * size
        yield np.full(len(top), size) if isinstance(size, float) else size


def drawn_values(sums: FloatArray, estimates: Sequence[tuple[float, int]]) -> list[FloatArray]:
    """Each estimate in each draw, from the draws' sums of `centred` columns, (c, draws).

    ``estimates`` gives each one's value and number of ratios. A draw that leaves nothing to divide
    by repeats the value.
    """
    rows = iter(sums)
    found = []
    for value, ratios in estimates:
        drawn = np.full(sums.shape[1], value)
        for _ in range(ratios):
            top, below = next(rows), next(rows)
            drawn += np.divide(top, below, out=np.zeros_like(top), where=below != 0)
        found.append(drawn)
    return found


def drawn_together(moments: Moments, alone: float, n: int) -> float:
    """How many rows of a unit are drawn together: all of them where one draw serves for all.

    The variance of the units' weights over that which independent rows would give them.

    Parameters
    ----------
    moments
        Of the units' totals, weights and numbers of rows.
    alone
        Σ (w − 1)² over all n rows; zero where each row is a unit.
    """
    m, mean, products = int(moments.n[0]), moments.mean[0], moments.m2[0]
    row = m * float(mean[2]) / n
    if not alone:
        return row
    together = products[1, 1] - 2 * products[1, 2] + products[2, 2] + m * (mean[1] - mean[2]) ** 2
    return row * max(1.0, float(together) / alone)


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
