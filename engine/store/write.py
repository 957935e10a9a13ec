"""Appending entries to the log, each whole or not at all, in one transaction for all of them.

Conflicts are found by reading before writing, once for the batch: a conflicting entry gets a
result, not an exception, so that the entries beside it are stored all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from math import isnan
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, Connection, Row

from engine.decide import StickyDraw
from engine.items import StoredItem
from engine.log import (
    OF_OUTCOME,
    DecisionEntry,
    Entry,
    ErasureEntry,
    ExposureEntry,
    InteractionsEntry,
    ItemsEntry,
    Late,
    Outcome,
    OutcomesEntry,
    Overspent,
    Position,
    PromotionEntry,
    Refused,
    Repeated,
    Result,
    RevisionEntry,
    Settled,
    SettleEntry,
    SnapshotEntry,
    StickyTaken,
    Stored,
    UnitInteraction,
    VoidEntry,
)
from engine.store import schema
from engine.store.erase import erase
from engine.store.read import (
    item_changes,
    last_promotion,
    latest_revision,
    lineage,
    sticky_draw_of,
)
from engine.store.statements import inserting, matching

MOST_PARAMETERS = 500
"""Values in one IN list: well under every database's limit on bound parameters."""

_ITEM = msgspec.json.Decoder(StoredItem)
_ENCODE_ITEM = msgspec.json.Encoder().encode

T = TypeVar("T")


def write_entries(
    connection: Connection,
    entries: Sequence[Entry],
    now_us: int,
    *,
    live: bool = False,
    again: bool = False,
) -> list[Result]:
    """Append the entries within the connection's transaction; one result each, in order.

    ``live`` entries are late if they are stamped at or before the settled time. ``again`` says that
    the same entries may be stored already, by a transaction whose end was not seen.
    """
    batch = _Batch(connection, now_us, live=live)
    decisions = [e for e in entries if isinstance(e, DecisionEntry)]
    if again:
        batch.look_up_stored(decisions)
    outcomes = [o for e in entries if isinstance(e, OutcomesEntry) for o in e.outcomes]
    exposures = [e for e in entries if isinstance(e, ExposureEntry)]
    batch.look_up(decisions, outcomes, exposures)
    batch.look_up_items(
        [e for e in entries if isinstance(e, ItemsEntry)],
        [e for e in entries if isinstance(e, InteractionsEntry)],
        outcomes,
    )
    results = [batch.add(entry) for entry in entries]
    batch.flush()
    return results


