"""Lift: what the variants of an experiment changed, one row a randomisation unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import chdtrc, ndtr

from attribution.adaptive_lift import AdaptiveLog, refuse_options
from attribution.anytime import NormalMixture
from attribution.clusters import by_cluster
from attribution.contrasts import Effect, Horizon, Prior, Rules, compare, compare_quantiles
from attribution.errors import AttributionError
from attribution.lift_metrics import Metric, Quantile, as_metrics
from attribution.log import as_pandas, numbers
from attribution.multiplicity import Correction, adjusted
from attribution.report import (
    GuardrailResult,
    Interaction,
    LiftReport,
    LiftResult,
    PeriodResult,
    SampleRatio,
    SegmentResult,
    Trend,
)
from attribution.rollups import (
    PROBABILITY,
    VARIANT,
    Probability,
    Rollup,
    assigned_variants,
    once,
    prepared_rows,
    roll_up,
)
from attribution.sample_ratio import sample_ratio
from attribution.variant_means import VariantMeans, from_moments, from_rows
from attribution.wording import NO_CARRY_OVER, NOT_SHOWN, moved

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Adjustment: TypeAlias = Literal["cuped", "lin"]
Where: TypeAlias = tuple[str, tuple[object, ...]] | None
"""A column and the values to which the units are restricted."""

TUNED_AT: Final = 1_000
_EXPOSURE: Final = "exposure differs"
_FAILED: Final = frozenset({"failed", _EXPOSURE})
ADAPTIVE: Final = (
    "A bandit gave out the variants: means are weighted by the logged probabilities, in the order "
    "in which units came."
)
_DEFAULT_PRIOR: Final = Prior()


def lift(
    units: Any,
    *,
    variant: str,
    baseline: str,
    metrics: Sequence[str | Metric],
    probability: Probability | Mapping[str, str] = None,
    covariates: Sequence[str] | None = None,
    unit: str | None = None,
    alpha: float = 0.05,
    horizon: Horizon = "always",
    adjustment: Adjustment = "cuped",
    correction: Correction = "none",
    strata: str | None = None,
    cluster: str | None = None,
    segments: str | None = None,
    exposed: str | None = None,
    over: str | None = None,
    time: str | None = None,
    prior: Prior = _DEFAULT_PRIOR,
    tuned_at: float = TUNED_AT,
) -> LiftReport:
    """Difference and relative difference of each variant from the baseline, for each metric.

    The sample ratio is checked first: where it fails, means are reported and effects are not.
    Intervals and p-values hold however often one looks, unless ``horizon`` is fixed: then they hold
    at one look that was planned. Each unit enters once, with one value, when it has matured.

    Where the assignment probability varies within a variant (a ramp, a re-weighting) units are
    weighted by its inverse, so that what changed with time is not taken for an effect.

    Parameters
    ----------
    units
        A pandas, polars or Arrow table, one row for each unit; the path of Parquet files, which
        are read by DuckDB in one pass; or a `Rollup`, which is asked without its rows.
    variant
        Name of the column of assigned variants; of a roll-up it is ``variant``.
    baseline
        The variant with which the others are compared.
    metrics
        Names of columns, of which means are compared, or `Mean`, `Proportion`, `Count`, `Ratio`,
        `Quantile`, `Retention`. A missing value says that the unit has not matured: it is left
        out of that metric in all variants, and the sample ratio is checked again on those
        that remain, so that values missing by variant are found.
    probability
        Name of the column of each unit's probability of the variant it got, or the declared
        share of each variant. Without it the sample ratio cannot be checked. Where a bandit gave
        out the variants: the name of a column for each variant, of its probability at the draw.
    covariates
        Columns known before assignment, for all metrics that name none of their own.
    unit
        Name of the column of unit ids, to make sure that none is there twice.
    alpha
        One minus the level of the intervals.
    horizon
        ``always`` or ``fixed``.
    adjustment
        How covariates are used: ``cuped`` by one pooled regression, from moments; ``lin`` by a
        regression in each variant with HC2 variances, which needs the rows.
    correction
        For the number of comparisons with a p-value: ``none``, ``holm``, ``benjamini_hochberg``.
        The verdict then follows ``p_adjusted``; intervals stay each at its own level.
    strata
        A column known before assignment; effects are taken within its values and averaged by
        their shares of the units.
    cluster
        A column of what was randomised, if that is more than a unit: its units count as one.
    segments
        A column known before assignment: effects within each of its values are reported too, and
        whether they differ.
    exposed
        A column of truths, logged in every variant alike, of whether the unit came to the point
        where variants differ. Effects among those are reported beside the effects on all.
    over
        A column of the period, such as a week, in which the unit entered the report: effects of
        each period and of all up to it are reported too, and whether they change.
    time
        A column of when each unit was assigned; a bandit's log needs it.
    prior
        What was believed of effects before, for ``chance_to_win``.
    tuned_at
        At how many values off the resting one, in the smaller of two variants, an always-valid
        interval is narrowest. To be fixed before the first look.

    Raises
    ------
    AttributionError
        If a column, a value, a probability or the baseline is not valid, if a unit repeats, or
        a variant has fewer than two units.

    References
    ----------
    Welch (1947), The Generalization of 'Student's' Problem when Several Different Population
    Variances are Involved, Biometrika 34. Hájek (1971), in Foundations of Statistical Inference
    (Godambe & Sprott, eds.), for the weighted means. Those of `anytime`, `variant_means` and
    `contrasts` for the rest.
    """
    if not 0 < alpha < 1:
        raise AttributionError(f"`alpha` is {alpha}. It must lie in (0, 1).")
    for name, value, known in (
        ("horizon", horizon, Horizon),
        ("adjustment", adjustment, Adjustment),
        ("correction", correction, Correction),
    ):
        if value not in get_args(known):
            choices = ", ".join(get_args(known))
            raise AttributionError(f"`{name}` is {value!r}. Known: {choices}.")
    made = as_metrics(metrics, covariates)
    shares = _shares(probability)
    if probability is not None and shares is None:
        options = (
            *(("covariates", covariates), ("strata", strata), ("cluster", cluster)),
            *(("segments", segments), ("exposed", exposed), ("over", over)),
        )
        refuse_options(options)
        table = as_pandas(units)
        once(table, unit)
        rules = Rules(alpha, horizon, NormalMixture(tuned_at), prior)
        return _adaptive(table, variant, baseline, made, probability, time, rules, correction)
    if cluster is not None:
        units, made = by_cluster(as_pandas(units), cluster, made, variant, shares, unit)
        unit = None
    by = tuple(
        dict.fromkeys(name for name in (strata, segments, exposed, over) if name is not None)
    )
    source = _source(units, variant, made, shares, by, unit)
    names = _names(source.rollup, variant, baseline)
    rules = Rules(alpha, horizon, NormalMixture(tuned_at), prior)
    asked = _Asked(source, made, names, rules, adjustment, correction, strata)
    srm = asked.sample_ratio(source.rollup)
    results = asked.results(None, srm)
    if exposed is not None:
        results += asked.exposed_results(exposed, srm)
    results = _corrected(results, correction)
    parts, interactions = asked.by_segment(segments, srm) if segments else ([], [])
    periods, trends = asked.over_time(over, srm) if over else ([], [])
    rows = [_told(each, baseline, alpha) for each in results]
    return LiftReport(
        srm,
        tuple(rows),
        tuple(guardrails(rows, made)),
        tuple(parts),
        tuple(interactions),
        tuple(findings(rows, made)),
        asked.notes(),
        tuple(periods),
        tuple(trends),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """The units as moments by cell and, where there are rows, a way to read columns of them."""

    rollup: Rollup
    read: Callable[[Sequence[str]], pd.DataFrame] | None
    variant: str

    def rows(self, metric: Metric, where: Where) -> tuple[FloatArray, pd.Series[str]]:
        """(n, d) known values of a metric's columns, and each row's variant."""
        if self.read is None:
            raise AttributionError(
                f"`metrics` has {metric.name!r}, which needs the rows of the units: a quantile, or "
                "Lin's adjustment. A roll-up has none; pass the units, or leave it out."
            )
        wanted = [self.variant, *metric.columns, *([] if where is None else [where[0]])]
        table = self.read(list(dict.fromkeys(wanted)))
        if where is not None:
            table = table[table[where[0]].isin(where[1]).to_numpy()].reset_index(drop=True)
        values = {name: numbers(table, name, "metrics") for name in metric.columns}
        rows, known = prepared_rows(metric, values)
        return rows[known], assigned_variants(table, self.variant)[known]


def _source(
    units: Any,
    variant: str,
    metrics: tuple[Metric, ...],
    probability: Probability,
    by: tuple[str, ...],
    unit: str | None,
) -> _Source:
    if isinstance(units, Rollup):
        return _Source(_of_rollup(units, metrics, by), None, VARIANT)
    if isinstance(units, str | PathLike):
        rollup = roll_up(
            units, variant=variant, metrics=metrics, probability=probability, by=by, unit=unit
        )
        return _Source(rollup, lambda names: pd.read_parquet(units, columns=list(names)), variant)
    table = as_pandas(units)
    rollup = roll_up(
        table, variant=variant, metrics=metrics, probability=probability, by=by, unit=unit
    )
    return _Source(rollup, lambda names: table[list(names)], variant)


def _of_rollup(units: Rollup, metrics: tuple[Metric, ...], by: tuple[str, ...]) -> Rollup:
    stored = {metric.name: metric for metric in units.metrics}
    for metric in metrics:
        if isinstance(metric, Quantile):
            continue
        held = stored.get(metric.name)
        if held is None or held.columns != metric.columns:
            raise AttributionError(
                f"`metrics` has {metric.name!r} of {', '.join(metric.columns)}, which the roll-up "
                f"does not hold. It holds: {', '.join(stored)}."
            )
    for name in by:
        if name not in units.keys.columns:
            raise AttributionError(
                f"`{name}` is no key of the roll-up. Keys: {', '.join(units.keys.columns)}."
            )
    return units.merged([VARIANT, PROBABILITY, *by])


def _names(rollup: Rollup, variant: str, baseline: str) -> list[str]:
    """The variants, baseline first, the others sorted."""
    found = set(rollup.keys[VARIANT])
    if baseline not in found:
        raise AttributionError(
            f"`baseline` is {baseline!r}, which no unit has. "
            f"Variants: {', '.join(sorted(found)) or 'none'}."
        )
    if len(found) < 2:
        raise AttributionError(
            f"`{variant}` holds only {baseline!r}. Lift needs a second variant to compare."
        )
    return [baseline, *sorted(found - {baseline})]


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """The cells of some of the units: (c,) variant, probability, stratum."""

    rollup: Rollup
    variant: IntArray
    chance: FloatArray
    stratum: IntArray

    @property
    def weighted(self) -> bool:
        """Whether the probability varies within a variant."""
        return any(np.ptp(self.chance[self.variant == v]) > 0 for v in set(self.variant.tolist()))


@dataclass(frozen=True, slots=True)
class _Compared:
    """One metric in one variant beside the baseline, before it is put into words."""

    metric: Metric
    variant: str
    n: int
    mean: float
    baseline_mean: float
    effect: Effect
    adjustment: str
    population: str
    p_adjusted: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A question of `lift`, checked."""

    source: _Source
    metrics: tuple[Metric, ...]
    names: list[str]
    rules: Rules
    adjustment: Adjustment
    correction: Correction
    strata: str | None

    def sample_ratio(self, rollup: Rollup, counts: IntArray | None = None) -> SampleRatio:
        return sample_ratio(
            rollup.assigned if counts is None else counts,
            rollup.keys[PROBABILITY].to_numpy(np.float64),
            self._codes(rollup.keys[VARIANT]),
            len(self.names),
        )

    def _codes(self, variants: pd.Series[str]) -> IntArray:
        place = {name: v for v, name in enumerate(self.names)}
        return np.array([place[name] for name in variants], dtype=np.intp)

    def results(self, where: Where, srm: SampleRatio) -> list[_Compared]:
        """Every metric and variant, among all units or those of one value of a column."""
        rollup = self.source.rollup
        if where is not None:
            rollup = rollup.only(rollup.keys[where[0]].isin(where[1]))
        stratum = np.zeros(len(rollup.keys), np.intp)
        if self.strata is not None:
            stratum = pd.factorize(rollup.keys[self.strata])[0].astype(np.intp)
        cells = _Cells(
            rollup,
            self._codes(rollup.keys[VARIANT]),
            rollup.keys[PROBABILITY].to_numpy(np.float64),
            stratum,
        )
        found = []
        for metric in self.metrics:
            if isinstance(metric, Quantile):
                found += self._quantiles(metric, where, srm, cells)
            else:
                found += self._means(metric, where, srm, cells)
        return found

    def _means(
        self, metric: Metric, where: Where, srm: SampleRatio, cells: _Cells
    ) -> list[_Compared]:
        moments, variant = cells.rollup.moments[metric.name], cells.variant
        if srm.verdict == "ok" and moments.n.sum() < cells.rollup.assigned.sum():
            srm = self.sample_ratio(cells.rollup, moments.n)
        if srm.verdict not in _FAILED and self._too_few(metric, moments.n, variant, where):
            return self._without(metric, moments.n, variant)
        if self.adjustment == "lin" and metric.covariates:
            means = self._lin(metric, where, cells)
        else:
            means = from_moments(metric, moments, variant, cells.chance, cells.stratum)
        return [
            _Compared(
                metric, name, int(means.n[v]), float(means.value[v]), float(means.value[0]),
                _refused(srm) if srm.verdict in _FAILED
                else compare(means, v, (name, self.names[0]), self.rules),
                means.adjustment, "assigned",
            )
            for v, name in enumerate(self.names) if v
        ]  # fmt: skip

    def _lin(self, metric: Metric, where: Where, cells: _Cells) -> VariantMeans:
        if cells.weighted or self.strata is not None or len(metric.outcomes) > 1:
            raise AttributionError(
                f"`adjustment` is 'lin', which compares means of equally probable units; "
                f"{metric.name!r} is a ratio, or is weighted or stratified here. Use 'cuped'."
            )
        rows, names = self.source.rows(metric, where)
        return from_rows(metric, rows, self._codes(names), len(self.names))

    def _quantiles(
        self, metric: Quantile, where: Where, srm: SampleRatio, cells: _Cells
    ) -> list[_Compared]:
        rows, names = self.source.rows(metric, where)
        codes = self._codes(names)
        each = np.ones(len(codes), np.intp)
        if srm.verdict not in _FAILED and self._too_few(metric, each, codes, where):
            return self._without(metric, each, codes)
        sorted_rows = [np.sort(rows[codes == v, 0]) for v in range(len(self.names))]
        found = []
        for v, name in enumerate(self.names):
            if v == 0:
                continue
            effect = compare_quantiles(metric, sorted_rows[v], sorted_rows[0], self.rules)
            if cells.weighted or self.strata is not None:
                effect = Effect(math.nan, why_not="a quantile is not weighted or stratified")
            if srm.verdict in _FAILED:
                effect = _refused(srm)
            means = [_quantile(sorted_rows[at], metric.quantile) for at in (v, 0)]
            found.append(
                _Compared(
                    metric,
                    name,
                    len(sorted_rows[v]),
                    means[0],
                    means[1],
                    effect,
                    "none",
                    "assigned",
                )
            )
        return found

    def _too_few(self, metric: Metric, n: IntArray, codes: IntArray, where: Where) -> bool:
        """Whether a variant has fewer than two units: refused, unless in a part of the units."""
        held = np.bincount(codes, n, len(self.names))
        # The baseline is named last, as the one that all comparisons share.
        for v in [*range(1, len(self.names)), 0]:
            if held[v] < 2 and where is None:
                raise AttributionError(
                    f"`{metric.name}` has {held[v]:.0f} units in variant {self.names[v]!r}. "
                    "At least two are needed.",
                    count=int(held[v]),
                )
        return bool((held < 2).any())

    def _without(self, metric: Metric, n: IntArray, codes: IntArray) -> list[_Compared]:
        """Comparisons that cannot be made, for want of units."""
        held = np.bincount(codes, n, len(self.names))
        effect = Effect(math.nan, why_not="a variant has fewer than two units here")
        facts = (math.nan, math.nan, effect, "none", "assigned")
        return [
            _Compared(metric, name, int(held[v]), *facts) for v, name in enumerate(self.names) if v
        ]

    def exposed_results(self, exposed: str, srm: SampleRatio) -> list[_Compared]:
        """Effects among the exposed, where exposure does not depend on the variant."""
        keys = self.source.rollup.keys[exposed]
        if not set(keys.unique()) <= {0, 1}:
            raise AttributionError(
                f"`exposed` is column {exposed!r}, which holds other than true and false."
            )
        inside = self.source.rollup.only(keys == 1)
        if not inside.assigned.sum():
            raise AttributionError(f"`exposed` is column {exposed!r}, which is true of no unit.")
        share = self.sample_ratio(inside)
        if srm.verdict not in _FAILED and share.verdict != "ok":
            srm = replace(share, verdict=_EXPOSURE)
        return [
            replace(each, population="exposed") for each in self.results((exposed, (True,)), srm)
        ]

    def by_segment(
        self, segments: str, srm: SampleRatio
    ) -> tuple[list[SegmentResult], list[Interaction]]:
        """Effects within each value of a column, and whether they differ."""
        parts: dict[str, list[_Compared]] = {}
        for value in sorted(self.source.rollup.keys[segments].unique()):
            parts[str(value)] = self.results((segments, (value,)), srm)
        told = [
            SegmentResult(
                segment, each.metric.name, each.variant, self.names[0], each.n, each.mean,
                each.baseline_mean, each.effect.difference, each.effect.low, each.effect.high,
                each.effect.p_value, each.effect.interval,
                _verdict(each.effect, each.effect.p_value, self.rules.alpha),
            )
            for segment, found in parts.items() for each in found
        ]  # fmt: skip
        pairs = list(zip(*parts.values(), strict=True))
        p_values = np.array([_interaction(pair) for pair in pairs])
        corrected = adjusted(p_values, "holm")
        interactions = [
            Interaction(
                pair[0].metric.name, pair[0].variant, len(pair), float(p), float(p_adjusted),
                "not tested" if math.isnan(p)
                else "differs" if p_adjusted < self.rules.alpha else NOT_SHOWN,
            )
            for pair, p, p_adjusted in zip(pairs, p_values, corrected, strict=True)
        ]  # fmt: skip
        return told, interactions

    def over_time(self, over: str, srm: SampleRatio) -> tuple[list[PeriodResult], list[Trend]]:
        """Effects among the units of each period and of all up to it, and whether they change."""
        values = sorted(self.source.rollup.keys[over].unique())
        scopes: dict[str, list[list[_Compared]]] = {
            "period": [self.results((over, (value,)), srm) for value in values],
            "cumulative": [
                self.results((over, tuple(values[: number + 1])), srm)
                for number in range(len(values))
            ],
        }
        told = [
            PeriodResult(
                str(value), scope, each.metric.name, each.variant, self.names[0], each.n,
                each.effect.difference, each.effect.low, each.effect.high, each.effect.interval,
                _verdict(each.effect, each.effect.p_value, self.rules.alpha),
            )
            for scope, periods in scopes.items()
            for value, found in zip(values, periods, strict=True) for each in found
        ]  # fmt: skip
        overall = scopes["cumulative"][-1]
        slopes = [_slope(series) for series in zip(*scopes["period"], strict=True)]
        corrected = adjusted(np.array([slope[2] for slope in slopes]), "holm")
        trends = [
            Trend(
                whole.metric.name, whole.variant, *slope, float(p_adjusted),
                _change(slope[1] * whole.effect.difference, float(p_adjusted), self.rules.alpha),
            )
            for whole, slope, p_adjusted in zip(overall, slopes, corrected, strict=True)
        ]  # fmt: skip
        return told, trends

    def notes(self) -> tuple[str, ...]:
        prior = (
            f"chance_to_win is the posterior of effects that are normal around 0 with "
            f"{self.rules.prior.sd:g} of a unit's standard deviation, and holds at one look."
        )
        return (NO_CARRY_OVER, prior)


