"""What a service receives for a decision: the experience to render, and how it was chosen."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.ids import rfc3339
from engine.record import ContactRecord, DecisionRecord, Reason, fillings_of
from engine.workspace import Workspace
from recsys.slate import SlateItem


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


class SlateCall(msgspec.Struct, frozen=True):
    """What to ask of ``POST /v1/recommend`` to have a slate filled that is delivered so."""

    surface: str
    slate: str
    k: int
    decision_id: str | None


class SlateAnswer(msgspec.Struct, frozen=True):
    """A ranked list; or, where it is delivered as a reference, what to call for it.

    ``shortfall`` says why it holds fewer items than asked for. ``stale`` names attributes of items
    that were told too long ago, for which items were withheld; ``fallback`` says why another
    recommender than the one declared was asked.
    """

    trace_id: str
    items: tuple[SlateItem, ...]
    shortfall: str = ""
    stale: tuple[str, ...] = ()
    fallback: str | None = None
    call: SlateCall | None = None


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
    slates: dict[str, SlateAnswer]
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
        slates=slates_of(record, workspace, logged=logged),
        contacts=record.contacts,
        suppressed=record.suppressed,
        fallback=record.fallback,
        logged=logged,
    )


def slates_of(
    record: DecisionRecord, workspace: Workspace, *, logged: bool = True
) -> dict[str, SlateAnswer]:
    """The slates of a record, filled or as references."""
    fillings = fillings_of(record)
    found = {}
    for id_, slate in record.slates.items():
        filling = fillings.get(id_)
        found[id_] = SlateAnswer(
            slate.trace_id,
            slate.items,
            slate.shortfall,
            filling.stale if filling else (),
            filling.fallback if filling else None,
        )
    slots = workspace.surfaces[record.surface].slots
    for choice in record.choices:
        for id_ in slots[choice.slot].slates.get(choice.action, ()):
            declared = workspace.slates[id_]
            if not declared.inline:
                decision_id = record.decision_id if logged else None
                call = SlateCall(record.surface, id_, declared.plan.k, decision_id)
                found[id_] = SlateAnswer(f"{record.decision_id}/{id_}", (), call=call)
    return found


class Recommended(msgspec.Struct, frozen=True):
    """The answer to a call for one slate.

    ``trace_id`` is the id of its decision, under which it is explained, replayed, shown and
    followed by outcomes; null where nothing was logged, and ``fallback`` says why.
    """

    trace_id: str | None
    slate: str
    items: tuple[SlateItem, ...]
    shortfall: str
    stale: tuple[str, ...]
    fallback: str | None
    logged: bool


def recommendation(
    record: DecisionRecord, workspace: Workspace, *, unlogged: str | None = None
) -> Recommended:
    """The answer that the record of a call for one slate stands for.

    ``unlogged`` says why it is not in the log.
    """
    ((id_, slate),) = slates_of(record, workspace).items()
    return Recommended(
        trace_id=None if unlogged else record.decision_id,
        slate=id_,
        items=slate.items,
        shortfall=slate.shortfall,
        stale=slate.stale,
        fallback=unlogged or slate.fallback,
        logged=unlogged is None,
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
