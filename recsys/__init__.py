"""The recommender: items and interactions in, candidates and ranked lists out.

Start at `load_items`, `train` and `bind`, or, for a slate, at `recommend`; everything about the
user arrives in the `Call`.
"""

from recsys.bound import BoundModel, bind
from recsys.call import SLATE_KINDS, Call, Interaction, SlateKind
from recsys.candidates import Candidates, CandidateSource
from recsys.catalogue import Catalogue, Column, Item, ItemSchema
from recsys.errors import RecsysError
from recsys.evaluation import Evaluation, Split, compare, evaluate, per_user_split, time_split
from recsys.interactions import Interactions
from recsys.loading import InteractionColumns, LineFault, load_interactions, load_items
from recsys.model import Model, load_model, open_model
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
from recsys.settings import TrainSettings
from recsys.slate import Slate, SlateItem, SlateTrace
from recsys.training import train, updated

__all__ = [
    "SLATE_KINDS",
    "BoundModel",
    "Calibration",
    "Call",
    "CandidateSource",
    "Candidates",
    "Catalogue",
    "Column",
    "Composing",
    "Diversity",
    "Evaluation",
    "Exploration",
    "Interaction",
    "InteractionColumns",
    "Interactions",
    "Item",
    "ItemSchema",
    "Limit",
    "LineFault",
    "Model",
    "Pin",
    "Recommendation",
    "RecsysError",
    "Slate",
    "SlateItem",
    "SlateKind",
    "SlatePlan",
    "SlateTrace",
    "Split",
    "TrainSettings",
    "bind",
    "compare",
    "evaluate",
    "every_slate",
    "load_interactions",
    "load_items",
    "load_model",
    "marginals",
    "open_model",
    "per_user_split",
    "propensities",
    "recommend",
    "recompose",
    "time_split",
    "train",
    "updated",
]
