"""Lift: what the variants of an experiment changed, one row a randomisation unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution.adaptive_lift import AdaptiveLog, refuse_options
from attribution.anytime import NormalMixture
from attribution.clusters import by_cluster
from attribution.contrasts import Effect, Horizon, Prior, Rules, compare, compare_quantiles
from attribution.errors import AttributionError
from attribution.heterogeneity import change, interaction, slope_of
from attribution.lift_metrics import Metric, Quantile, as_metrics
from attribution.log import as_pandas, numbers
from attribution.multiplicity import Correction, adjusted
from attribution.report import (
    Interaction,
    LiftReport,
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
    once,
    prepared_rows,
)
from attribution.sample_ratio import sample_ratio
from attribution.unit_source import Units, Where, units_of, variant_names
from attribution.variant_means import VariantMeans, from_moments, from_rows
from attribution.verdicts import (
    EXPOSURE,
    FAILED,
    Compared,
    findings,
    guardrails,
    in_words,
    refused,
    verdict_on,
    with_p_adjusted,
)
from attribution.wording import NO_CARRY_OVER, NOT_SHOWN

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Adjustment: TypeAlias = Literal["cuped", "lin"]

TUNED_AT: Final = 1_000
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
    source = units_of(units, variant, made, shares, by, unit)
    names = variant_names(source.rollup, variant, baseline)
    rules = Rules(alpha, horizon, NormalMixture(tuned_at), prior)
    asked = _Asked(source, made, names, rules, adjustment, correction, strata)
    srm = asked.sample_ratio(source.rollup)
    results = asked.results(None, srm)
    if exposed is not None:
        results += asked.exposed_results(exposed, srm)
    results = with_p_adjusted(results, correction)
    parts, interactions = asked.by_segment(segments, srm) if segments else ([], [])
    periods, trends = asked.over_time(over, srm) if over else ([], [])
    rows = [in_words(each, baseline, alpha) for each in results]
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


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A question of `lift`, checked."""

    source: Units
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

    def results(self, where: Where, srm: SampleRatio) -> list[Compared]:
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
    ) -> list[Compared]:
        moments, variant = cells.rollup.moments[metric.name], cells.variant
        if srm.verdict == "ok" and moments.n.sum() < cells.rollup.assigned.sum():
            srm = self.sample_ratio(cells.rollup, moments.n)
        if srm.verdict not in FAILED and self._too_few(metric, moments.n, variant, where):
            return self._without(metric, moments.n, variant)
        if self.adjustment == "lin" and metric.covariates:
            means = self._lin(metric, where, cells)
        else:
            means = from_moments(metric, moments, variant, cells.chance, cells.stratum)
        return [
            Compared(
                metric, name, int(means.n[v]), float(means.value[v]), float(means.value[0]),
                refused(srm) if srm.verdict in FAILED
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
    ) -> list[Compared]:
        rows, names = self.source.rows(metric, where)
        codes = self._codes(names)
        each = np.ones(len(codes), np.intp)
        if srm.verdict not in FAILED and self._too_few(metric, each, codes, where):
            return self._without(metric, each, codes)
        sorted_rows = [np.sort(rows[codes == v, 0]) for v in range(len(self.names))]
        found = []
        for v, name in enumerate(self.names):
            if v == 0:
                continue
            effect = compare_quantiles(metric, sorted_rows[v], sorted_rows[0], self.rules)
            if cells.weighted or self.strata is not None:
                effect = Effect(math.nan, why_not="a quantile is not weighted or stratified")
            if srm.verdict in FAILED:
                effect = refused(srm)
            means = [_quantile(sorted_rows[at], metric.quantile) for at in (v, 0)]
            found.append(
                Compared(
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

    def _without(self, metric: Metric, n: IntArray, codes: IntArray) -> list[Compared]:
        """Comparisons that cannot be made, for want of units."""
        held = np.bincount(codes, n, len(self.names))
        effect = Effect(math.nan, why_not="a variant has fewer than two units here")
        facts = (math.nan, math.nan, effect, "none", "assigned")
        return [
            Compared(metric, name, int(held[v]), *facts) for v, name in enumerate(self.names) if v
        ]

    def exposed_results(self, exposed: str, srm: SampleRatio) -> list[Compared]:
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
        if srm.verdict not in FAILED and share.verdict != "ok":
            srm = replace(share, verdict=EXPOSURE)
        return [
            replace(each, population="exposed") for each in self.results((exposed, (True,)), srm)
        ]

    def by_segment(
        self, segments: str, srm: SampleRatio
    ) -> tuple[list[SegmentResult], list[Interaction]]:
        """Effects within each value of a column, and whether they differ."""
        parts: dict[str, list[Compared]] = {}
        for value in sorted(self.source.rollup.keys[segments].unique()):
            parts[str(value)] = self.results((segments, (value,)), srm)
        told = [
            SegmentResult(
                segment, each.metric.name, each.variant, self.names[0], each.n, each.mean,
                each.baseline_mean, each.effect.difference, each.effect.low, each.effect.high,
                each.effect.p_value, each.effect.interval,
                verdict_on(each.effect, each.effect.p_value, self.rules.alpha),
            )
            for segment, found in parts.items() for each in found
        ]  # fmt: skip
        pairs = list(zip(*parts.values(), strict=True))
        p_values = np.array([interaction(pair) for pair in pairs])
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
        scopes: dict[str, list[list[Compared]]] = {
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
                verdict_on(each.effect, each.effect.p_value, self.rules.alpha),
            )
            for scope, periods in scopes.items()
            for value, found in zip(values, periods, strict=True) for each in found
        ]  # fmt: skip
        overall = scopes["cumulative"][-1]
        slopes = [slope_of(series) for series in zip(*scopes["period"], strict=True)]
        corrected = adjusted(np.array([slope[2] for slope in slopes]), "holm")
        trends = [
            Trend(
                whole.metric.name, whole.variant, *slope, float(p_adjusted),
                change(slope[1] * whole.effect.difference, float(p_adjusted), self.rules.alpha),
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
            effect = refused(srm) if srm.verdict == "failed" else effect
            n = int((~np.isnan(rows[:, 0]) & (log.variant == v)).sum())
            found.append(Compared(metric, name, n, mine, base, effect, "none", "assigned"))
    told = [in_words(each, baseline, rules.alpha) for each in with_p_adjusted(found, correction)]
    return LiftReport(
        srm,
        tuple(told),
        tuple(guardrails(told, metrics)),
        findings=tuple(findings(told, metrics)),
        notes=(NO_CARRY_OVER, ADAPTIVE),
    )


def _quantile(values: FloatArray, quantile: float) -> float:
    return float(np.quantile(values, quantile, method="inverted_cdf"))