def _shares(probability: Probability | Mapping[str, str]) -> Probability:
    """Probabilities that do not change from draw to draw, None if they do."""
    if isinstance(probability, Mapping):
        found = {name: p for name, p in probability.items() if not isinstance(p, str)}
        return found if len(found) == len(probability) else None
    return probability


def _adaptive(
    table: pd.DataFrame,
    variant: str,
    baseline: str,
    metrics: Sequence[Metric],
    probability: object,
    time: str | None,
    rules: Rules,
    correction: Correction,
) -> LiftReport:
    """The report where a bandit gave out the variants."""
    columns = {str(k): str(v) for k, v in dict(probability).items()}  # type: ignore[call-overload]  # a mapping
    if time is None:
        raise AttributionError("`time` is missing. A bandit's log is read in order: name a column.")
    log = AdaptiveLog.of(table, variant, baseline, columns, time)
    srm = log.sample_ratio()
    found = []
    for metric in metrics:
        if isinstance(metric, Quantile) or len(metric.columns) > 1:
            raise AttributionError(
                f"`metrics` has {metric.name!r}; of a bandit's variants only means are compared, "
                "without covariates."
            )
        rows, _ = prepared_rows(metric, {metric.column: numbers(table, metric.column, "metrics")})
        for v, name in enumerate(log.names):
            if v == 0:
                continue
            effect, mine, base = log.effect(rows[:, 0], v, rules, metric.resting)
            effect = _refused(srm) if srm.verdict == "failed" else effect
            n = int((~np.isnan(rows[:, 0]) & (log.variant == v)).sum())
            found.append(_Compared(metric, name, n, mine, base, effect, "none", "assigned"))
    told = [_told(each, baseline, rules.alpha) for each in _corrected(found, correction)]
    return LiftReport(
        srm,
        tuple(told),
        tuple(guardrails(told, metrics)),
        findings=tuple(findings(told, metrics)),
        notes=(NO_CARRY_OVER, ADAPTIVE),
    )


