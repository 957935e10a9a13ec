"""Filling slates: what a decision asks of the recommender, and what its record keeps of the answer.

The recommender knows nothing of a unit but what a call says. The call is made here: of the
request, of what the unit did with items as far as the log knows, and of the decision's id. The
answer depends on nothing else than the call, the slate's plan and one shelf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from engine.decide import Serving, unknown_name
from engine.errors import EngineError, NotFoundError, RequestError
from engine.log import UnitInteraction
from engine.record import (
    CODE_VERSION,
    RECORD_VERSION,
    DecisionRecord,
    IdentityRecord,
    Origin,
    RecommendedRecord,
    SlateRecord,
    fillings_of,
)
from engine.request import RecommendRequest, read_attributes
from engine.shelf import Ranked, Shelf, Source
from engine.workspace import Recommender, Slate, Workspace
from experiments import bucket
from recsys import Slate as Filled
from recsys.call import PERSONALISATION, Call, Interaction, SlateKind
from recsys.recommend import recommend
from recsys.replay import recompose
from recsys.rules import Except, Fresh
from recsys.rules import ItemRule as AnyRule

MOST_INTERACTIONS = 500
"""How many of a unit's last interactions a call tells."""
MOST_GATING = 2_000
"""How many it tells of the kinds that keep items out, whatever else the unit did since."""

Timer = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a slate is asked to hold beside what its plan says: of a decision, or of a call alone.

    ``values`` are the attributes that rules may read, by name.
    """

    surface: str
    unit: str
    id: str
    now_us: int
    values: Mapping[str, Any]
    history: tuple[Interaction, ...] = ()
    owned: tuple[str, ...] = ()
    k: int | None = None
    seeds: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class ExternalRecommender(Protocol):
    """How recommenders elsewhere are asked."""

    async def rank(
        self, recommender: Recommender, kind: SlateKind, call: Call, count: int, timeout_s: float
    ) -> Ranked:
        """At most so many items, the best first.

        Raises
        ------
        ExternalError
            If there is no answer in time, or none that is of this form.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class ExternalError(EngineError):
    """A recommender elsewhere that did not answer as it should."""


def wanted(workspace: Workspace, record: DecisionRecord) -> tuple[Slate, ...]:
    """The slates to fill: those that a decision's actions name, or the one that was asked for.

    Each once, in the order of the choices; without those that are delivered as references.
    """
    if isinstance(record.recommended, RecommendedRecord):
        return (workspace.slates[record.recommended.slate],)
    slots = workspace.surfaces[record.surface].slots
    named = [id_ for c in record.choices for id_ in slots[c.slot].slates.get(c.action, ())]
    found = (workspace.slates[id_] for id_ in dict.fromkeys(named))
    return tuple(slate for slate in found if slate.inline)


def named_slate(workspace: Workspace, surface_id: str, id_: str | None) -> Slate:
    """The slate of a surface that a call names, or the surface's only one.

    Raises
    ------
    NotFoundError
        If the surface is not declared.
    RequestError
        If the surface has no such slate, or several and none is named.
    """
    surface = workspace.surfaces.get(surface_id)
    if surface is None:
        raise NotFoundError("surface", unknown_name(surface_id, workspace.surfaces))
    if id_ is None:
        if len(surface.slates) != 1:
            known = ", ".join(f'"{slate}"' for slate in surface.slates) or "none"
            raise RequestError("slate", f"is missing; surface {surface_id} has {known}: name one")
        id_ = surface.slates[0]
    if id_ not in surface.slates:
        raise RequestError("slate", unknown_name(id_, surface.slates))
    return workspace.slates[id_]


