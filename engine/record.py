"""The decision record: what was decided, from what, by whose rules, with which probability.

A record is written once and never edited; a field that was not stored cannot be recovered, so
every shape that later parts fill (slates, contacts, identity) exists from version 1. Rule verdicts
are one letter each (T, F, U for unknown): the verdict of the rule first, then its clauses in the
order in which the revision's rule lists them, ``-`` for one that was not reached.
"""

from __future__ import annotations

from math import prod
from typing import Any, Literal

import msgspec

from engine.version import __version__
from recsys import Slate
from recsys.slate import SlateTrace

RECORD_VERSION = 1

Reason = Literal["holdout", "experiment", "policy", "rule", "default", "fallback"]
Origin = Literal["live", "import", "simulate"]


class AssignmentRecord(msgspec.Struct, frozen=True):
    """A holdout or an experiment's variant that the unit was in, and the probability of that."""

    kind: str
    id: str
    variant: str
    probability: float
    factors: dict[str, float]


class IdentityRecord(msgspec.Struct, frozen=True):
    """The identifiers of the request, the unit they resolved to, and the identity's version."""

    user_id: str | None
    anonymous_id: str | None
    unit: str
    version: int = 0
    stitches: tuple[str, ...] = ()


class DrawRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The randomisation behind a choice.

    ``key`` is the hashed text, ``uniform`` its bucket; null where somebody else drew (an import).
    ``drawn`` is false where a sticky draw of an earlier decision was referred to; its pmf is then
    in the record of the decision that drew it. ``redraw`` counts how often the eligible set lost
    the drawn action within the period.
    """

    id: str
    key: str
    uniform: float | None
    drawn: bool = True
    expires_at: int | None = None
    redraw: int = 0


class ContactRecord(msgspec.Struct, frozen=True):
    """One outbound message on a channel that a decision asks for, and when.

    Not sent if the event ``unless`` is seen before ``send_at``.
    """

    contact_id: str
    channel: str
    slot: str
    send_at: int
    unless: str | None = None


class ChoiceRecord(msgspec.Struct, frozen=True):
    """One slot's choice, from its candidates to its propensity.

    ``pmf_policy`` is the policy's own, ``pmf`` that after the floor, from which was drawn; both
    over ``eligible``, and null where nothing was drawn. ``path`` names the variant or holdout that
    led to the policy, ``path_factors`` the probability of each step there; ``propensity`` is
    conditional on them. A choice that is not ``evaluable`` (a fallback) says nothing about any
    policy.
    """

    slot: str
    action: str
    propensity: float
    reason: Reason
    candidates: tuple[str, ...]
    verdicts: dict[str, str | dict[str, str]]
    eligible: tuple[str, ...]
    path: str | None
    path_factors: dict[str, float]
    policy: str | None = None
    learner: str | None = None
    spec: str | None = None
    snapshot: str | None = None
    floor: float = 0.0
    pmf_policy: tuple[float, ...] | None = None
    pmf: tuple[float, ...] | None = None
    expected: tuple[float, ...] | None = None
    draw: DrawRecord | None = None
    fallback: str | None = None

    @property
    def path_probability(self) -> float:
        """The probability of the assignments that led to the policy."""
        return prod(self.path_factors.values())

    @property
    def evaluable(self) -> bool:
        """Whether the choice was made as its propensity says."""
        return self.fallback is None


class SlateRecord(msgspec.Struct, frozen=True):
    """How a slate was filled: by which recommender, from what, and all that made its order.

    ``fallback`` says why not by the one that the slate names. ``history`` counts what the call told
    of the unit's interactions. ``stale`` names attributes of items that were told too long ago.
    ``timings`` are the seconds that each stage took; what is measured is no part of a replay.
    """

    recommender: str
    fallback: str | None
    history: int
    stale: tuple[str, ...]
    trace: SlateTrace
    timings: dict[str, float]


class RecommendedRecord(msgspec.Struct, frozen=True):
    """What a call for one slate, without a decision, asked for."""

    slate: str
    k: int | None
    seeds: tuple[str, ...]
    exclude: tuple[str, ...]
    filters: dict[str, Any]
    decision_id: str | None


class DecisionRecord(msgspec.Struct, frozen=True):
    """One decision, whole. Times are integer microseconds since 1970-01-01 UTC.

    ``ages_us`` names the attributes that were observed before the decision, ``unknown`` those that
    could not be used and why. ``verdicts`` are those of the surface's own rules, which hold for
    every slot. ``caps`` says what was known of the allowances that the decision met: what was spent
    of each budget and guarantee, and how many decisions a model had learned that may abstain.
    ``fillings`` say how each of the ``slates`` was filled, ``recommended`` what was asked where a
    slate alone was; records without slates have neither.
    """

    record_version: int
    decision_id: str
    request_id: str | None
    origin: Origin
    decided_at: int
    time_zone: str
    identity: IdentityRecord
    surface: str
    trigger: str | None
    context: dict[str, Any]
    ages_us: dict[str, int]
    unknown: dict[str, str]
    verdicts: dict[str, str]
    revision: str
    code_version: str
    assignments: tuple[AssignmentRecord, ...]
    choices: tuple[ChoiceRecord, ...]
    slates: dict[str, Slate] = {}
    caps: dict[str, int] = {}
    suppressed: tuple[str, ...] = ()
    contacts: tuple[ContactRecord, ...] = ()
    fallback: str | None = None
    traceparent: str | None = None
    fillings: dict[str, SlateRecord] | msgspec.UnsetType = msgspec.UNSET
    recommended: RecommendedRecord | msgspec.UnsetType = msgspec.UNSET

    @property
    def unit(self) -> str:
        """What was randomised."""
        return self.identity.unit


def fillings_of(record: DecisionRecord) -> dict[str, SlateRecord]:
    """How each slate of a record was filled."""
    return {} if isinstance(record.fillings, msgspec.UnsetType) else record.fillings


CODE_VERSION = f"evenhand {__version__}"

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(DecisionRecord)


def encode_record(record: DecisionRecord) -> bytes:
    """The record's one JSON text; equal records have equal bytes."""
    return _ENCODER.encode(record)


def decode_record(data: bytes) -> DecisionRecord:
    """The record of its JSON text."""
    return _DECODER.decode(data)