def _corrected(found: list[_Compared], correction: Correction) -> list[_Compared]:
    p_values = np.array([each.effect.p_value for each in found])
    return [
        replace(each, p_adjusted=float(p))
        for each, p in zip(found, adjusted(p_values, correction), strict=True)
    ]


def _told(found: _Compared, baseline: str, alpha: float) -> LiftResult:
    """A comparison in words."""
    effect, metric = found.effect, found.metric
    verdict = _verdict(effect, found.p_adjusted, alpha)
    chance = effect.chance_above_zero
    return LiftResult(
        metric.name, found.variant, baseline, found.n, found.mean, found.baseline_mean,
        effect.difference, effect.low, effect.high,
        effect.relative, effect.relative_low, effect.relative_high,
        effect.p_value, effect.interval, verdict, effect.always_valid, found.adjustment,
        found.p_adjusted, 1 - chance if metric.better == "down" else chance,
        _advice(effect, verdict, metric), found.population,
    )  # fmt: skip


def _quantile(values: FloatArray, quantile: float) -> float:
    return float(np.quantile(values, quantile, method="inverted_cdf"))


def _refused(srm: SampleRatio) -> Effect:
    if math.isnan(srm.p_value):
        return Effect(math.nan, why_not="exposure cannot be checked without probabilities")
    what = "exposure depends on the variant" if srm.verdict == _EXPOSURE else "sample ratio failed"
    return Effect(math.nan, why_not=f"{what} (p = {srm.p_value:.2g})")


