"""Paired differences between targets on one log, and what many of them at once cost."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtr

from attribution.bootstrap import DRAWS
from attribution.errors import AttributionError
from attribution.estimators import Terms
from attribution.intervals import (
    Interval,
    Spread,
    Sums,
    cressie_read_levels,
    guarded_lower,
    guarded_p,
    jackknife,
    moments_of,
    skew_corrected,
    skew_corrected_p,
    spread,
    unit_sums,
)
from attribution.moments import Moments
from attribution.multiplicity import Familywise, adjusted
from attribution.report import Comparison
from attribution.sequences import (
    Bounded,
    bernstein_lower,
    bernstein_p,
    betting_lower,
    betting_p,
    steadied_difference,
)
from attribution.trials import (
    ASYMPTOTIC,
    BIASED,
    CRESSIE_READ,
    SKEW_CORRECTED,
    Estimate,
    Shape,
    Trial,
    known_rows,
)
from attribution.wording import NOT_SHOWN, moved

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pair(ABC):
    """Two estimates of one estimator to be compared, the first minus the second.

    ``shape`` is the worse of both targets'; ``weak`` names those of the two whose diagnostics are.
    """

    target: str
    against: str
    first: Estimate
    second: Estimate
    shape: Shape
    draws: FloatArray | None = None
    weak: Sequence[str] = ()

    @property
    @abstractmethod
    def spread(self) -> Spread:
        """Of the difference, a unit being dropped from both sides at once."""

    @abstractmethod
    def beside_logging(self) -> Sums:
        """What Cressie–Read reads of a target's value over the logging policy's."""

    @abstractmethod
    def gaps(self) -> tuple[Moments, Moments]:
        """Moments of `gap` over units and of their rows, of the difference and its negation."""

    def bounded(self) -> tuple[Bounded, Bounded]:
        """What Bernstein's and the anytime intervals read: terms for it and for its negation.

        Raises
        ------
        AttributionError
            If units are not at hand in their order.
        """
        raise AttributionError(
            f'`interval` is "{self.first.setting.interval}", which takes units in their order. '
            "Read the log into memory."
        )

    def found(self, alpha: float) -> tuple[str, Interval, float]:
        """The interval's name, the interval, and the p-value of no difference that is its dual.

        Of a biased estimator there is none: it would test the bias as well.
        """
        first, second = self.first, self.second
        setting = first.setting
        difference = first.value - second.value
        seen = self.spread
        # The differences' own skewness, but the weights of what they compare: two skewed values
        # may differ in a way that is not.
        kind = setting.chosen(Shape(seen.asymmetry, self.shape.weights, seen.df))
        if first.name == "cressie_read":
            kind = "cressie_read"
        if (first.biased or first.shared or second.shared) and kind != "bootstrap":
            kind = "jackknife"
        if setting.sample.silent and kind in ASYMPTOTIC:
            return "none", Interval(difference, math.nan, math.nan, math.nan), math.nan
        plain = jackknife(difference, seen, alpha)
        suffix = BIASED if first.biased else ""
        if kind == "jackknife":
            p = 2 * float(stdtr(seen.m - 1, -abs(difference) / seen.se)) if seen.se else 1.0
            return kind + suffix, plain, math.nan if first.biased else p
        if kind == "skew_corrected":
            found = skew_corrected(difference, seen, alpha)
            return SKEW_CORRECTED, found, skew_corrected_p(difference, seen)
        if self.draws is not None:
            low, high = np.quantile(self.draws, [alpha / 2, 1 - alpha / 2])
            below = min((self.draws <= 0).sum(), (self.draws >= 0).sum())
            p = math.nan if first.biased else min(1.0, 2 * float(below + 1) / (DRAWS + 1))
            return kind + suffix, Interval(difference, plain.se, float(low), float(high)), p
        least, most = setting.sample.ranges(kind)
        bounds = (least - most, most - least)
        if kind == "cressie_read" and second.is_logging:
            sums = self.beside_logging()
            return CRESSIE_READ, *_cressie_read(sums, first.max_weight, plain.se, bounds, alpha)
        if kind == "cressie_read":
            up, down = self.gaps()
            ends = guarded_lower(up, alpha), -guarded_lower(down, alpha)
            centres = guarded_lower(up, 1.0), -guarded_lower(down, 1.0)
            p = min(guarded_p(each, 0.0) for each in (up, down))
            return CRESSIE_READ, Interval.around(plain.se, ends, centres, bounds), p
        lower = bernstein_lower if kind == "bernstein" else betting_lower
        p_of = bernstein_p if kind == "bernstein" else betting_p
        above, below = self.bounded()
        ends = lower(above, alpha / 2), -lower(below, alpha / 2)
        found = Interval.around(plain.se, ends, (difference, difference), bounds)
        p = min(p_of(each, 0.0, alpha / 2) for each in (above, below))
        return kind, found, min(1.0, 2 * p)


@dataclass(frozen=True, eq=False)
class TrialPair(Pair):
    """A comparison of two trials."""

    first: Trial
    second: Trial

    @cached_property
    def spread(self) -> Spread:
        both = zip(self.first.deviations(), self.second.deviations(), strict=True)
        return spread((a - b for a, b in both), self.first.value - self.second.value)

    def beside_logging(self) -> Sums:
        return self.first.sums(less=self.second)

    def gaps(self) -> tuple[Moments, Moments]:
        up, down = self._gap(self.first, self.second), self._gap(self.second, self.first)
        return moments_of(up, self.first.rows), moments_of(down, self.first.rows)

    def bounded(self) -> tuple[Bounded, Bounded]:
        sample, rows = self.first.setting.sample, self.first.rows
        low, high = self.first.gain_range
        base_low, base_high = self.first.base_range
        floor = base_low - base_high - (high - low)
        ceiling = base_high - base_low + 2 * self.first.max_weight * (high - low)
        most_rows = known_rows(sample, self.first.setting.interval)
        order = slice(None) if sample.order is None else sample.order
        up, down = (
            Bounded(
                self._gap(one, other)[order],
                rows[order],
                floor,
                ceiling,
                most_rows,
                high - low,
                _steadied(one, other),
            )
            for one, other in ((self.first, self.second), (self.second, self.first))
        )
        return up, down

    def _gap(self, first: Trial, second: Trial) -> FloatArray:
        apart = None
        if first.pmf is not None and second.pmf is not None:
            apart = distance(first.pmf, second.pmf)
        each = gap(first.terms, second.terms, apart, first.gain_range)
        return unit_sums(each, first.setting.sample.unit)


def distance(first: FloatArray, second: FloatArray) -> FloatArray:
    """Total variation of two pmfs in each row, ½ Σ_a |π₁ − π₂|, (n,)."""
    apart: FloatArray = 0.5 * np.abs(first - second).sum(axis=1)
    return apart


def gap(
    first: Terms, second: Terms, apart: FloatArray | None, gain_range: tuple[float, float]
) -> FloatArray:
    """Terms of V₁ − V₂ whose long tails all point up, so that their lower end is safe, (n,).

    With d = w₁ − w₂, gains g in [l, h] and TV = ½ Σ_a |π₁ − π₂|, E[d⁺] = E[d⁻] = E[TV], so

        V₁ − V₂ = E[ b₁ − b₂ + d⁺ (g − l) + d⁻ (h − g) − (h − l) TV ]

    in which every weighted term is ≥ 0.
    Where TV is not known, w₁ (g − l) + l and h − w₂ (h − g) bound the two values apart.
    """
    low, high = gain_range
    gain, w1, w2 = first.gain, first.weight, second.weight
    if apart is None:
        weighted = w1 * (gain - low) + w2 * (high - gain) - (high - low)
    else:
        d = w1 - w2
        weighted = np.where(d > 0, d * (gain - low), -d * (high - gain)) - (high - low) * apart
    found: FloatArray = first.base - second.base + weighted
    return found


def compare(pairs: Sequence[Pair], alpha: float, correction: Familywise) -> list[Comparison]:
    """The comparisons of one estimator, adjusted for there being several of them.

    With ``holm`` the p-values are Holm's, which keep the chance of any false finding among the
    pairs below ``alpha``; the adjusted intervals are Bonferroni's, of level 1 − alpha / pairs,
    which all hold at once (Holm's own have no finite ends for what it rejects first).
    """
    count = len(pairs)
    several = correction == "holm" and count > 1
    plain = [pair.found(alpha) for pair in pairs]
    p = np.array([each[2] for each in plain])
    corrected = adjusted(p, correction)
    rows = []
    for index, (pair, (name, found, p_value)) in enumerate(zip(pairs, plain, strict=True)):
        wide = pair.found(alpha / count)[1] if several else found
        verdict = _verdict(pair, found, float(corrected[index]), alpha)
        rows.append(
            Comparison(
                pair.target,
                pair.against,
                pair.first.name,
                found.value,
                found.se,
                found.low,
                found.high,
                name,
                p_value,
                float(corrected[index]),
                # At a wider level the interval may have another centre, yet never be narrower.
                min(wide.low, found.low),
                max(wide.high, found.high),
                f"p: Holm, interval: Bonferroni, of {count}" if several else "none",
                verdict,
                _advice(verdict, pair),
            )
        )
    return rows


def _verdict(pair: Pair, found: Interval, p_value: float, alpha: float) -> str:
    if math.isnan(found.low):
        return "no interval: the reward never varied"
    if pair.first.biased:
        return "no verdict: the estimator is biased"
    return moved(found.value, p_value, alpha)


def _advice(verdict: str, pair: Pair) -> str:
    """What to do next: read why a side is weak first, if one is."""
    weak = " and ".join(pair.weak)
    told = f"{weak} {'are' if len(pair.weak) > 1 else 'is'} weak, read why first; " if weak else ""
    return told + _next(verdict, pair.against)


def _next(verdict: str, against: str) -> str:
    """What to do next; which direction is better, an evaluation does not know."""
    if verdict == NOT_SHOWN:
        return (
            "log more before you choose, or choose by something else if no difference within the "
            "interval matters"
        )
    if verdict.startswith("no verdict"):
        return "read it beside an unbiased estimator, and go by that"
    if verdict.startswith("no interval"):
        return "declare the reward's range, or wait until it varies"
    how = "more" if verdict == "higher" else "less"
    return (
        f"it brings {how} than {against} would have on this log: confirm what you like of it in an "
        "experiment"
    )


def _cressie_read(
    sums: Sums, max_weight: float, se: float, bounds: tuple[float, float], alpha: float
) -> tuple[Interval, float]:
    """A difference's Cressie–Read interval, and the p-value of no difference that is its dual."""
    ends_at = cressie_read_levels(sums, max_weight)
    found = Interval.around(se, ends_at(alpha), ends_at(1.0), bounds)

    def excludes(level: float) -> float:
        lower, upper = ends_at(level)
        return max(lower, -upper)

    if excludes(1.0) <= 0:
        return found, 1.0
    least = 1e-12
    if excludes(least) >= 0:
        return found, least
    return found, math.exp(brentq(lambda x: excludes(math.exp(x)), math.log(least), 0.0))


def _steadied(first: Trial, second: Trial) -> tuple[FloatArray, FloatArray] | None:
    """What the bets on V₁ − V₂ may be steadied by, where neither's weights are unbounded."""
    mine, other = (
        (1.0, 1.0) if each.is_logging else (0.0, each.max_weight) for each in (first, second)
    )
    if not (math.isfinite(mine[1]) and math.isfinite(other[1])):
        return None
    sample, gain = first.setting.sample, first.terms.gain
    apart = first.terms.weight - second.terms.weight
    columns = [
        unit_sums(each, sample.unit)
        for each in (
            first.terms.base - second.terms.base + apart * gain,
            apart,
            apart**2 * gain,
            apart**2,
        )
    ]
    if sample.order is not None:
        columns = [each[sample.order] for each in columns]
    total, unit_apart, squared_gain, squared = columns
    base_low, base_high = first.base_range
    return steadied_difference(
        total,
        unit_apart,
        (squared_gain, squared),
        first.gain_range,
        base_low - base_high,
        (mine[0] - other[1], mine[1] - other[0]),
    )
