"""What is appended to the log, as values: each entry is stored whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from engine.constraints import Spend
from engine.decide import StickyDraw
from engine.items import ItemChange
from engine.record import DecisionRecord, encode_record
from engine.request import DecideRequest
from engine.workspace import Learner

ERASED = "e:"
"""What the unit of a person who was forgotten begins with."""

OF_OUTCOME = "o:"
"""What the id of an interaction begins with that an outcome told of."""

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Learnable:
    """A drawn choice that a learner may learn from, once outcomes can no longer change it.

    It closes when it is decided, or when its sticky period ends; it matures the reward's windows
    after that. What a learner's spec says of windows may change later, so only the former is kept.
    """

    learner: str
    slot: str
    closes_at: int


@dataclass(frozen=True, slots=True)
class DecisionEntry:
    """A decision to append, with what the log is searched by.

    Committed after ``answer_by``, it is marked void in the same breath: its caller was or will be
    answered with the defaults.
    """

    record: DecisionRecord
    data: bytes
    request_digest: str | None
    learnables: tuple[Learnable, ...]
    sticky: Mapping[str, StickyDraw]
    answer_by: int | None = None
    spends: tuple[Spend, ...] = ()


@dataclass(frozen=True, slots=True)
class ExposureEntry:
    """A decision was shown: all of its slots (None) or those named."""

    decision_id: str
    slots: tuple[str, ...] | None
    occurred_at: int
    received_at: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened, as one number of a metric, for a decision or for a unit.

    ``corrects`` names an earlier outcome whose value this one replaces. ``timed`` says that the
    sender gave ``occurred_at``; else it is the time of receipt. ``item_id`` names the item that it
    is about, and ``interaction`` what was done with it, where that is of use to recommenders.
    """

    outcome_id: str
    metric: str
    value: float
    occurred_at: int
    received_at: int
    decision_id: str | None = None
    unit: str | None = None
    corrects: str | None = None
    timed: bool = True
    item_id: str | None = None
    interaction: str | None = None

    def digest(self) -> str:
        """Digest of what a repeated ``outcome_id`` must agree on: all that the sender gave."""
        content: tuple[object, ...] = (
            self.metric,
            self.value,
            self.occurred_at if self.timed else None,
            self.decision_id,
            self.unit,
            self.corrects,
        )
        if self.item_id is not None:
            content = (*content, self.item_id)
        return hashlib.sha256(_ENCODER.encode(content)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class OutcomesEntry:
    """Outcomes that are stored all or none."""

    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class ItemsEntry:
    """News of items, stored all or none."""

    changes: tuple[ItemChange, ...]


@dataclass(frozen=True, slots=True)
class UnitInteraction:
    """What a unit did with an item. ``corrects`` names an earlier one whose value this replaces.

    The unit is None while the decision that it follows is not stored.
    """

    interaction_id: str
    unit: str | None
    item_id: str
    kind: str
    value: float
    occurred_at: int
    received_at: int
    decision_id: str | None = None
    corrects: str | None = None


@dataclass(frozen=True, slots=True)
class InteractionsEntry:
    """Interactions that come from elsewhere than outcomes; those of known ids are passed over."""

    interactions: tuple[UnitInteraction, ...]


@dataclass(frozen=True, slots=True)
class VoidEntry:
    """A stored decision that was answered otherwise, and so says nothing about any policy."""

    decision_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Position:
    """How far a learner has read, in the order of learning: (closes_at, decision_id).

    For one learner that is the order of (matures_at, decision_id), since its windows are the same
    for all decisions.
    """

    closes_at: int = -1
    decision_id: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """A learner's new state; ``parent`` is the digest it grew from.

    ``passed`` counts the rows up to ``position``, ``learned`` those of them that it learned from.
    ``units`` is the selector of the units it learned from, None where it may be any.
    """

    learner: str
    spec: str
    digest: str
    parent: str | None
    position: Position
    passed: int
    learned: int
    created_at: int
    data: bytes
    units: str | None = None


Step = Literal["attempt", "promote", "pin", "undo"]
"""What a row of a learner's history of promotions says; see :mod:`engine.standing`."""


@dataclass(frozen=True, slots=True)
class PromotionEntry:
    """A step in the history of what serves for a learner.

    ``spec`` and ``snapshot`` say which lineage serves from now on, and at which of its snapshots it
    is held; both None where the declared policy does. ``judged_until`` is when the last choice
    closed that an attempt was judged by. ``report`` is JSON. ``after`` is the log position of the
    learner's last step when this one was decided on, 0 before the first.
    """

    learner: str
    what: Step
    spec: str | None
    snapshot: str | None
    judged_until: int
    at: int
    report: str
    after: int


@dataclass(frozen=True, slots=True)
class RevisionEntry:
    """A revision's content, and that it serves from ``activated_at`` on.

    ``after`` is the revision that was activated last when this one was found to be fit to follow.
    """

    digest: str
    content: bytes
    activated_at: int
    after: str | None


@dataclass(frozen=True, slots=True)
class SettleEntry:
    """From now on learning may take as stored all that is stamped up to a time."""

    until_us: int


@dataclass(frozen=True, slots=True)
class ErasedRecord:
    """A stored decision as it reads once its person is forgotten."""

    decision_id: str
    unit: str
    request_id: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class ErasedOutcome:
    """The ids that an outcome, named by its log position, has once its person is forgotten."""

    seq: int
    outcome_id: str
    digest: str
    unit: str | None
    corrects: str | None


@dataclass(frozen=True, slots=True)
class ErasureEntry:
    """A unit goes by a pseudonym, its rows as given here; of None only records are replaced.

    Interactions of the unit are deleted, and those named here.
    """

    unit: str | None
    pseudonym: str
    records: tuple[ErasedRecord, ...]
    outcomes: tuple[ErasedOutcome, ...]
    interactions: tuple[str, ...] = ()


Entry: TypeAlias = (
    DecisionEntry
    | ExposureEntry
    | OutcomesEntry
    | ItemsEntry
    | InteractionsEntry
    | VoidEntry
    | SnapshotEntry
    | PromotionEntry
    | RevisionEntry
    | SettleEntry
    | ErasureEntry
)


@dataclass(frozen=True, slots=True)
class Stored:
    """The entry is durable; ``duplicates`` of its parts were so before.

    ``void`` says of a decision that it came after its deadline.
    """

    accepted: int = 1
    duplicates: int = 0
    unmatched: int = 0
    void: bool = False


@dataclass(frozen=True, slots=True)
class Repeated:
    """The ``request_id`` was answered before: the stored record, and what was then asked."""

    data: bytes
    request_digest: str | None


@dataclass(frozen=True, slots=True)
class StickyTaken:
    """Another decision made a sticky draw first; decide again with its draw."""

    draws: Mapping[str, StickyDraw]


@dataclass(frozen=True, slots=True)
class Overspent:
    """The entry would spend more than there is; decide again with what is spent, by key."""

    spent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """The entry cannot stand beside the log; nothing of it was stored."""

    field: str
    message: str
    why: Literal["conflict", "missing", "invalid"]


@dataclass(frozen=True, slots=True)
class Settled:
    """What is stamped up to this time is stored, or never will be."""

    until_us: int


@dataclass(frozen=True, slots=True)
class Late:
    """The entry is stamped at or before a settled time; stamp it anew. Nothing of it was stored."""

    settled_us: int


Result: TypeAlias = Stored | Repeated | StickyTaken | Overspent | Refused | Settled | Late


def decision_entry(
    record: DecisionRecord,
    request: DecideRequest | None = None,
    also_learns: Iterable[Learner] = (),
    answer_by: int | None = None,
    spends: Iterable[Spend] = (),
) -> DecisionEntry:
    """The log entry of a decision; ``also_learns`` are learners that did not make it."""
    learnables = []
    sticky = {}
    for choice in record.choices:
        drawn = choice.draw
        if drawn is None or not drawn.drawn:
            continue
        closes_at = drawn.expires_at if drawn.expires_at is not None else record.decided_at
        if choice.learner is not None:
            learnables.append(Learnable(choice.learner, choice.slot, closes_at))
        learnables += [
            Learnable(learner.id, choice.slot, closes_at)
            for learner in also_learns
            if learner.slot == choice.slot and learner.surface == record.surface
        ]
        if drawn.expires_at is not None and drawn.uniform is not None:
            key = drawn.key.removesuffix(f":{drawn.redraw}") if drawn.redraw else drawn.key
            sticky[key] = StickyDraw(
                id=drawn.id,
                key=drawn.key,
                uniform=drawn.uniform,
                action=choice.action,
                propensity=choice.propensity,
                expires_at=drawn.expires_at,
                redraw=drawn.redraw,
                snapshot=choice.snapshot,
                path=choice.path,
            )
    return DecisionEntry(
        record=record,
        data=encode_record(record),
        request_digest=request_digest(request) if request and request.request_id else None,
        learnables=tuple(learnables),
        sticky=sticky,
        answer_by=answer_by,
        spends=tuple(spends),
    )


def request_digest(request: DecideRequest) -> str:
    """Digest of what a repeated ``request_id`` must agree on: all but deadline and trace."""
    content = (
        request.surface,
        request.user_id,
        request.anonymous_id,
        request.trigger,
        dict(request.context),
        request.slots,
    )
    encoded = msgspec.json.encode(content, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:32]