def _verdict(effect: Effect, p_value: float, alpha: float) -> str:
    if effect.why_not:
        return f"no interval: {effect.why_not}"
    return moved(effect.difference, p_value, alpha)


def _advice(effect: Effect, verdict: str, metric: Metric) -> str:
    """What to do next."""
    if effect.why_not.startswith(("sample ratio", "exposure")):
        return "find why units were lost or gained by variant; read no effect until then"
    if effect.why_not:
        return "wait for more units, or check how the metric is logged if none varies"
    if verdict == NOT_SHOWN:
        return (
            f"an effect from {effect.low:.3g} to {effect.high:.3g} is not excluded: "
            "wait, or stop if none of that matters"
        )
    when = "at this and any look" if effect.always_valid else "if this look was planned"
    if metric.better is None:
        return f"it differs, {when}; declare which direction is better to be told more"
    if (verdict == "higher") == (metric.better == "up"):
        return f"better, {when}: keep it unless a guardrail says otherwise"
    return f"worse, {when}: stop it, or find out why"


def _interaction(parts: Sequence[_Compared]) -> float:
    """p-value of equal effects, Q = Σ (d_s − d̄)² / v_s with d̄ weighted by 1/v_s.

    References
    ----------
    Cochran (1954), The Combination of Estimates from Different Experiments, Biometrics 10(1).
    """
    known = [part for part in parts if not math.isnan(part.effect.variance)]
    if len(known) < 2:
        return math.nan
    difference = np.array([part.effect.difference for part in known])
    weight = 1 / np.array([part.effect.variance for part in known])
    mean = float(weight @ difference / weight.sum())
    return float(chdtrc(len(known) - 1, float(weight @ (difference - mean) ** 2)))


