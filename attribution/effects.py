"""Lift: what the variants of an experiment changed, one row a randomisation unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import chdtrc, stdtr, stdtrit

from attribution.errors import AttributionError, refuse_rows
from attribution.log import as_pandas, column, numbers
from attribution.moments import Moments
from attribution.proportions import TwoProportions
from attribution.report import LiftReport, LiftResult, SampleRatio

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# A sample ratio is a fact about the machinery and not about units: it is doubted only when
# chance would do as much once in a thousand reports.
SRM_ALPHA = 0.001
# With fewer units off a metric's commonest value, a variant's own spread says too little of what
# it might have shown. At 20 a rare metric's false alarms are within the nominal 5 %; at 5 they
# reach 6 % (50 against 1,000 and 500 against 9,500 units).
LEAST_DEPARTURES = 20


def lift(
    units: Any,
    *,
    variant: str,
    baseline: str,
    metrics: Sequence[str],
    probability: str | Mapping[str, float] | None = None,
    unit: str | None = None,
    alpha: float = 0.05,
) -> LiftReport:
    """Difference and relative difference of each variant from the baseline, for each metric.

    The sample ratio is checked first: where it fails, means are reported and effects are not.
    Means are compared by Welch's t, a proportion as the mean of zeros and ones. Where the
    assignment probability varies within a variant (a ramp, a re-weighting) units are weighted
    by its inverse (Hájek's means, each with the variance of its own linearisation), so that
    what changed with time is not taken for an effect.

        relative = (ȳ₁ − ȳ₀) / |ȳ₀|,   Var = Var ȳ₁ / ȳ₀² + ȳ₁² Var ȳ₀ / ȳ₀⁴

    by the delta method: its sign is the difference's on any baseline, and it is left out where
    the baseline's mean cannot be told from zero.

    Where a variant has fewer than 20 successes or failures, proportions are compared by the score
    interval of `attribution.proportions`. Other metrics of which most units share one value get
    no interval where fewer than 20 of a variant's units depart from it, and none does where all
    of a variant's units are alike: chance that has not shown itself is not absent.

    Parameters
    ----------
    units
        A pandas, polars or Arrow table or a Parquet path, one row for each unit.
    variant
        Name of the column of assigned variants.
    baseline
        The variant with which the others are compared.
    metrics
        Names of columns of numbers. A missing value says that the unit has not matured: it is
        left out of that metric in all variants, and the sample ratio is checked again on those
        that remain, so that values missing by variant are found.
    probability
        Name of the column of each unit's probability of the variant it got, or the declared
        share of each variant. Without it the sample ratio cannot be checked.
    unit
        Name of the column of unit ids, to make sure that none is there twice.
    alpha
        One minus the level of the intervals.

    Raises
    ------
    AttributionError
        If a column, a value, a probability or the baseline is not valid, if a unit repeats, or
        a variant has fewer than two units.

    References
    ----------
    Welch (1947), The Generalization of 'Student's' Problem when Several Different Population
    Variances are Involved, Biometrika 34. Hájek (1971), in Foundations of Statistical Inference
    (Godambe & Sprott, eds.), for the weighted means; Särndal, Swensson & Wretman (1992), Model
    Assisted Survey Sampling, section 5.7, for their variance. Cochran (1977), Sampling
    Techniques, section 6.4, for the variance of a ratio.
    """
    table = as_pandas(units)
    if not 0 < alpha < 1:
        raise AttributionError(f"`alpha` is {alpha}. It must lie in (0, 1).")
    if not metrics:
        raise AttributionError("`metrics` is empty. Name at least one column.")
    if unit is not None:
        ids = column(table, unit, "unit")
        refuse_rows(
            ids.duplicated().to_numpy(),
            unit,
            "repeats an earlier row's",
            "Lift's row is the unit: aggregate each unit to one row.",
            ids.to_numpy(),
        )
    groups = _groups(table, variant, baseline, probability)
    chance = _chance(table, groups, probability)
    split = _Split(baseline, groups, chance, probability)
    srm = split.sample_ratio()
    results = [result for metric in metrics for result in _metric(table, metric, split, srm, alpha)]
    return LiftReport(srm, tuple(results))


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """Who got which variant: rows by variant, baseline first, and each row's probability."""

    baseline: str
    groups: Mapping[str, BoolArray]
    chance: FloatArray
    probability: str | Mapping[str, float] | None

    def only(self, rows: BoolArray) -> _Split:
        """The same among some of the rows."""
        groups = {name: mine & rows for name, mine in self.groups.items()}
        return _Split(self.baseline, groups, self.chance, self.probability)

    @property
    def weighted(self) -> bool:
        """Whether the probability varies within a variant."""
        return any(np.ptp(self.chance[rows]) > 0 for rows in self.groups.values() if rows.any())

    def sample_ratio(self) -> SampleRatio:
        """Do the variants hold as many units as their probabilities say?

        Each unit of variant v stands for 1/p units of the population, so T_v = Σ 1/p estimates
        the same number in every variant. With h_v the mean of 1/p over those, weighted by 1/p,

            T̄ = Σ_v (T_v / h_v) / Σ_v (1 / h_v),   χ² = Σ_v (T_v − T̄)² / (h_v T̄)

        on one degree of freedom less than there are variants. It is Pearson's χ² where the
        probability is constant in each variant, and needs no strata where a ramp changed it. The
        weights follow from Var T_v ≈ T̄ (h_v − 1), of a multinomial with a common total, whose
        generalised least squares has that form.

        References
        ----------
        Pearson (1900), On the Criterion ..., Philosophical Magazine 50; Fabijan et al. (2019),
        Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD.
        """
        if self.probability is None:
            return SampleRatio(math.nan, "not_checked")
        declared = self.probability if isinstance(self.probability, Mapping) else {}
        totals, spreads = [], []
        for name, rows in self.groups.items():
            inverse = 1 / self.chance[rows]
            total = float(inverse.sum())
            totals.append(total)
            # A declared variant that nobody got still has its share.
            spreads.append(float(inverse @ inverse) / total if total else 1 / declared.get(name, 1))
        t, h = np.array(totals), np.array(spreads)
        expected = float((t / h).sum() / (1 / h).sum())
        statistic = float(((t - expected) ** 2 / (h * expected)).sum()) if expected else 0.0
        p_value = float(chdtrc(len(t) - 1, statistic))
        return SampleRatio(p_value, "failed" if p_value < SRM_ALPHA else "ok")


def _groups(
    table: pd.DataFrame,
    variant: str,
    baseline: str,
    probability: str | Mapping[str, float] | None,
) -> dict[str, BoolArray]:
    """Rows of each variant, baseline first, the others sorted."""
    assigned = column(table, variant, "variant")
    refuse_rows(
        assigned.isna().to_numpy(), variant, "is missing", "Leave out units that were not assigned."
    )
    names = {str(name) for name in assigned.unique()}
    if isinstance(probability, Mapping):
        names |= set(probability)
    if baseline not in names:
        raise AttributionError(
            f"`baseline` is {baseline!r}, which no unit has. "
            f"Variants: {', '.join(sorted(names)) or 'none'}."
        )
    if len(names) < 2:
        raise AttributionError(
            f"`{variant}` holds only {baseline!r}. Lift needs a second variant to compare."
        )
    text = assigned.astype("string").to_numpy(dtype=object)
    return {name: text == name for name in (baseline, *sorted(names - {baseline}))}


def _chance(
    table: pd.DataFrame,
    groups: Mapping[str, BoolArray],
    probability: str | Mapping[str, float] | None,
) -> FloatArray:
    """Each unit's probability of the variant it got; ones where none is known."""
    if probability is None:
        return np.ones(len(table))
    if isinstance(probability, str):
        chance = numbers(table, probability, "probability")
        refuse_rows(
            ~((chance > 0) & (chance <= 1)),
            probability,
            "is not in (0, 1]",
            "Log the probability with which the unit was assigned.",
            chance,
        )
        return chance
    chance = np.ones(len(table))
    for name, rows in groups.items():
        share = probability.get(name)
        if share is None or not 0 < share <= 1:
            raise AttributionError(
                f"`probability` of variant {name!r} is {share}. It must lie in (0, 1]."
            )
        chance[rows] = share
    return chance


@dataclass(frozen=True, slots=True)
class _Mean:
    """An estimated mean: number of units, value, variance of the mean, degrees of freedom."""

    n: int
    value: float
    variance: float
    df: float


def _mean(values: FloatArray, chance: FloatArray) -> _Mean:
    n = len(values)
    if n < 2:
        return _Mean(n, float(values[0]) if n else math.nan, math.nan, math.nan)
    if (chance == chance[0]).all():
        moments = Moments.of(values)
        return _Mean(n, moments.mean, moments.variance / n, n - 1)
    weight = 1 / chance
    weight /= weight.sum()
    # Shifted first, as in `Moments.of`, for means that are large beside their spread.
    shift = float(values[0])
    value = shift + float(weight @ (values - shift))
    influence = weight * (values - value)
    # Degrees of freedom of as many units of equal weight as these are worth.
    effective = 1 / float(weight @ weight)
    return _Mean(n, value, float(influence @ influence) * n / (n - 1), max(effective - 1, 1.0))


def _metric(
    table: pd.DataFrame, metric: str, split: _Split, srm: SampleRatio, alpha: float
) -> list[LiftResult]:
    values = numbers(table, metric, "metrics")
    refuse_rows(
        np.isinf(values), metric, "is infinite", "Give finite numbers; leave out the unknown."
    )
    mature = ~np.isnan(values)
    if not mature.all():
        split = split.only(mature)
        srm = split.sample_ratio() if srm.verdict == "ok" else srm
    means = {name: _mean(values[rows], split.chance[rows]) for name, rows in split.groups.items()}
    base = means.pop(split.baseline)
    seen = _Seen.of(values, mature)
    results = []
    for name, mine in means.items():
        facts = (metric, name, split.baseline, mine.n, mine.value, base.value)
        if srm.verdict == "failed":
            verdict = f"sample ratio failed (p = {srm.p_value:.2g}): find the cause first"
            results.append(LiftResult(*facts, *(math.nan,) * 7, "none", verdict))
            continue
        for label, each in ((name, mine), (split.baseline, base)):
            if each.n < 2:
                raise AttributionError(
                    f"`{metric}` has {each.n} units in variant {label!r}. At least two are needed.",
                    count=each.n,
                )
        variants = [(label, values[split.groups[label]]) for label in (name, split.baseline)]
        contrast = _Contrast(mine, base, alpha)
        effect = _effect(contrast, seen, variants, weighted=split.weighted)
        results.append(LiftResult(*facts, **asdict(effect)))
    return results


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the values of a metric look like over all variants.

    ``commonest`` is the value that more than half of the units share, NaN if there is none;
    ``binary`` says that all values are 0 or 1 and both occur.
    """

    commonest: float
    binary: bool

    @classmethod
    def of(cls, values: FloatArray, mature: BoolArray) -> _Seen:
        known = values[mature]
        if not len(known):
            return cls(math.nan, binary=False)
        # A value that more than half share is the median.
        middle = float(np.partition(known, len(known) // 2)[len(known) // 2])
        shared = 2 * int((known == middle).sum()) > len(known)
        binary = bool(((known == 0) | (known == 1)).all() and np.ptp(known) > 0)
        return cls(middle if shared else math.nan, binary)

    def departures(self, values: FloatArray) -> int:
        """How many values of a variant differ from the commonest, or for 0 and 1 the rarer."""
        if self.binary:
            ones = int(values.sum())
            return min(ones, len(values) - ones)
        return int((values != self.commonest).sum())


@dataclass(frozen=True, slots=True)
class _Effect:
    """The fields of `LiftResult` that compare two variants."""

    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    p_value: float
    interval: str
    verdict: str

    @classmethod
    def none(cls, difference: float, why: str) -> _Effect:
        nan = math.nan
        return cls(difference, nan, nan, nan, nan, nan, nan, "none", f"no interval: {why}")


def _effect(
    contrast: _Contrast,
    seen: _Seen,
    variants: Sequence[tuple[str, FloatArray]],
    *,
    weighted: bool,
) -> _Effect:
    """The effect by the method that the values allow; ``variants`` are mine and the baseline."""
    least, where = min((seen.departures(values), name) for name, values in variants)
    if seen.binary and not weighted and least < LEAST_DEPARTURES:
        (_, mine), (_, base) = variants
        return _proportions(mine, base, contrast.alpha)
    difference = contrast.difference
    for name, values in variants:
        if np.ptp(values) == 0:
            return _Effect.none(difference, f"nothing varies within {name!r}")
    if least < LEAST_DEPARTURES and (seen.binary or not math.isnan(seen.commonest)):
        rest = "of the rarer of 0 and 1" if seen.binary else f"other than {seen.commonest:g}"
        return _Effect.none(
            difference, f"{where!r} has only {least} values {rest}; {LEAST_DEPARTURES} are needed"
        )
    return _Effect(
        difference,
        difference - contrast.half,
        difference + contrast.half,
        *contrast.relative(),
        contrast.p_value,
        "hajek" if weighted else "welch",
        _verdict(difference, shown=abs(difference) > contrast.half),
    )


def _proportions(mine: FloatArray, base: FloatArray, alpha: float) -> _Effect:
    rates = TwoProportions(int(mine.sum()), len(mine), int(base.sum()), len(base))
    low, high = rates.interval(alpha)
    nan = math.nan
    verdict = _verdict(rates.difference, shown=low > 0 or high < 0)
    return _Effect(rates.difference, low, high, nan, nan, nan, rates.p_value, "score", verdict)


def _verdict(difference: float, *, shown: bool) -> str:
    if not shown:
        return "no difference shown"
    return "higher" if difference > 0 else "lower"


@dataclass(frozen=True, slots=True)
class _Contrast:
    """Two independent means compared by Welch's t."""

    mine: _Mean
    base: _Mean
    alpha: float

    @property
    def difference(self) -> float:
        return self.mine.value - self.base.value

    @property
    def variance(self) -> float:
        return self.mine.variance + self.base.variance

    @property
    def df(self) -> float:
        """Welch–Satterthwaite degrees of freedom."""
        return self.variance**2 / (
            self.mine.variance**2 / self.mine.df + self.base.variance**2 / self.base.df
        )

    @property
    def quantile(self) -> float:
        return float(stdtrit(self.df, 1 - self.alpha / 2))

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return self.quantile * math.sqrt(self.variance)

    @property
    def p_value(self) -> float:
        return 2 * float(stdtr(self.df, -abs(self.difference) / math.sqrt(self.variance)))

    def relative(self) -> tuple[float, float, float]:
        """Relative difference and its ends; NaN where the baseline cannot be told from zero."""
        size = abs(self.base.value)
        if size <= self.quantile * math.sqrt(self.base.variance):
            return math.nan, math.nan, math.nan
        value, ratio = self.difference / size, self.mine.value / size
        variance = self.mine.variance + ratio**2 * self.base.variance
        half = self.quantile * math.sqrt(variance) / size
        return value, value - half, value + half