def recommended(
    serving: Serving,
    request: RecommendRequest,
    *,
    decision_id: str,
    now_us: int,
    origin: Origin = "live",
) -> DecisionRecord:
    """The record of a call for one slate: a decision without choices, whose slate is still to fill.

    Raises
    ------
    NotFoundError
        If the surface is not declared.
    RequestError
        If it has no such slate, or an attribute is not what the surface declares.
    """
    workspace, of = serving.workspace, request.of
    slate = named_slate(workspace, of.surface, request.slate)
    attributes = read_attributes(workspace.surfaces[of.surface], of.context, now_us)
    return DecisionRecord(
        record_version=RECORD_VERSION,
        decision_id=decision_id,
        request_id=None,
        origin=origin,
        decided_at=now_us,
        time_zone=workspace.time_zone,
        identity=IdentityRecord(of.user_id, of.anonymous_id, of.unit),
        surface=of.surface,
        trigger=None,
        context=dict(attributes.recorded),
        ages_us=dict(attributes.ages_us),
        unknown=dict(attributes.unknown),
        verdicts={},
        revision=workspace.revision,
        code_version=CODE_VERSION,
        assignments=(),
        choices=(),
        traceparent=of.traceparent,
        recommended=RecommendedRecord(
            slate=slate.id,
            k=request.k,
            seeds=request.seeds,
            exclude=request.exclude,
            filters=dict(request.filters),
            decision_id=request.decision_id,
        ),
    )


def ask_of(
    workspace: Workspace,
    record: DecisionRecord,
    context: Mapping[str, Any],
    history: tuple[Interaction, ...] = (),
) -> Ask:
    """What is asked of each slate of a record; ``context`` is as the request has it."""
    surface = workspace.surfaces[record.surface]
    ask = Ask(
        surface=record.surface,
        unit=record.unit,
        id=record.decision_id,
        now_us=record.decided_at,
        values=read_attributes(surface, context, record.decided_at).values,
        history=history,
        owned=owned_by(history),
    )
    asked = record.recommended
    if isinstance(asked, msgspec.UnsetType):
        return ask
    return dataclasses.replace(
        ask, k=asked.k, seeds=asked.seeds, exclude=asked.exclude, filters=asked.filters
    )


def recomposed(
    workspace: Workspace, stored: DecisionRecord, again: DecisionRecord
) -> DecisionRecord:
    """A record that was made again, with its slates composed again from what was logged of them.

    What was drawn with is worked out anew; candidates and their scores are as they were logged.
    """
    fillings = fillings_of(stored)
    filled: dict[str, tuple[Filled, SlateRecord | None]] = {}
    for slate in wanted(workspace, again):
        filling = fillings.get(slate.id)
        if filling is not None:
            drawn = uniforms(slate, again.decision_id, filling.trace.k)
            trace = recompose(replace(filling.trace, uniforms=drawn))
            filled[slate.id] = trace.answer(), replace(filling, trace=trace)
        elif slate.id in stored.slates:
            # One that could not be filled says why, and there is nothing to make it of.
            filled[slate.id] = stored.slates[slate.id], None
    return with_slates(again, filled) if filled else again


def with_slates(
    record: DecisionRecord, filled: Mapping[str, tuple[Filled, SlateRecord | None]]
) -> DecisionRecord:
    """The record with its slates, and how those came about that could be filled."""
    return replace(
        record,
        slates={id_: slate for id_, (slate, _) in filled.items()},
        fillings={id_: filling for id_, (_, filling) in filled.items() if filling is not None},
    )


def uniforms(slate: Slate, id_: str, k: int) -> tuple[float, ...]:
    """What each position of a slate is drawn with; empty where the plan does not explore.

    Position j is drawn with the bucket of ``salt:slate:id:j``.
    """
    exploration = slate.plan.composing.exploration
    if exploration.temperature == 0 and exploration.epsilon == 0:
        return ()
    return tuple(bucket(slate.salt, f"{slate.id}:{id_}:{at}") for at in range(1, k + 1))


def call_of(slate: Slate, ask: Ask) -> Call:
    """What the recommender is told.

    Raises
    ------
    RecsysError
        If it is no call, as with a ``k`` that is out of range.
    """
    k = slate.plan.k if ask.k is None else ask.k
    return Call(
        user_id=ask.unit,
        surface=ask.surface,
        slate=slate.id,
        k=k,
        now=ask.now_us,
        trace_id=f"{ask.id}/{slate.id}",
        context=dict(ask.values),
        history=ask.history,
        owned=_distinct(ask.owned, _ids(ask.values, slate.owned)),
        exclude=_distinct(ask.exclude, _ids(ask.values, slate.exclude)),
        seeds=_distinct(ask.seeds, _ids(ask.values, slate.seeds)),
        filters=dict(ask.filters),
        consents=_consents(slate, ask),
        uniforms=uniforms(slate, ask.id, k),
    )


