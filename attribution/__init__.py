"""What a policy or a variant was worth: metrics, lift and off-policy evaluation over frames.

Names are imported when first used, so that ``attribution.metrics``, which the decision
server needs, brings no data frame library with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from attribution.errors import AttributionError

if TYPE_CHECKING:
    from attribution.aa import AACheck, aa_check
    from attribution.batches import LogColumns
    from attribution.continuous import ContinuousLog
    from attribution.contrasts import Prior
    from attribution.diagnostics import Diagnostics
    from attribution.effects import lift
    from attribution.evaluation import evaluate
    from attribution.factors import Surface, SurfaceReport, across_surfaces, value_of_learning
    from attribution.joins import JoinedDecisions, JoinedUnits, join_decisions, join_units
    from attribution.lift_metrics import Count, Mean, Proportion, Quantile, Ratio, Retention
    from attribution.log import EvaluationLog
    from attribution.metrics import MetricSpec, OutcomeEvent, counts, matures_at, metric_value
    from attribution.report import EvaluationReport, LiftReport
    from attribution.reward_models import cross_fit, fit_earlier
    from attribution.rollups import Rollup, roll_up
    from attribution.slates import SlateLog, SlateTarget
    from attribution.spark import evaluate_spark
    from attribution.streaming import evaluate_batches

__all__ = [
    "AACheck",
    "AttributionError",
    "ContinuousLog",
    "Count",
    "Diagnostics",
    "EvaluationLog",
    "EvaluationReport",
    "JoinedDecisions",
    "JoinedUnits",
    "LiftReport",
    "LogColumns",
    "Mean",
    "MetricSpec",
    "OutcomeEvent",
    "Prior",
    "Proportion",
    "Quantile",
    "Ratio",
    "Retention",
    "Rollup",
    "SlateLog",
    "SlateTarget",
    "Surface",
    "SurfaceReport",
    "aa_check",
    "across_surfaces",
    "counts",
    "cross_fit",
    "evaluate",
    "evaluate_batches",
    "evaluate_spark",
    "fit_earlier",
    "join_decisions",
    "join_units",
    "lift",
    "matures_at",
    "metric_value",
    "roll_up",
    "value_of_learning",
]

_HOME = {
    "AACheck": "aa",
    "ContinuousLog": "continuous",
    "Count": "lift_metrics",
    "Diagnostics": "diagnostics",
    "EvaluationLog": "log",
    "EvaluationReport": "report",
    "JoinedDecisions": "joins",
    "JoinedUnits": "joins",
    "LiftReport": "report",
    "LogColumns": "batches",
    "Mean": "lift_metrics",
    "MetricSpec": "metrics",
    "OutcomeEvent": "metrics",
    "Prior": "contrasts",
    "Proportion": "lift_metrics",
    "Quantile": "lift_metrics",
    "Ratio": "lift_metrics",
    "Retention": "lift_metrics",
    "Rollup": "rollups",
    "SlateLog": "slates",
    "SlateTarget": "slates",
    "Surface": "factors",
    "SurfaceReport": "factors",
    "aa_check": "aa",
    "across_surfaces": "factors",
    "counts": "metrics",
    "cross_fit": "reward_models",
    "evaluate": "evaluation",
    "evaluate_batches": "streaming",
    "evaluate_spark": "spark",
    "fit_earlier": "reward_models",
    "join_decisions": "joins",
    "join_units": "joins",
    "lift": "effects",
    "matures_at": "metrics",
    "metric_value": "metrics",
    "roll_up": "rollups",
    "value_of_learning": "factors",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
