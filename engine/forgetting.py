"""Erasing a person from the log, so that what is left counts as before and names nobody.

A unit becomes a random pseudonym, the same in all of its rows: it is still one unit to lift and to
clusters. What identifies it goes: identifiers, ids that callers gave, traces, sticky draws (their
texts hold the unit, their uniforms are hashes of it), lists and times of the context that no policy
reads, texts that repeat an identifier, what it did with items, and how slates came about. What
evaluation reads stays: scalars of the context, eligible sets, pmfs, propensities, slates as they
were shown, assignments and outcomes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.errors import EngineError, RequestError, StoreError
from engine.log import ERASED, OF_OUTCOME, Entry, ErasedOutcome, ErasedRecord, ErasureEntry
from engine.record import (
    ChoiceRecord,
    DecisionRecord,
    IdentityRecord,
    RecommendedRecord,
    decode_record,
    encode_record,
)
from engine.request import check_id
from engine.revisions import Revisions
from engine.store import Store
from engine.store import erase as rows_of
from engine.store import read as ask
from engine.workspace import Workspace

PAGE = 5_000
_TRIES = 20
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to forget: a user id, an anonymous id, or both.

    Raises
    ------
    RequestError
        If neither is given, or one is none that a request could have had.
    """

    user_id: str | None = None
    anonymous_id: str | None = None

    def __post_init__(self) -> None:
        if self.user_id is None and self.anonymous_id is None:
            raise RequestError("user_id", "is missing, as is `anonymous_id`; give at least one")
        for name in ("user_id", "anonymous_id"):
            value = getattr(self, name)
            if value is not None:
                check_id(name, value)

    @property
    def units(self) -> tuple[str, ...]:
        """The units that these identifiers are of."""
        given = (("u", self.user_id), ("a", self.anonymous_id))
        return tuple(f"{kind}:{id_}" for kind, id_ in given if id_ is not None)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased, and which other identifiers stood beside those given.

    The history of a linked identifier is its own: it stays until that is forgotten, too.
    """

    decisions: int = 0
    outcomes: int = 0
    linked_user_ids: tuple[str, ...] = ()
    linked_anonymous_ids: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """What is counted on the way."""

    decisions: int = 0
    outcomes: int = 0
    user_ids: set[str | None] = field(default_factory=set)
    anonymous_ids: set[str | None] = field(default_factory=set)


def forget(
    store: Store,
    revisions: Revisions,
    person: Person,
    *,
    write: Callable[[Entry], None],
    new_token: Callable[[], str],
) -> Forgotten:
    """Erase a person from the log and its files; repeat it whenever it did not come to its end.

    ``write`` makes an entry durable; each is one transaction. ``new_token`` gives 32 random
    characters. A second call finds nothing more, unless the person was seen again.

    Raises
    ------
    StoreError
        If the database refuses, or somebody reads it for so long that its files cannot be cleaned;
        what is erased by then stays so.
    """
    found = _Found()
    known = {value for value in (person.user_id, person.anonymous_id) if value is not None}
    for unit in person.units:
        entry = _of_unit(store, revisions, unit, known, new_token, found)
        if entry:
            write(entry)
    if person.anonymous_id is not None:
        for entry in _beside(store, person.anonymous_id, found):
            write(entry)
    _clean(store)
    return Forgotten(
        found.decisions,
        found.outcomes,
        tuple(sorted(id_ for id_ in found.user_ids if id_ and id_ not in known)),
        tuple(sorted(id_ for id_ in found.anonymous_ids if id_ and id_ not in known)),
    )


def _of_unit(
    store: Store,
    revisions: Revisions,
    unit: str,
    known: set[str],
    new_token: Callable[[], str],
    found: _Found,
) -> ErasureEntry | None:
    """The erasure of a unit; None if the log does not know it."""
    rows = store.read(partial(rows_of.unit_records, unit=unit))
    before = [decode_record(row.record) for row in rows]
    # Ids of an import are of its file and row, and keep the row from being imported again.
    made_here = [record.decision_id for record in before if record.origin != "import"]
    outcomes = store.read(partial(rows_of.unit_outcomes, unit=unit, decision_ids=made_here))
    if not rows and not outcomes and not store.read(partial(rows_of.has_traces, unit=unit)):
        return None
    pseudonym = ERASED + new_token()
    latest = revisions.latest()
    records = []
    for record in before:
        identity = record.identity
        found.user_ids |= {identity.user_id}
        found.anonymous_ids |= {identity.anonymous_id}
        names = known | {identity.user_id, identity.anonymous_id}
        after = _erased(record, pseudonym, _read_by(revisions, latest, record), names)
        records.append(
            ErasedRecord(record.decision_id, pseudonym, after.request_id, encode_record(after))
        )
    new_ids = {row.outcome_id: ERASED + new_token() for row in outcomes}
    found.decisions += len(records)
    found.outcomes += len(outcomes)
    return ErasureEntry(
        unit,
        pseudonym,
        tuple(records),
        tuple(
            ErasedOutcome(
                row.seq,
                new_ids[row.outcome_id],
                new_token(),
                None if row.unit is None else pseudonym,
                # What is corrected is of the same subject, so it is among them.
                None if row.corrects is None else new_ids[row.corrects],
            )
            for row in outcomes
        ),
        # Some came before their decision, and do not say whose they are.
        tuple(OF_OUTCOME + row.outcome_id for row in outcomes),
    )


def _erased(
    record: DecisionRecord, pseudonym: str, read: frozenset[str], names: set[str | None]
) -> DecisionRecord:
    context = {
        name: value
        for name, value in record.context.items()
        if name in read and not (isinstance(value, str) and value in names)
    }
    return replace(
        record,
        request_id=record.request_id if record.origin == "import" else None,
        identity=IdentityRecord(None, None, pseudonym),
        context=context,
        ages_us={name: age for name, age in record.ages_us.items() if name in context},
        unknown={name: why for name, why in record.unknown.items() if name in read},
        choices=tuple(_without_unit(choice) for choice in record.choices),
        traceparent=None,
        # What was shown, where and how probably stays; what was kept out tells what the person did.
        fillings=msgspec.UNSET,
        recommended=_asked(record.recommended),
    )


def _asked(
    recommended: RecommendedRecord | msgspec.UnsetType,
) -> RecommendedRecord | msgspec.UnsetType:
    """What was asked for, without the items that the person had to do with."""
    if isinstance(recommended, msgspec.UnsetType):
        return recommended
    return replace(recommended, seeds=(), exclude=(), filters={})


def _without_unit(choice: ChoiceRecord) -> ChoiceRecord:
    """A choice whose draw does not tell the unit: a sticky one's text and uniform would."""
    if choice.draw is None or choice.draw.expires_at is None:
        return choice
    return replace(choice, draw=replace(choice.draw, key="erased", uniform=None))