def _consents(slate: Slate, ask: Ask) -> dict[str, bool]:
    """What the unit agreed to; what is not known was not agreed to."""
    if slate.personal is None:
        return {}
    return {PERSONALISATION: ask.values.get(slate.personal) is True}


def _ids(values: Mapping[str, Any], attribute: str | None) -> tuple[str, ...]:
    """The ids of items that an attribute holds: a list of them, or one."""
    value = values.get(attribute) if attribute is not None else None
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(id_ for id_ in value if id_) if isinstance(value, list | tuple) else ()


def _distinct(*several: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(id_ for ids in several for id_ in ids))


def told(interactions: Sequence[UnitInteraction]) -> tuple[Interaction, ...]:
    """What a unit did with items, the oldest first, as later corrections leave it."""
    held = sorted(standing(interactions), key=lambda held: held[0].occurred_at)
    return tuple(Interaction(one.item_id, one.kind, one.occurred_at, value) for one, value in held)


def standing(
    interactions: Sequence[UnitInteraction],
) -> list[tuple[UnitInteraction, float]]:
    """Interactions with their values, as later corrections leave them, in the order given.

    One whose value was corrected to 0 did not happen.
    """
    values = {one.interaction_id: one.value for one in interactions if one.corrects is None}
    first = {id_: id_ for id_ in values}
    undone: set[str] = set()
    corrections = [one for one in interactions if one.corrects is not None]
    for one in sorted(corrections, key=lambda one: one.received_at):
        original = first.get(one.corrects or "")
        if original is not None:
            first[one.interaction_id] = original
            values[original] = one.value
            (undone.add if one.value == 0 else undone.discard)(original)
    return [
        (one, values[one.interaction_id])
        for one in interactions
        if one.corrects is None and one.interaction_id not in undone
    ]


def owned_by(history: Sequence[Interaction]) -> tuple[str, ...]:
    """The items that a unit bought and did not return since."""
    has: dict[str, None] = {}
    for one in history:
        if one.kind == "purchase":
            has[one.item_id] = None
        elif one.kind == "return":
            has.pop(one.item_id, None)
    return tuple(has)


def fill(
    slate: Slate,
    call: Call,
    shelf: Shelf,
    source: Source,
    *,
    recommender: str,
    fallback: str | None = None,
    asked_s: float | None = None,
    timer: Timer | None = None,
) -> tuple[Filled, SlateRecord]:
    """A slate, and what the record keeps of how it came about.

    ``recommender`` names the one that ``source`` is of, ``fallback`` says why it is not the one
    that the slate asks for. ``asked_s`` is what asking one elsewhere took, ``timer`` gives seconds.

    Raises
    ------
    RecsysError
        If the call asks for what the catalogue cannot give.
    """
    scorer = shelf.scorer(slate)
    made = recommend(
        call,
        slate.plan,
        shelf.catalogue,
        source.candidates,
        scorer,
        versions={
            "items": str(shelf.change),
            "recommender": recommender,
            "model": source.version,
            "scorer": "" if scorer is None else scorer.digest,
        },
        timer=timer,
    )
    record = SlateRecord(
        recommender=recommender,
        fallback=fallback,
        history=len(call.history),
        stale=_stale(slate.plan.hard, {removal.rule for removal in made.trace.removed}),
        trace=made.trace,
        timings=dict(made.timings) | ({} if asked_s is None else {"external": asked_s}),
    )
    return made.slate, record


def _stale(rules: Sequence[AnyRule], removed_by: set[str]) -> tuple[str, ...]:
    """The attributes of items that were told too long ago to be gone by."""
    found = []
    for rule in rules:
        if rule.id in removed_by:
            inner = rule
            while isinstance(inner, Except):
                inner = inner.rule
            if isinstance(inner, Fresh):
                found.append(inner.column)
    return tuple(found)