class _Batch:
    """What the log already holds of a batch's ids, and the rows that the batch adds."""

    def __init__(self, connection: Connection, now_us: int, *, live: bool) -> None:
        self.connection = connection
        self.now_us = now_us
        self.live = live
        self.settled_us = take_turn(connection)
        self.settle_us: int | None = None
        self.stored: set[str] = set()
        self.requests: dict[str, tuple[bytes, str | None]] = {}
        self.decided: set[str] = set()
        self.decision_slots: dict[str, tuple[str, ...]] = {}
        self.exposed: set[tuple[str, str]] = set()
        self.sticky: dict[str, StickyDraw] = {}
        self.outcome_digests: dict[str, str] = {}
        self.subjects: dict[str, tuple[str, str | None, str | None]] = {}
        self.items: dict[str, StoredItem] = {}
        self.item_changes = 0
        self.units: dict[str, str] = {}
        self.interactions: dict[str, tuple[str, str]] = {}
        self.spent: dict[str, int] = {}
        self.spending: dict[str, int] = {}
        self.rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def look_up_stored(self, decisions: Sequence[DecisionEntry]) -> None:
        """Note which of the decisions are in the log already."""
        d = schema.decisions.c
        ids = [e.record.decision_id for e in decisions]
        self.stored = {row.decision_id for row in self._matching([d.decision_id], ids)}

    def look_up(
        self,
        decisions: Sequence[DecisionEntry],
        outcomes: Sequence[Outcome],
        exposures: Sequence[ExposureEntry],
    ) -> None:
        """Read what the log holds of the ids that the batch names."""
        d = schema.decisions.c
        requests = [e.record.request_id for e in decisions if e.record.request_id]
        for row in self._matching([d.request_id, d.record, d.request_digest], requests):
            self.requests[row.request_id] = (row.record, row.request_digest)
        keys = [key for e in decisions for key in e.sticky]
        s = schema.sticky_draws.c
        for row in self._matching([s.key, *schema.sticky_draws.c], keys):
            self._note_draw(row.key, sticky_draw_of(row))
        a = schema.allowances.c
        spending = [spend.key for e in decisions for spend in e.spends]
        for row in self._matching([a.key, a.spent], spending):
            self.spent[row.key] = row.spent
        o = schema.outcomes.c
        named = [o_.outcome_id for o_ in outcomes] + [o_.corrects for o_ in outcomes if o_.corrects]
        columns = [o.outcome_id, o.digest, o.metric, o.decision_id, o.unit]
        for row in self._matching(columns, named):
            self.outcome_digests[row.outcome_id] = row.digest
            self.subjects[row.outcome_id] = (row.metric, row.decision_id, row.unit)
        referred = [o_.decision_id for o_ in outcomes if o_.decision_id]
        self.decided |= {row.decision_id for row in self._matching([d.decision_id], referred)}
        shown = [e.decision_id for e in exposures]
        for row in self._matching([d.decision_id, d.record], shown):
            self.decision_slots[row.decision_id] = _slots(row.record)
        x = schema.exposures.c
        for row in self._matching([x.decision_id, x.slot], shown):
            self.exposed.add((row.decision_id, row.slot))

    def look_up_items(
        self,
        items: Sequence[ItemsEntry],
        interactions: Sequence[InteractionsEntry],
        outcomes: Sequence[Outcome],
    ) -> None:
        """Read what is stored of the items and interactions that the batch names."""
        i, x, d = schema.items.c, schema.interactions.c, schema.decisions.c
        if items:
            self.item_changes = item_changes(self.connection)
        ids = [change.item_id for entry in items for change in entry.changes]
        for row in self._matching([i.item_id, i.content], ids):
            self.items[row.item_id] = _ITEM.decode(row.content)
        named = [one.interaction_id for entry in interactions for one in entry.interactions]
        named += [OF_OUTCOME + o.corrects for o in outcomes if o.corrects]
        for row in self._matching([x.interaction_id, x.item_id, x.kind], named):
            self.interactions[row.interaction_id] = row.item_id, row.kind
        about = [o.decision_id for o in outcomes if o.decision_id and (o.item_id or o.corrects)]
        for row in self._matching([d.decision_id, d.unit], about):
            self.units[row.decision_id] = row.unit

    def _matching(self, columns: list[Column[Any]], values: Sequence[str]) -> Iterator[Row[Any]]:
        """Rows whose first column is one of the values."""
        for some in _pieces(sorted(set(values)), MOST_PARAMETERS):
            statement, given = matching(self.connection.dialect, tuple(columns), some)
            yield from self.connection.exec_driver_sql(statement, given)

    def add(self, entry: Entry) -> Result:
        """Add an entry's rows, or say why not."""
        match entry:
            case DecisionEntry():
                return self._add_decision(entry)
            case OutcomesEntry():
                return self._add_outcomes(entry)
            case ExposureEntry():
                return self._add_exposure(entry)
            case ItemsEntry():
                return self._add_items(entry)
            case InteractionsEntry():
                return self._add_interactions(entry)
            case VoidEntry():
                self._void(entry.decision_id, entry.reason)
                return Stored()
            case SnapshotEntry():
                return self._add_snapshot(entry)
            case PromotionEntry():
                return self._add_promotion(entry)
            case SettleEntry():
                self.settle_us = self.settled_us = max(self.settled_us, entry.until_us)
                return Settled(self.settled_us)
            case RevisionEntry():
                return self._add_revision(entry)
            case ErasureEntry():
                erase(self.connection, entry)
                return Stored()

    def _add_decision(self, entry: DecisionEntry) -> Result:
        record = entry.record
        late = entry.answer_by is not None and self.now_us > entry.answer_by
        if record.decision_id in self.stored:
            return Stored(void=late)
        if record.request_id is not None:
            known = self.requests.get(record.request_id)
            if known:
                return Repeated(*known)
        if self.live and record.decided_at <= self.settled_us:
            return Late(self.settled_us)
        taken = {key: self.sticky[key] for key in entry.sticky if self._is_taken(key, entry)}
        if taken:
            return StickyTaken(taken)
        spent = {s.key: self.spent.get(s.key, 0) for s in entry.spends}
        if any(spent[s.key] + s.amount > s.most for s in entry.spends):
            return Overspent(spent)
        for spend in entry.spends:
            self.spent[spend.key] = self.spending[spend.key] = spent[spend.key] + spend.amount
        if record.request_id is not None:
            self.requests[record.request_id] = (entry.data, entry.request_digest)
        self.decided.add(record.decision_id)
        self.units[record.decision_id] = record.unit
        slots = tuple(choice.slot for choice in record.choices) or tuple(record.slates)
        self.decision_slots[record.decision_id] = slots
        self.rows["decisions"].append(
            {
                "decision_id": record.decision_id,
                "request_id": record.request_id,
                "request_digest": entry.request_digest,
                "decided_at": record.decided_at,
                "committed_at": self.now_us,
                "origin": record.origin,
                "surface": record.surface,
                "unit": record.unit,
                "record": entry.data,
            }
        )
        self.rows["learnables"] += [
            {
                "learner": learnable.learner,
                "closes_at": learnable.closes_at,
                "decision_id": record.decision_id,
                "slot": learnable.slot,
            }
            for learnable in entry.learnables
        ]
        for key, drawn in entry.sticky.items():
            self._note_draw(key, drawn)
            self.rows["sticky_draws"].append(
                {
                    "key": key,
                    "redraw": drawn.redraw,
                    "unit": record.unit,
                    "expires_at": drawn.expires_at,
                    "draw_id": drawn.id,
                    "hashed": drawn.key,
                    "uniform": drawn.uniform,
                    "action": drawn.action,
                    "propensity": drawn.propensity,
                    "snapshot": drawn.snapshot,
                    "path": drawn.path,
                }
            )
        self.rows["assignments"] += [
            {
                "kind": a.kind,
                "id": a.id,
                "unit": record.unit,
                "variant": a.variant,
                "assigned_at": record.decided_at,
                "decision_id": record.decision_id,
                "probability": a.probability,
                "factors": msgspec.json.encode(a.factors).decode(),
            }
            for a in record.assignments
        ]
        if late:
            self._void(record.decision_id, "committed after its deadline")
        return Stored(void=late)

    def _void(self, decision_id: str, reason: str) -> None:
        self.rows["voids"].append({"decision_id": decision_id, "reason": reason, "at": self.now_us})

    def _is_taken(self, key: str, entry: DecisionEntry) -> bool:
        known = self.sticky.get(key)
        return known is not None and known.redraw >= entry.sticky[key].redraw

    def _note_draw(self, key: str, drawn: StickyDraw) -> None:
        known = self.sticky.get(key)
        if known is None or known.redraw < drawn.redraw:
            self.sticky[key] = drawn

    def _add_outcomes(self, entry: OutcomesEntry) -> Result:
        if self.live and any(o.received_at <= self.settled_us for o in entry.outcomes):
            return Late(self.settled_us)
        fresh: dict[str, str] = {}
        subjects: dict[str, tuple[str, str | None, str | None]] = {}
        rows = []
        told: list[Outcome] = []
        duplicates = unmatched = 0
        for index, outcome in enumerate(entry.outcomes):
            if isnan(outcome.value):
                # One database would store it, another would not.
                raise ValueError(f"outcome value {outcome.value}")
            digest = outcome.digest()
            known = self.outcome_digests.get(outcome.outcome_id) or fresh.get(outcome.outcome_id)
            if known == digest:
                duplicates += 1
                continue
            if known is not None:
                return Refused(
                    f"[{index}].outcome_id",
                    f'"{outcome.outcome_id}" was used with other content; give a new id',
                    "conflict",
                )
            subject = (outcome.metric, outcome.decision_id, outcome.unit)
            if outcome.corrects:
                corrected = subjects.get(outcome.corrects) or self.subjects.get(outcome.corrects)
                if corrected != subject:
                    return Refused(
                        f"[{index}].corrects",
                        f'"{outcome.corrects}" is no stored outcome of the same metric and the '
                        "same decision or user; name one, or send it first",
                        "invalid",
                    )
            fresh[outcome.outcome_id] = digest
            subjects[outcome.outcome_id] = subject
            if outcome.decision_id and outcome.decision_id not in self.decided:
                unmatched += 1
            rows.append(
                {
                    "outcome_id": outcome.outcome_id,
                    "digest": digest,
                    "decision_id": outcome.decision_id,
                    "unit": outcome.unit,
                    "metric": outcome.metric,
                    "value": outcome.value,
                    "occurred_at": outcome.occurred_at,
                    "received_at": outcome.received_at,
                    "corrects": outcome.corrects,
                    "item_id": outcome.item_id,
                }
            )
            told.append(outcome)
        self.outcome_digests |= fresh
        self.subjects |= subjects
        self.rows["outcomes"] += rows
        for outcome in told:
            self._add_interaction_of(outcome)
        return Stored(len(rows), duplicates, unmatched)

    def _add_interaction_of(self, outcome: Outcome) -> None:
        """Add what an outcome says that its unit did with an item, or did otherwise than was said.

        A correction is of the item and kind of what it corrects.
        """
        corrects = None if outcome.corrects is None else OF_OUTCOME + outcome.corrects
        if corrects is not None:
            about = self.interactions.get(corrects)
        elif outcome.item_id is not None and outcome.interaction is not None:
            about = outcome.item_id, outcome.interaction
        else:
            about = None
        if about is None:
            return
        unit = outcome.unit or self.units.get(outcome.decision_id or "")
        self._add_interaction(
            UnitInteraction(
                interaction_id=OF_OUTCOME + outcome.outcome_id,
                unit=unit,
                item_id=about[0],
                kind=about[1],
                value=outcome.value,
                occurred_at=outcome.occurred_at,
                received_at=outcome.received_at,
                decision_id=outcome.decision_id,
                corrects=corrects,
            )
        )

    def _add_interactions(self, entry: InteractionsEntry) -> Result:
        accepted = 0
        for interaction in entry.interactions:
            if interaction.interaction_id not in self.interactions:
                self._add_interaction(interaction)
                accepted += 1
        return Stored(accepted, len(entry.interactions) - accepted)

    def _add_interaction(self, one: UnitInteraction) -> None:
        self.interactions[one.interaction_id] = one.item_id, one.kind
        self.rows["interactions"].append(
            {
                "interaction_id": one.interaction_id,
                "unit": one.unit,
                "decision_id": one.decision_id,
                "item_id": one.item_id,
                "kind": one.kind,
                "value": one.value,
                "occurred_at": one.occurred_at,
                "received_at": one.received_at,
                "corrects": one.corrects,
            }
        )

    def _add_items(self, entry: ItemsEntry) -> Result:
        self.item_changes += 1
        duplicates = 0
        for change in entry.changes:
            before = self.items.get(change.item_id)
            after = (before or StoredItem()).changed(change)
            if after == before:
                duplicates += 1
                continue
            self.items[change.item_id] = after
            self.rows["items"].append(
                {
                    "item_id": change.item_id,
                    "change": self.item_changes,
                    "content": _ENCODE_ITEM(after),
                }
            )
        return Stored(len(entry.changes) - duplicates, duplicates)

    def _add_exposure(self, entry: ExposureEntry) -> Result:
        slots = self.decision_slots.get(entry.decision_id)
        if slots is None:
            return Refused("decision_id", "names no stored decision", "missing")
        for slot in entry.slots or ():
            if slot not in slots:
                known = ", ".join(slots)
                return Refused("slots", f'"{slot}" is no slot of it; known: {known}', "invalid")
        accepted = duplicates = 0
        for slot in entry.slots or slots:
            if (entry.decision_id, slot) in self.exposed:
                duplicates += 1
                continue
            accepted += 1
            self.exposed.add((entry.decision_id, slot))
            self.rows["exposures"].append(
                {
                    "decision_id": entry.decision_id,
                    "slot": slot,
                    "occurred_at": entry.occurred_at,
                    "received_at": entry.received_at,
                }
            )
        return Stored(accepted, duplicates)

    def _add_revision(self, entry: RevisionEntry) -> Result:
        activated = self.rows["activations"]
        latest = activated[-1]["digest"] if activated else latest_revision(self.connection)
        if latest != entry.after:
            return Refused("revision", "is not checked against the one activated last", "conflict")
        self.rows["revisions"].append({"digest": entry.digest, "content": entry.content})
        activated.append({"digest": entry.digest, "activated_at": entry.activated_at})
        return Stored()

    def _add_snapshot(self, entry: SnapshotEntry) -> Result:
        self.rows["snapshot_data"].append({"digest": entry.digest, "data": entry.data})
        if entry.position == Position() and lineage(self.connection, entry.learner, entry.spec, 1):
            # A beginning, made where another process had begun already: what that one has learned
            # since must stay the newest.
            return Stored()
        self.rows["snapshots"].append(
            {
                "learner": entry.learner,
                "spec": entry.spec,
                "digest": entry.digest,
                "parent": entry.parent,
                "position_closes_at": entry.position.closes_at,
                "position_decision_id": entry.position.decision_id,
                "passed": entry.passed,
                "learned": entry.learned,
                "created_at": entry.created_at,
                "units": entry.units,
            }
        )
        return Stored()

    def _add_promotion(self, entry: PromotionEntry) -> Result:
        before = last_promotion(self.connection, entry.learner)
        batched = any(row["learner"] == entry.learner for row in self.rows["promotions"])
        if before != entry.after or batched:
            message = (
                f'"{entry.learner}" was promoted or rolled back meanwhile; look, and ask again'
            )
            return Refused("learner", message, "conflict")
        self.rows["promotions"].append(
            {
                "learner": entry.learner,
                "what": entry.what,
                "spec": entry.spec,
                "snapshot": entry.snapshot,
                "judged_until": entry.judged_until,
                "at": entry.at,
                "report": entry.report,
            }
        )
        return Stored()

    def flush(self) -> None:
        """Insert all rows; those of content-addressed and first-time tables only if new."""
        self.rows["allowances"] = [{"key": k, "spent": v} for k, v in self.spending.items()]
        for name, rows in self.rows.items():
            if rows:
                statement, given = inserting(self.connection.dialect, name, _distinct(name, rows))
                self.connection.exec_driver_sql(statement, given)
        if self.settle_us is not None:
            self.connection.execute(schema.settled.update().values(until_us=self.settle_us))


