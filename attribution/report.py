"""Reports: results as frames for people and as dictionaries for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from attribution.diagnostics import Diagnostics
from attribution.pages import lift_page
from attribution.wording import NO_CARRY_OVER


@dataclass(frozen=True, slots=True)
class Result:
    """The value of one target by one estimator; NaN throughout where it is not estimable.

    ``hyperparameter`` is what transformed the weights, NaN where nothing did; ``note`` says why
    this interval, and what else a reader must know.
    """

    target: str
    estimator: str
    value: float
    se: float
    low: float
    high: float
    interval: str
    n: int
    n_units: int
    hyperparameter: float = math.nan
    note: str = ""

    @classmethod
    def refused(cls, target: str, estimator: str, n: int, n_units: int) -> Result:
        nan = math.nan
        return cls(target, estimator, nan, nan, nan, nan, "none", n, n_units)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired difference, target minus ``against``, by one estimator.

    ``p_value`` is of no difference, dual to the interval, and NaN of a biased estimator.
    ``p_adjusted``, ``low_adjusted`` and ``high_adjusted`` allow for all differences that were
    asked of this estimator, as ``correction`` says; they repeat the others where there is one.
    ``verdict`` goes by ``p_adjusted``; ``advice`` says what to do next.
    """

    target: str
    against: str
    estimator: str
    difference: float
    se: float
    low: float
    high: float
    interval: str
    p_value: float
    p_adjusted: float
    low_adjusted: float
    high_adjusted: float
    correction: str
    verdict: str
    advice: str

    @classmethod
    def refused(cls, target: str, against: str, estimator: str) -> Comparison:
        nan = math.nan
        return cls(
            target, against, estimator, nan, nan, nan, nan, "none", nan, nan, nan, nan, "none",
            "no value: a side is not estimable", "read the diagnostics' reason",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What `attribution.evaluate` found; read ``diagnostics`` before the values.

    ``notes`` say under which assumptions the numbers hold.
    """

    results: tuple[Result, ...]
    comparisons_made: tuple[Comparison, ...]
    diagnostics: Mapping[str, Diagnostics]
    notes: tuple[str, ...] = (NO_CARRY_OVER,)

    def table(self) -> pd.DataFrame:
        """One row for each target and estimator; the columns are the fields of `Result`."""
        return _frame(self.results, Result)

    def comparisons(self) -> pd.DataFrame:
        """One row for each compared target and estimator; the fields of `Comparison`."""
        return _frame(self.comparisons_made, Comparison)

    def to_json(self) -> dict[str, Any]:
        """The whole report as JSON values; what is not known is null."""
        return {
            "results": [_plain(row) for row in self.results],
            "comparisons": [_plain(row) for row in self.comparisons_made],
            "diagnostics": {name: each.to_json() for name, each in self.diagnostics.items()},
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether units arrived in the variants as they were assigned: p-value and verdict.

    ``verdict`` is ``ok``, ``failed`` or ``not_checked`` (no probabilities were logged). The p-value
    holds at every look.
    """

    p_value: float
    verdict: str


@dataclass(frozen=True, slots=True)
class LiftResult:
    """One metric in one variant beside the baseline; ``n`` counts the variant's units.

    ``always_valid`` says whether interval and p-value hold however often one looks. ``p_adjusted``
    is the p-value after the correction for many comparisons, the plain one without. ``advice`` says
    what to do next; ``population`` is ``assigned`` (all units) or ``exposed``.
    """

    metric: str
    variant: str
    baseline: str
    n: int
    mean: float
    baseline_mean: float
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    p_value: float
    interval: str
    verdict: str
    always_valid: bool = False
    adjustment: str = "none"
    p_adjusted: float = math.nan
    chance_to_win: float = math.nan
    advice: str = ""
    population: str = "assigned"


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """One metric in one variant beside the baseline, among the units of one segment."""

    segment: str
    metric: str
    variant: str
    baseline: str
    n: int
    mean: float
    baseline_mean: float
    difference: float
    low: float
    high: float
    p_value: float
    interval: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Interaction:
    """Whether a variant's effect on a metric differs between segments.

    Cochran's Q over the segments with a standard error, at a fixed horizon; ``p_adjusted`` is
    Holm's over all interactions of the report.
    """

    metric: str
    variant: str
    segments: int
    p_value: float
    p_adjusted: float
    verdict: str


@dataclass(frozen=True, slots=True)
class PeriodResult:
    """One metric in one variant beside the baseline, among units that entered in a period.

    ``scope`` is ``period`` or ``cumulative`` (all units that entered up to its end).
    """

    period: str
    scope: str
    metric: str
    variant: str
    baseline: str
    n: int
    difference: float
    low: float
    high: float
    interval: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Trend:
    """Whether an effect changes over the periods, by its slope a period, at a fixed horizon.

    ``p_adjusted`` is Holm's over all trends of the report.

    ``verdict`` is ``grows``, ``fades`` (as a novelty does), ``no change shown`` or ``not tested``
    (fewer than three periods have a standard error).
    """

    metric: str
    variant: str
    periods: int
    slope: float
    p_value: float
    p_adjusted: float
    verdict: str


@dataclass(frozen=True, slots=True)
class GuardrailResult:
    """Whether a metric that must not worsen beyond a margin did.

    ``held``: the interval excludes a worsening beyond the margin. ``broken``: it excludes anything
    less. ``open``: it excludes neither, or there is none; that is no pass.
    """

    metric: str
    variant: str
    direction: str
    margin: float
    verdict: str


@dataclass(frozen=True, slots=True)
class LiftReport:
    """What `attribution.lift` found; read ``srm`` before the results.

    ``findings`` are sentences on variants in which something gained while something else was
    harmed; ``notes`` say under which assumptions the numbers hold.
    """

    srm: SampleRatio
    results: tuple[LiftResult, ...]
    guardrails: tuple[GuardrailResult, ...] = ()
    segments: tuple[SegmentResult, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    periods: tuple[PeriodResult, ...] = ()
    trends: tuple[Trend, ...] = ()

    def table(self) -> pd.DataFrame:
        """One row for each metric and variant; the columns are the fields of `LiftResult`."""
        return _frame(self.results, LiftResult)

    def segment_table(self) -> pd.DataFrame:
        """One row for each segment, metric and variant; the fields of `SegmentResult`."""
        return _frame(self.segments, SegmentResult)

    def period_table(self) -> pd.DataFrame:
        """One row for each period, scope, metric and variant; the fields of `PeriodResult`."""
        return _frame(self.periods, PeriodResult)

    def to_html(self) -> str:
        """The report as one self-contained page with charts."""
        return lift_page(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The whole report as JSON values; what is not known is null."""
        return {
            "srm": _plain(self.srm),
            "results": [_plain(row) for row in self.results],
            "guardrails": [_plain(row) for row in self.guardrails],
            "segments": [_plain(row) for row in self.segments],
            "interactions": [_plain(row) for row in self.interactions],
            "periods": [_plain(row) for row in self.periods],
            "trends": [_plain(row) for row in self.trends],
            "findings": list(self.findings),
            "notes": list(self.notes),
        }


Row = (
    Result
    | Comparison
    | LiftResult
    | SampleRatio
    | SegmentResult
    | Interaction
    | GuardrailResult
    | PeriodResult
    | Trend
)


def _frame(rows: Sequence[Row], kind: type[Row]) -> pd.DataFrame:
    return pd.DataFrame([asdict(row) for row in rows], columns=[f.name for f in fields(kind)])


def _plain(row: Row) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(row).items()
    }
