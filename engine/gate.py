"""The promotion gate: whether a log shows a candidate to be better, and no guardrail worse.

A candidate is judged by rows that came after all that it learned from. Each attempt spends some of
a level that is declared once for all of them,

    α_k = 6 α / (π² k²),   Σ_k α_k = α,

so that the chance that any of them was a false promotion stays below α, however many are made and
whenever one stops. Intervals hold for logs whose policy learned while it logged, at any number of
rows: rewards and guardrails must have a declared range for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from attribution import AttributionError, EvaluationLog, evaluate
from engine.errors import ReportError
from engine.workspace import Guardrail

FloatArray = npt.NDArray[np.float64]
Verdict = Literal["promoted", "kept", "guarded", "too_weak"]

# By propensity alone: the interval needs no reward model, nor the rows to fit one on.
_ESTIMATOR = "ips"


def level_of(alpha: float, attempt: int) -> float:
    """The level that the attempt may spend, the first being 1."""
    return 6 * alpha / (math.pi * attempt) ** 2


@dataclass(frozen=True, slots=True)
class Shown:
    """What a log shows of a metric: the candidate's less the incumbent's, per choice.

    ``low`` and ``high`` are one-sided ends, each of the attempt's level. None without an estimate.
    """

    metric: str
    difference: float | None
    low: float | None
    high: float | None
    holds: bool
    why: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """An attempt's verdict: only ``promoted`` is a pass."""

    verdict: Verdict
    reason: str
    reward: Shown
    guardrails: tuple[Shown, ...]


def judge(
    reward: EvaluationLog,
    candidate: FloatArray,
    guarded: Mapping[str, tuple[EvaluationLog, FloatArray]],
    guardrails: Sequence[Guardrail],
    *,
    margin: float,
    level: float,
) -> Judgement:
    """Whether the candidate may serve.

    Parameters
    ----------
    reward
        The rows that judge, with the incumbent's pmf; their rewards lie in a declared range.
    candidate
        (n, k) its pmf at each row, by a snapshot that learned from none of them.
    guarded
        By metric, the same for each guardrail.
    margin
        By how much, in the reward's unit, it must be better.
    level
        The chance of a false promotion that this attempt may spend.

    Raises
    ------
    ReportError
        If a log cannot be read.
    """
    own = _shown("reward", reward, candidate, level)
    better = own.low is not None and own.low > margin
    guards = tuple(_held(g, *guarded[g.metric], level) for g in guardrails)
    if own.low is None or own.high is None:
        return Judgement("too_weak", own.why, own, guards)
    if not better:
        known = f"between {own.low:+.4g} and {own.high:+.4g} of the incumbent's reward"
        needed = f"more than {margin:+.4g} is needed"
        verdict: Verdict = "kept" if own.high <= margin else "too_weak"
        return Judgement(verdict, f"the candidate is {known}; {needed}", own, guards)
    for guard in guards:
        if not guard.holds:
            return Judgement("guarded", f"{guard.metric}: {guard.why}", own, guards)
    found = f"the candidate brings at least {own.low:.4g} more than the incumbent per choice"
    return Judgement("promoted", found, own, guards)


def _held(guardrail: Guardrail, log: EvaluationLog, candidate: FloatArray, level: float) -> Shown:
    """Non-inferiority: the metric's bad end lies within the margin."""
    seen = _shown(guardrail.metric, log, candidate, level)
    if seen.low is None or seen.high is None:
        return seen
    worst = seen.low if guardrail.direction == "up" else -seen.high
    holds = worst >= -guardrail.margin
    why = (
        f"may be worse by {-worst:.4g}, {'within' if holds else 'beyond'} its margin of "
        f"{guardrail.margin:g}"
    )
    return Shown(seen.metric, seen.difference, seen.low, seen.high, holds, why)


def _shown(metric: str, log: EvaluationLog, candidate: FloatArray, level: float) -> Shown:
    try:
        report = evaluate(
            log, {"candidate": candidate}, [_ESTIMATOR],
            against="logging", interval="anytime", alpha=2 * level,
        )  # fmt: skip
    except AttributionError as error:
        raise ReportError(f"{metric}: {error}") from error
    seen = report.diagnostics["candidate"]
    if seen.verdict != "ok":
        return Shown(metric, None, None, None, holds=False, why=seen.reason)
    (found,) = report.comparisons_made
    return Shown(metric, found.difference, found.low, found.high, holds=True, why="")
