"""A workspace: what operators write, checked whole, as the frozen values that decisions read."""

from engine.workspace.check import canonical_content, load_workspace, workspace_from_content
from engine.workspace.model import (
    Attribute,
    Guardrail,
    HardRule,
    Learner,
    PolicySpec,
    Slot,
    Surface,
    Workspace,
    learner_id,
)

__all__ = [
    "Attribute",
    "Guardrail",
    "HardRule",
    "Learner",
    "PolicySpec",
    "Slot",
    "Surface",
    "Workspace",
    "canonical_content",
    "learner_id",
    "load_workspace",
    "workspace_from_content",
]
