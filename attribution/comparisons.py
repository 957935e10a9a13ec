"""Paired differences between targets on one log, and what many of them at once cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtr

from attribution.bootstrap import DRAWS
from attribution.intervals import (
    Interval,
    cressie_read_levels,
    guarded_lower,
    guarded_p,
    jackknife,
    skew_corrected,
    skew_corrected_p,
    spread,
    unit_sums,
)
from attribution.multiplicity import Familywise, adjusted
from attribution.report import Comparison
from attribution.sequences import Bounded, bernstein_lower, bernstein_p, betting_lower, betting_p
from attribution.trials import (
    ASYMPTOTIC,
    BIASED,
    CRESSIE_READ,
    SKEW_CORRECTED,
    Shape,
    Trial,
    known_rows,
)
from attribution.wording import NOT_SHOWN, moved

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two trials of one estimator to be compared, the first minus the second."""

    target: str
    against: str
    first: Trial
    second: Trial
    shape: Shape
    draws: FloatArray | None = None

    def found(self, alpha: float) -> tuple[str, Interval, float]:
        """The interval's name, the interval, and the p-value of no difference that is its dual.

        Of a biased estimator there is none: it would test the bias as well.
        """
        first, second = self.first, self.second
        setting = first.setting
        difference = first.value - second.value
        both = zip(first.deviations(), second.deviations(), strict=True)
        seen = spread((a - b for a, b in both), difference)
        # The differences' own skewness, but the weights of what they compare: two skewed values
        # may differ in a way that is not.
        kind = setting.chosen(Shape(seen.asymmetry, self.shape.weights, seen.df))
        if first.name == "cressie_read":
            kind = "cressie_read"
        apart = not (isinstance(first.terms.share, float) and isinstance(second.terms.share, float))
        if (first.biased or apart) and kind != "bootstrap":
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
            return CRESSIE_READ, *_beside_logging(first, second, plain.se, bounds, alpha)
        up, down = _gap(first, second), _gap(second, first)
        if kind == "cressie_read":
            centres = [guarded_lower(each.total, each.rows, 1.0) for each in (up, down)]
            ends = [guarded_lower(each.total, each.rows, alpha) for each in (up, down)]
            p = min(guarded_p(each.total, each.rows, 0.0) for each in (up, down))
            found = Interval.around(
                plain.se, (ends[0], -ends[1]), (centres[0], -centres[1]), bounds
            )
            return CRESSIE_READ, found, p
        lower = bernstein_lower if kind == "bernstein" else betting_lower
        p_of = bernstein_p if kind == "bernstein" else betting_p
        found = Interval.around(
            plain.se,
            (lower(up, alpha / 2), -lower(down, alpha / 2)),
            (difference, difference),
            bounds,
        )
        return kind, found, min(1.0, 2 * min(p_of(each, 0.0, alpha / 2) for each in (up, down)))


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
                _advice(verdict, pair.against),
            )
        )
    return rows


def _verdict(pair: Pair, found: Interval, p_value: float, alpha: float) -> str:
    if math.isnan(found.low):
        return "no interval: the reward never varied"
    if pair.first.biased:
        return "no verdict: the estimator is biased"
    return moved(found.value, p_value, alpha)


def _advice(verdict: str, against: str) -> str:
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


def _beside_logging(
    first: Trial, logging: Trial, se: float, bounds: tuple[float, float], alpha: float
) -> tuple[Interval, float]:
    """Cressie–Read interval of a target's value over the logging policy's, and its p-value.

    V − V_log = E[ b₁ − b₂ + (w − 1) g ], in which the target's are the only weights: the same
    problem as that of a value, with another worst for the imagined unit.
    """
    low, high = first.base_range
    mine, other = first.sums(), logging.sums()
    sums = replace(
        mine, total=mine.total - other.total, base_low=low - high, base_high=high - low, own=1.0
    )
    ends_at = cressie_read_levels(sums, first.max_weight)
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


def _gap(first: Trial, second: Trial) -> Bounded:
    """Terms of V₁ − V₂ whose long tails all point up, so that their lower end is safe.

    With d = w₁ − w₂, gains g in [l, h] and TV = ½ Σ_a |π₁ − π₂|, E[d⁺] = E[d⁻] = E[TV], so

        V₁ − V₂ = E[ b₁ − b₂ + d⁺ (g − l) + d⁻ (h − g) − (h − l) TV ]

    in which every weighted term is ≥ 0.
    Where a pmf is not known, w₁ (g − l) + l and h − w₂ (h − g) bound the two values apart.
    """
    sample = first.setting.sample
    low, high = first.gain_range
    gain = first.terms.gain
    w1, w2 = first.terms.weight, second.terms.weight
    if first.pmf is not None and second.pmf is not None:
        distance = 0.5 * np.abs(first.pmf - second.pmf).sum(axis=1)
        d = w1 - w2
        weighted = np.where(d > 0, d * (gain - low), -d * (high - gain)) - (high - low) * distance
    else:
        mine = gain if first.is_logging else w1 * (gain - low) + low
        other = gain if second.is_logging else high - w2 * (high - gain)
        weighted = mine - other
    total = unit_sums(first.terms.base - second.terms.base + weighted, sample.unit)
    rows = unit_sums(np.ones(sample.n), sample.unit)
    base_low, base_high = first.base_range
    floor = base_low - base_high - (high - low)
    ceiling = base_high - base_low + 2 * first.max_weight * (high - low)
    if first.setting.interval not in ("bernstein", "anytime"):
        return Bounded(total, rows, floor, ceiling, math.nan, high - low)
    most_rows = known_rows(sample, first.setting.interval)
    if sample.order is not None:
        total, rows = total[sample.order], rows[sample.order]
    return Bounded(total, rows, floor, ceiling, most_rows, high - low)
