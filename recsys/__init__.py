"""Ranked lists: the values that a recommender answers with and a decision records."""

from recsys.plan import (
    Calibration,
    Composing,
    Diversity,
    Exploration,
    Limit,
    Pin,
    SlatePlan,
)
from recsys.recommend import Recommendation, recommend
from recsys.replay import every_slate, marginals, propensities, recompose
from recsys.slate import Slate, SlateItem, SlateTrace

__all__ = [
    "Calibration",
    "Composing",
    "Diversity",
    "Exploration",
    "Limit",
    "Pin",
    "Recommendation",
    "Slate",
    "SlateItem",
    "SlatePlan",
    "SlateTrace",
    "every_slate",
    "marginals",
    "propensities",
    "recommend",
    "recompose",
]