def _read_by(
    revisions: Revisions, latest: Workspace | None, record: DecisionRecord
) -> frozenset[str]:
    """The attributes of a record that evaluation reads.

    All scalars, which reward models of any report read; of the rest what a segment reads, in the
    record's revision or in the one that serves.
    """
    read: set[str] = set()
    for workspace in (_revision(revisions, record.revision), latest):
        surface = workspace.surfaces.get(record.surface) if workspace else None
        if workspace and surface:
            read |= {name for name, part in surface.attributes.items() if part.scalar}
            for policy in workspace.policies.values():
                for _, rule in policy.segments:
                    read |= rule.attributes
    return frozenset(read)


def _revision(revisions: Revisions, digest: str) -> Workspace | None:
    try:
        return revisions.get(digest)
    except EngineError:
        # One that this version cannot read must not keep a person in the log.
        return None


def _beside(store: Store, anonymous_id: str, found: _Found) -> Iterator[ErasureEntry]:
    """Erasures of an anonymous id from the records of other units, a page of the log at a time."""
    # No index leads to them, since nothing else asks for them.
    text = msgspec.json.encode({"anonymous_id": anonymous_id})[1:-1]
    after = 0
    while True:
        rows: list[Any] = store.read(partial(ask.decisions_after, seq=after, limit=PAGE))
        if not rows:
            return
        after = rows[-1].seq
        records = []
        for row in rows:
            record = decode_record(row.record) if text in bytes(row.record) else None
            if record is None or record.identity.anonymous_id != anonymous_id:
                continue
            found.user_ids |= {record.identity.user_id}
            erased = replace(record, identity=replace(record.identity, anonymous_id=None))
            data = encode_record(erased)
            records.append(ErasedRecord(record.decision_id, record.unit, record.request_id, data))
        if records:
            found.decisions += len(records)
            yield ErasureEntry(None, "", tuple(records), ())


def _clean(store: Store) -> None:
    """Leave no byte of what was erased in the database's files."""
    for _ in range(_TRIES):
        if store.clear_files():
            return
        time.sleep(_PAUSE_S)
    raise StoreError(
        "the log is erased, but somebody reads the database and keeps the write-ahead log, which "
        "still holds what was there; repeat it when the report is made"
    )
