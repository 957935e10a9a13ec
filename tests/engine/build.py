"""What the engine's tests build: workspaces from text, models that serve, ids and times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.decide import Inputs, Model, Serving, StickyDraw, decide
from engine.ids import uuid7
from engine.log import decision_entry
from engine.models import fresh, static_models
from engine.record import ChoiceRecord, DecisionRecord
from engine.request import DecideRequest
from engine.workspace import Workspace, load_workspace
from policies import Policy, snapshot_digest

SAMPLE = Path(__file__).parents[2] / "examples" / "streaming" / "workspace"
SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOW = 20_000 * DAY + 9 * HOUR
"""2024-10-04 09:00 UTC."""


def workspace_of(*texts: str) -> Workspace:
    """The workspace of some files' texts."""
    with TemporaryDirectory() as folder:
        for index, text in enumerate(texts):
            Path(folder, f"{index}.yaml").write_text(text, encoding="utf-8")
        return load_workspace(Path(folder))


def serving_of(workspace: Workspace, learned: Mapping[str, Policy] | None = None) -> Serving:
    """The workspace with fresh models, but for the learners that have learned."""
    models: dict[str, Model] = {}
    for id_, learner in workspace.learners.items():
        policy = (learned or {}).get(id_) or fresh(learner.policy)
        models[id_] = Model(policy, snapshot_digest(policy.dumps()))
    return Serving(workspace, models | static_models(workspace))


def decided(
    serving: Serving,
    surface: str,
    unit: int | str = 0,
    *,
    number: int = 0,
    at: int = NOW,
    sticky: Mapping[str, StickyDraw] | None = None,
    **request: Any,
) -> DecisionRecord:
    """The decision number ``number`` on a surface for a user."""
    asked = DecideRequest(surface=surface, user_id=str(unit), **request)
    inputs = Inputs(sticky or {})
    return decide(serving, asked, inputs, decision_id=uuid7(at, number), now_us=at)


def only_choice(record: DecisionRecord) -> ChoiceRecord:
    """The choice of a decision on one slot."""
    (choice,) = record.choices
    return choice


def draws_of(record: DecisionRecord) -> Mapping[str, StickyDraw]:
    """The sticky draws that a decision made, as a later one finds them."""
    return decision_entry(record).sticky