def take_turn(connection: Connection) -> int:
    """Wait for the turn to write, which ends with the transaction; the settled time.

    One transaction at a time writes, so that log positions are in the order of commits, what was
    looked up is still true when it is acted on, and no two wait for each other's rows.
    """
    statement = _TURN if connection.dialect.name == "postgresql" else _SETTLED
    until_us: int = connection.exec_driver_sql(statement).scalar_one()
    return until_us


_SETTLED = "SELECT until_us FROM settled"
_TURN = f"{_SETTLED} FOR UPDATE"


def _distinct(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table, one for each key where several of a batch may have the same."""
    match name:
        case "assignments":
            # The first assignment is the earliest, in whatever order an import brings them.
            first: dict[tuple[str, ...], dict[str, Any]] = {}
            for row in rows:
                known = first.setdefault((row["kind"], row["id"], row["unit"], row["variant"]), row)
                if row["assigned_at"] < known["assigned_at"]:
                    known.update(row)
            return list(first.values())
        case "snapshot_data":
            return list({row["digest"]: row for row in rows}.values())
        case "items":
            # The last that a batch tells of an item holds.
            return list({row["item_id"]: row for row in rows}.values())
        case _:
            return rows


class _ChoiceSlot(msgspec.Struct):
    slot: str


class _RecordSlots(msgspec.Struct):
    choices: tuple[_ChoiceSlot, ...]
    slates: dict[str, msgspec.Raw] = {}


_SLOTS = msgspec.json.Decoder(_RecordSlots)


def _slots(data: bytes) -> tuple[str, ...]:
    """What of a decision can be shown: its slots, or the slate that alone was asked for."""
    shown = _SLOTS.decode(data)
    return tuple(choice.slot for choice in shown.choices) or tuple(shown.slates)


def _pieces(values: Collection[T], size: int) -> Iterator[list[T]]:
    listed = list(values)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]