def _slope(series: Sequence[_Compared]) -> tuple[int, float, float]:
    """How many periods have a standard error, the slope of their effects, and its p-value.

    Effects are weighted by 1/variance.
    """
    known = [
        (number, part.effect.difference, part.effect.variance)
        for number, part in enumerate(series)
        if not math.isnan(part.effect.variance)
    ]
    if len(known) < 3:
        return len(known), math.nan, math.nan
    time, effect, variance = (np.array(column) for column in zip(*known, strict=True))
    weight = 1 / variance
    centred = time - weight @ time / weight.sum()
    information = float(weight * centred @ centred)
    slope = float(weight * centred @ effect) / information
    return len(known), slope, 2 * float(ndtr(-abs(slope) * math.sqrt(information)))


def _change(growth: float, p_value: float, alpha: float) -> str:
    if math.isnan(p_value):
        return "not tested"
    if p_value >= alpha:
        return "no change shown"
    return "grows" if growth > 0 else "fades"


def guardrails(results: Sequence[LiftResult], metrics: Sequence[Metric]) -> list[GuardrailResult]:
    """The verdict on each metric with a margin, by its interval among all assigned units."""
    guards = {metric.name: metric for metric in metrics if metric.margin is not None}
    told = []
    for row in results:
        guard = guards.get(row.metric)
        if guard is None or guard.margin is None or row.population != "assigned":
            continue
        down = guard.better == "down"
        worst, best = (row.high, row.low) if down else (-row.low, -row.high)
        verdict = "held" if worst < guard.margin else "broken" if best > guard.margin else "open"
        told.append(
            GuardrailResult(row.metric, row.variant, str(guard.better), guard.margin, verdict)
        )
    return told


def findings(results: Sequence[LiftResult], metrics: Sequence[Metric]) -> list[str]:
    """Variants in which one metric gained while another was harmed, in a sentence each."""
    better = {metric.name: metric.better for metric in metrics if metric.better is not None}
    moved: dict[str, tuple[list[str], list[str]]] = {}
    for row in results:
        if row.metric in better and row.verdict in {"higher", "lower"}:
            if row.population != "assigned":
                continue
            gained = (row.verdict == "higher") == (better[row.metric] == "up")
            said = f"{row.metric} ({row.difference:+.3g})"
            moved.setdefault(row.variant, ([], []))[0 if gained else 1].append(said)
    return [
        f"{variant} gains {', '.join(gains)} and harms {', '.join(harms)}: "
        "weigh the one against the other before it is kept; no average of them does that"
        for variant, (gains, harms) in moved.items()
        if gains and harms
    ]
