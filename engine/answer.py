"""What a service receives for a decision: the experience to render, and how it was chosen."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.ids import rfc3339
from engine.record import ContactRecord, DecisionRecord, Reason
from engine.workspace import Workspace
from recsys import Slate


class Choice(msgspec.Struct, frozen=True):
    """How one slot was answered; ``propensity`` is P(action | assignments, context)."""

    slot: str
    action: str
    propensity: float
    reason: Reason
    policy: str | None
    snapshot: str | None


class AssignmentAnswer(msgspec.Struct, frozen=True):
    """A holdout or variant that the unit is in."""

    kind: str
    id: str
    variant: str
    probability: float


class Answer(msgspec.Struct, frozen=True):
    """The answer to one request.

    ``decision_id`` is null where nothing was logged: a peek, or the declared defaults where the
    record could not be made durable (``fallback`` says why).
    """

    decision_id: str | None
    surface: str
    unit: str
    decided_at: str
    revision: str
    config: dict[str, Any]
    choices: tuple[Choice, ...]
    assignments: tuple[AssignmentAnswer, ...]
    slates: dict[str, Slate]
    contacts: tuple[ContactRecord, ...]
    suppressed: tuple[str, ...]
    fallback: str | None
    logged: bool


def answer(record: DecisionRecord, workspace: Workspace, *, logged: bool = True) -> Answer:
    """The answer that a record stands for, under the revision that made it."""
    slots = workspace.surfaces[record.surface].slots
    return Answer(
        decision_id=record.decision_id if logged else None,
        surface=record.surface,
        unit=record.unit,
        decided_at=rfc3339(record.decided_at),
        revision=record.revision,
        config={c.slot: slots[c.slot].values[c.action] for c in record.choices},
        choices=tuple(
            Choice(c.slot, c.action, c.propensity, c.reason, c.policy, c.snapshot)
            for c in record.choices
        ),
        assignments=tuple(
            AssignmentAnswer(a.kind, a.id, a.variant, a.probability) for a in record.assignments
        ),
        slates=record.slates,
        contacts=record.contacts,
        suppressed=record.suppressed,
        fallback=record.fallback,
        logged=logged,
    )


def unlogged_defaults(record: DecisionRecord, workspace: Workspace, why: str) -> Answer:
    """The declared default of each slot, in place of a decision that could not be logged."""
    slots = workspace.surfaces[record.surface].slots
    defaults = {c.slot: slots[c.slot].default for c in record.choices}
    return Answer(
        decision_id=None,
        surface=record.surface,
        unit=record.unit,
        decided_at=rfc3339(record.decided_at),
        revision=record.revision,
        config={slot: slots[slot].values[action] for slot, action in defaults.items()},
        choices=tuple(
            Choice(slot, action, 1.0, "fallback", None, None) for slot, action in defaults.items()
        ),
        assignments=(),
        slates={},
        contacts=(),
        suppressed=(),
        fallback=why,
        logged=False,
    )
