"""Comparisons in words: verdicts, what to do next, guardrails, findings that no average hides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from attribution.contrasts import Effect
from attribution.lift_metrics import Metric
from attribution.multiplicity import Correction, adjusted
from attribution.report import GuardrailResult, LiftResult, SampleRatio
from attribution.wording import NOT_SHOWN, moved

EXPOSURE: Final = "exposure differs"
"""The verdict of a sample ratio among the exposed that the variants do not share."""
FAILED: Final = frozenset({"failed", EXPOSURE})


@dataclass(frozen=True, slots=True)
class Compared:
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


def with_p_adjusted(found: list[Compared], correction: Correction) -> list[Compared]:
    """The comparisons of a report, corrected for how many there are."""
    p_values = np.array([each.effect.p_value for each in found])
    return [
        replace(each, p_adjusted=float(p))
        for each, p in zip(found, adjusted(p_values, correction), strict=True)
    ]


def in_words(found: Compared, baseline: str, alpha: float) -> LiftResult:
    """A comparison as a row of the report: its verdict, and what to do next."""
    effect, metric = found.effect, found.metric
    verdict = verdict_on(effect, found.p_adjusted, alpha)
    chance = effect.chance_above_zero
    return LiftResult(
        metric.name, found.variant, baseline, found.n, found.mean, found.baseline_mean,
        effect.difference, effect.low, effect.high,
        effect.relative, effect.relative_low, effect.relative_high,
        effect.p_value, effect.interval, verdict, effect.always_valid, found.adjustment,
        found.p_adjusted, 1 - chance if metric.better == "down" else chance,
        _advice(effect, verdict, metric), found.population,
    )  # fmt: skip


def refused(srm: SampleRatio) -> Effect:
    """No effect, where the variants hold different kinds of units."""
    if math.isnan(srm.p_value):
        return Effect(math.nan, why_not="exposure cannot be checked without probabilities")
    what = "exposure depends on the variant" if srm.verdict == EXPOSURE else "sample ratio failed"
    return Effect(math.nan, why_not=f"{what} (p = {srm.p_value:.2g})")


def verdict_on(effect: Effect, p_value: float, alpha: float) -> str:
    """``higher``, ``lower``, no difference shown, or why there is no interval."""
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
    sides: dict[str, tuple[list[str], list[str]]] = {}
    for row in results:
        if row.metric in better and row.verdict in {"higher", "lower"}:
            if row.population != "assigned":
                continue
            gained = (row.verdict == "higher") == (better[row.metric] == "up")
            said = f"{row.metric} ({row.difference:+.3g})"
            sides.setdefault(row.variant, ([], []))[0 if gained else 1].append(said)
    return [
        f"{variant} gains {', '.join(gains)} and harms {', '.join(harms)}: "
        "weigh the one against the other before it is kept; no average of them does that"
        for variant, (gains, harms) in sides.items()
        if gains and harms
    ]
