"""A workspace: what operators write, checked whole, as the frozen values that decisions read."""

from engine.workspace.check import canonical_content, load_workspace, workspace_from_content
from engine.workspace.item_rules import ItemRule
from engine.workspace.model import (
    Attribute,
    Budget,
    Candidate,
    Gate,
    Guardrail,
    HardRule,
    Items,
    Learner,
    PolicySpec,
    Recommender,
    Slate,
    Slot,
    Surface,
    Workspace,
    learner_id,
    slot_attribute,
)
from engine.workspace.schema import EMBEDDED
from engine.workspace.source import written

__all__ = [
    "EMBEDDED",
    "Attribute",
    "Budget",
    "Candidate",
    "Gate",
    "Guardrail",
    "HardRule",
    "ItemRule",
    "Items",
    "Learner",
    "PolicySpec",
    "Recommender",
    "Slate",
    "Slot",
    "Surface",
    "Workspace",
    "canonical_content",
    "learner_id",
    "load_workspace",
    "slot_attribute",
    "workspace_from_content",
    "written",
]
