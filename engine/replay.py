"""Replaying a decision: the same inputs through the same code, compared byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from engine.decide import LEARNED, Inputs, Model, Serving, StickyDraw, decide
from engine.errors import ConflictError, EngineError, NotFoundError
from engine.ids import rfc3339
from engine.log import ERASED
from engine.models import fresh, restore, static_models
from engine.recommending import recommended, recomposed
from engine.record import (
    ChoiceRecord,
    DecisionRecord,
    RecommendedRecord,
    decode_record,
    encode_record,
)
from engine.request import DecideRequest, RecommendRequest
from engine.revisions import Revisions
from engine.store import Store
from engine.store import read as ask

MOST_DIFFERENCES = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """A part of the record that came out otherwise."""

    field: str
    stored: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Replay:
    """Whether a decision came out the same to the byte, and what did not.

    ``largest_difference`` is the largest |Δp| over the probabilities of all pmfs.
    """

    decision_id: str
    identical: bool
    differences: tuple[Difference, ...]
    largest_difference: float


def replay(store: Store, revisions: Revisions, decision_id: str) -> Replay:
    """Decide a stored decision again, from what its record says it was made of.

    Raises
    ------
    NotFoundError
        If the decision is not stored.
    ConflictError
        If it was imported: this engine did not make it; or if its person was forgotten.
    SnapshotError
        If the model that served is missing or altered.
    """
    stored = store.read(lambda c: ask.decision(c, decision_id))
    if stored is None:
        raise NotFoundError("decision_id", f'"{decision_id}" is no stored decision')
    record = decode_record(stored.data)
    if record.origin == "import":
        raise ConflictError(
            "decision_id", f'"{decision_id}" was imported; only decisions made here replay'
        )
    if record.unit.startswith(ERASED):
        raise ConflictError(
            "decision_id",
            f'"{decision_id}" is of a person who was forgotten; what it was made of is erased',
        )
    serving = _serving(store, revisions, record)
    if isinstance(record.recommended, RecommendedRecord):
        again = recommended(
            serving,
            _call(record, record.recommended),
            decision_id=record.decision_id,
            now_us=record.decided_at,
            origin=record.origin,
        )
    else:
        again = decide(
            serving,
            _request(record),
            Inputs(_sticky(store, record), record.caps),
            decision_id=record.decision_id,
            now_us=record.decided_at,
            origin=record.origin,
        )
    replayed = encode_record(recomposed(serving.workspace, record, again))
    if replayed == stored.data:
        return Replay(decision_id, identical=True, differences=(), largest_difference=0.0)
    found = _differences("", msgspec.json.decode(stored.data), msgspec.json.decode(replayed))
    return Replay(
        decision_id,
        identical=False,
        differences=tuple(d for d, _ in zip(found, range(MOST_DIFFERENCES), strict=False)),
        largest_difference=_largest(record, again),
    )


def _serving(store: Store, revisions: Revisions, record: DecisionRecord) -> Serving:
    workspace = revisions.get(record.revision)
    models = dict(static_models(workspace))
    for choice in record.choices:
        if choice.learner and choice.snapshot and (choice.draw is None or choice.draw.drawn):
            digest = choice.snapshot
            data = store.read(partial(ask.snapshot_bytes, digest=digest))
            models[choice.learner] = Model(
                restore(data, digest), digest, choice.spec,
                learned=record.caps.get(f"{LEARNED}{choice.learner}", 0),
            )  # fmt: skip
    # A referred draw, or a policy that refused, asks its model nothing that is recorded but whose
    # lineage it was of.
    specs = {choice.learner: choice.spec for choice in record.choices}
    for id_, learner in workspace.learners.items():
        if id_ not in models:
            models[id_] = Model(fresh(learner.policy), None, specs.get(id_))
    return Serving(workspace, models)


def _request(record: DecisionRecord) -> DecideRequest:
    context: dict[str, Any] = {
        name: None for name, why in record.unknown.items() if why == "undeclared"
    }
    for name, value in record.context.items():
        age = record.ages_us.get(name, 0)
        context[name] = {"value": value, "at": rfc3339(record.decided_at - age)} if age else value
    return DecideRequest(
        surface=record.surface,
        user_id=record.identity.user_id,
        anonymous_id=record.identity.anonymous_id,
        trigger=record.trigger,
        context=context,
        slots=tuple(choice.slot for choice in record.choices),
        request_id=record.request_id,
        traceparent=record.traceparent,
    )


def _call(record: DecisionRecord, asked: RecommendedRecord) -> RecommendRequest:
    return RecommendRequest(
        replace(_request(record), slots=None),
        slate=asked.slate,
        k=asked.k,
        seeds=asked.seeds,
        exclude=asked.exclude,
        filters=asked.filters,
        decision_id=asked.decision_id,
    )


def _sticky(store: Store, record: DecisionRecord) -> dict[str, StickyDraw]:
    """The sticky draws that the decision could see: those it referred to or drew anew from."""
    found = {}
    for choice in record.choices:
        hashed = _seen(choice)
        if hashed:
            known = store.read(partial(ask.sticky_draw, hashed=hashed))
            if known is None:
                raise EngineError(
                    f"the sticky draw {choice.draw.id if choice.draw else ''} is not stored; "
                    "the log is damaged"
                )
            found[known[0]] = known[1]
    return found


def _seen(choice: ChoiceRecord) -> str | None:
    """The hashed text of the draw that a choice met, if it met one."""
    drawn = choice.draw
    if drawn is None or drawn.expires_at is None:
        return None
    if not drawn.drawn:
        return drawn.key
    if drawn.redraw == 0:
        return None
    key = drawn.key.removesuffix(f":{drawn.redraw}")
    return f"{key}:{drawn.redraw - 1}" if drawn.redraw > 1 else key


def _differences(path: str, stored: Any, replayed: Any) -> Iterator[Difference]:
    if isinstance(stored, dict) and isinstance(replayed, dict):
        for key in [*stored, *(k for k in replayed if k not in stored)]:
            inner = f"{path}.{key}" if path else key
            yield from _differences(inner, stored.get(key), replayed.get(key))
    elif isinstance(stored, list) and isinstance(replayed, list) and len(stored) == len(replayed):
        for index, (a, b) in enumerate(zip(stored, replayed, strict=True)):
            yield from _differences(f"{path}[{index}]", a, b)
    elif stored != replayed:
        yield Difference(path, stored, replayed)


def _largest(stored: DecisionRecord, replayed: DecisionRecord) -> float:
    gaps = [
        abs(p - q)
        for a, b in zip(stored.choices, replayed.choices, strict=True)
        for p, q in zip(a.pmf or (), b.pmf or (), strict=False)
    ]
    return max(gaps, default=0.0)
