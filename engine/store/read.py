"""Questions to the log: each a function of a connection, so that any backend runs it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, func, or_, select

from engine.decide import StickyDraw
from engine.items import StoredItem
from engine.log import ERASED, Outcome, Position, Step, UnitInteraction
from engine.store import schema

PAGE = 500
_ITEM = msgspec.json.Decoder(StoredItem)


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision's record as stored, and what was appended about it since."""

    data: bytes
    committed_at: int
    void: str | None


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A snapshot's place in its learner's lineage."""

    seq: int
    learner: str
    spec: str
    digest: str
    parent: str | None
    position: Position
    passed: int
    learned: int
    created_at: int
    units: str | None


@dataclass(frozen=True, slots=True)
class PromotionRow:
    """A step in a learner's history of promotions, as :class:`engine.log.PromotionEntry`."""

    seq: int
    learner: str
    what: Step
    spec: str | None
    snapshot: str | None
    judged_until: int
    at: int
    report: str


@dataclass(frozen=True, slots=True)
class ClosedChoice:
    """A drawn choice that may be learned from, with its decision's record."""

    closes_at: int
    decision_id: str
    slot: str
    data: bytes
    void: bool


def sticky_draw_of(row: Row[Any]) -> StickyDraw:
    """The value of a row of ``sticky_draws``."""
    return StickyDraw(
        id=row.draw_id,
        key=row.hashed,
        uniform=row.uniform,
        action=row.action,
        propensity=row.propensity,
        expires_at=row.expires_at,
        redraw=row.redraw,
        snapshot=row.snapshot,
        path=row.path,
    )


def sticky_draws(connection: Connection, unit: str, now_us: int) -> dict[str, StickyDraw]:
    """The unit's draws of periods not yet over, the last redraw of each key."""
    t = schema.sticky_draws
    rows = connection.execute(
        select(t).where(t.c.unit == unit, t.c.expires_at > now_us).order_by(t.c.redraw)
    )
    return {row.key: sticky_draw_of(row) for row in rows}


def sticky_draw(connection: Connection, hashed: str) -> tuple[str, StickyDraw] | None:
    """The draw made from a hashed text, with its key."""
    t = schema.sticky_draws
    row = connection.execute(select(t).where(t.c.hashed == hashed)).first()
    return (row.key, sticky_draw_of(row)) if row else None


def decision(connection: Connection, decision_id: str) -> StoredDecision | None:
    """One decision by its id."""
    d, v = schema.decisions.c, schema.voids.c
    row = connection.execute(
        select(d.record, d.committed_at, v.reason)
        .outerjoin_from(schema.decisions, schema.voids, v.decision_id == d.decision_id)
        .where(d.decision_id == decision_id)
    ).first()
    return StoredDecision(row.record, row.committed_at, row.reason) if row else None


def by_request(connection: Connection, request_id: str) -> tuple[bytes, str | None] | None:
    """The record and request digest stored under a request id."""
    d = schema.decisions.c
    row = connection.execute(
        select(d.record, d.request_digest).where(d.request_id == request_id)
    ).first()
    return (row.record, row.request_digest) if row else None


def request_digests(connection: Connection, request_ids: Sequence[str]) -> dict[str, str | None]:
    """By request id, of those that are stored: the digest of what was asked."""
    d = schema.decisions.c
    found: dict[str, str | None] = {}
    for start in range(0, len(request_ids), PAGE):
        some = request_ids[start : start + PAGE]
        rows = connection.execute(
            select(d.request_id, d.request_digest).where(d.request_id.in_(some))
        )
        found |= {row.request_id: row.request_digest for row in rows}
    return found


def exposures(connection: Connection, decision_id: str) -> list[Row[Any]]:
    """Rows (slot, occurred_at, received_at) of a decision's exposures."""
    x = schema.exposures.c
    return list(
        connection.execute(
            select(x.slot, x.occurred_at, x.received_at)
            .where(x.decision_id == decision_id)
            .order_by(x.occurred_at, x.slot)
        )
    )


def exposed(connection: Connection, decision_ids: Sequence[str]) -> set[str]:
    """Which of the decisions were exposed, in any of their slots."""
    x = schema.exposures.c
    found: set[str] = set()
    for start in range(0, len(decision_ids), PAGE):
        some = decision_ids[start : start + PAGE]
        found |= set(connection.scalars(select(x.decision_id).where(x.decision_id.in_(some))))
    return found


def surfaces_with_exposures(connection: Connection) -> set[str]:
    """The surfaces of which some decision was exposed."""
    x, d = schema.exposures.c, schema.decisions.c
    joined = select(d.surface).join(schema.exposures, x.decision_id == d.decision_id)
    return set(connection.scalars(joined.distinct()))


def outcomes_of_decisions(connection: Connection, decision_ids: Sequence[str]) -> list[Outcome]:
    """Outcomes that name one of the decisions, in the order of their arrival."""
    o = schema.outcomes
    found: list[Outcome] = []
    for start in range(0, len(decision_ids), PAGE):
        some = decision_ids[start : start + PAGE]
        found += map(
            _outcome,
            connection.execute(select(o).where(o.c.decision_id.in_(some)).order_by(o.c.seq)),
        )
    return found


def outcomes_of_units(
    connection: Connection, units: Sequence[str], start_us: int, end_us: int
) -> list[Outcome]:
    """Outcomes that name one of the units, occurred in [start, end], in the order of arrival.

    Corrections are among them whenever they occurred: they count at the time of what they correct.
    """
    o = schema.outcomes
    found: list[Outcome] = []
    for start in range(0, len(units), PAGE):
        some = units[start : start + PAGE]
        found += map(
            _outcome,
            connection.execute(
                select(o)
                .where(
                    o.c.unit.in_(some),
                    or_(o.c.corrects.is_not(None), o.c.occurred_at.between(start_us, end_us)),
                )
                .order_by(o.c.seq)
            ),
        )
    return found


def _outcome(row: Row[Any]) -> Outcome:
    return Outcome(
        outcome_id=row.outcome_id,
        metric=row.metric,
        value=row.value,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        decision_id=row.decision_id,
        unit=row.unit,
        corrects=row.corrects,
        item_id=row.item_id,
    )


def item_changes(connection: Connection) -> int:
    """How many entries told of items."""
    return connection.scalar(select(func.max(schema.items.c.change))) or 0


def items_after(connection: Connection, change: int) -> tuple[int, dict[str, StoredItem]]:
    """How many entries told of items, and the items that those after ``change`` told of."""
    i = schema.items.c
    rows = connection.execute(select(i.item_id, i.content, i.change).where(i.change > change))
    found: dict[str, StoredItem] = {}
    for row in rows:
        found[row.item_id] = _ITEM.decode(row.content)
        change = max(change, row.change)
    return change, found


def item(connection: Connection, item_id: str) -> StoredItem | None:
    """What holds of one item."""
    i = schema.items.c
    content = connection.scalar(select(i.content).where(i.item_id == item_id))
    return None if content is None else _ITEM.decode(content)


def unit_interactions(
    connection: Connection,
    unit: str,
    limit: int,
    kinds: Collection[str] = (),
    limit_of_kinds: int = 0,
) -> list[UnitInteraction]:
    """The last interactions of a unit, in the order in which they occurred.

    At most ``limit``, and ``limit_of_kinds`` of some kinds, however much was done since of others.
    """
    x = schema.interactions
    last = select(x).where(x.c.unit == unit).order_by(x.c.occurred_at.desc(), x.c.seq.desc())
    found = {row.seq: row for row in connection.execute(last.limit(limit))}
    if kinds and len(found) == limit:
        of_kinds = last.where(x.c.kind.in_(sorted(kinds))).limit(limit_of_kinds)
        found |= {row.seq: row for row in connection.execute(of_kinds)}
    ordered = sorted(found.values(), key=lambda row: (row.occurred_at, row.seq))
    return [_interaction(row) for row in ordered]


def last_interaction(connection: Connection) -> int:
    """The position of the last interaction that was stored; 0 before the first."""
    return connection.scalar(select(func.max(schema.interactions.c.seq))) or 0


def interactions_after(
    connection: Connection, seq: int, limit: int
) -> tuple[int, list[UnitInteraction]]:
    """At most so many interactions after a position, in the order of arrival; the last position.

    One that came before its decision has that one's unit, if it is stored by now.
    """
    x, d = schema.interactions, schema.decisions
    rows = list(
        connection.execute(
            select(x, d.c.unit.label("decided"))
            .outerjoin_from(x, d, and_(x.c.unit.is_(None), x.c.decision_id == d.c.decision_id))
            .where(x.c.seq > seq)
            .order_by(x.c.seq)
            .limit(limit)
        )
    )
    return (rows[-1].seq if rows else seq), [_interaction(row, row.decided) for row in rows]


def _interaction(row: Row[Any], decided: str | None = None) -> UnitInteraction:
    return UnitInteraction(
        interaction_id=row.interaction_id,
        unit=row.unit or decided,
        item_id=row.item_id,
        kind=row.kind,
        value=row.value,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        decision_id=row.decision_id,
        corrects=row.corrects,
    )


def revision(connection: Connection, digest: str) -> bytes | None:
    """The canonical content of a revision."""
    r = schema.revisions.c
    content: bytes | None = connection.scalar(select(r.content).where(r.digest == digest))
    return content


def latest_revision(connection: Connection) -> str | None:
    """The digest that was activated last."""
    a = schema.activations.c
    found: str | None = connection.scalar(select(a.digest).order_by(a.seq.desc()).limit(1))
    return found


def revisions_newest_first(connection: Connection) -> list[str]:
    """Digests by their last activation, the latest first."""
    a = schema.activations.c
    last = func.max(a.seq)
    return list(connection.scalars(select(a.digest).group_by(a.digest).order_by(last.desc())))


def first_activation(connection: Connection) -> str | None:
    """Which revision was activated first, and when; None in a database without one."""
    a = schema.activations.c
    row = connection.execute(select(a.digest, a.activated_at).order_by(a.seq).limit(1)).first()
    return f"{row.digest}@{row.activated_at}" if row else None


def first_decision(connection: Connection) -> str | None:
    """Which decision was stored first, and when; None before it."""
    d = schema.decisions.c
    row = connection.execute(select(d.decision_id, d.committed_at).order_by(d.seq).limit(1)).first()
    return f"{row.decision_id}@{row.committed_at}" if row else None


def snapshot_bytes(connection: Connection, digest: str) -> bytes | None:
    """The stored bytes of a snapshot, not yet verified."""
    s = schema.snapshot_data.c
    data: bytes | None = connection.scalar(select(s.data).where(s.digest == digest))
    return data


def lineage(
    connection: Connection, learner: str, spec: str, limit: int | None = None
) -> list[SnapshotRow]:
    """A learner's snapshots under one spec, newest first, at most ``limit`` of them."""
    s = schema.snapshots
    rows = connection.execute(
        select(s)
        .where(s.c.learner == learner, s.c.spec == spec)
        .order_by(s.c.seq.desc())
        .limit(limit)
    )
    return [_snapshot(row) for row in rows]


def snapshot_rows(connection: Connection) -> list[SnapshotRow]:
    """Every snapshot, oldest first."""
    s = schema.snapshots
    return [_snapshot(row) for row in connection.execute(select(s).order_by(s.c.seq))]


def _snapshot(row: Row[Any]) -> SnapshotRow:
    return SnapshotRow(
        seq=row.seq,
        learner=row.learner,
        spec=row.spec,
        digest=row.digest,
        parent=row.parent,
        position=Position(row.position_closes_at, row.position_decision_id),
        passed=row.passed,
        learned=row.learned,
        created_at=row.created_at,
        units=row.units,
    )


def promotions(connection: Connection) -> dict[str, list[PromotionRow]]:
    """By learner, the steps of its history, oldest first."""
    p = schema.promotions
    found: dict[str, list[PromotionRow]] = {}
    for row in connection.execute(select(p).order_by(p.c.seq)):
        found.setdefault(row.learner, []).append(PromotionRow(**row._mapping))  # noqa: SLF001  public
    return found


def last_promotion(connection: Connection, learner: str | None = None) -> int:
    """The log position of the last step of a learner, or of any; 0 before the first."""
    p = schema.promotions.c
    last = select(func.max(p.seq))
    return connection.scalar(last if learner is None else last.where(p.learner == learner)) or 0


def closed(
    connection: Connection, learner: str, after: Position, until_us: int, limit: int
) -> list[ClosedChoice]:
    """A learner's choices after a position that closed by ``until_us``, in learning order."""
    x, d, v = schema.learnables.c, schema.decisions.c, schema.voids.c
    rows = connection.execute(
        select(x.closes_at, x.decision_id, x.slot, d.record, v.reason)
        .select_from(schema.learnables)
        .join(schema.decisions, d.decision_id == x.decision_id)
        .outerjoin(schema.voids, v.decision_id == x.decision_id)
        .where(
            x.learner == learner,
            x.closes_at <= until_us,
            or_(
                x.closes_at > after.closes_at,
                and_(x.closes_at == after.closes_at, x.decision_id > after.decision_id),
            ),
        )
        .order_by(x.closes_at, x.decision_id)
        .limit(limit)
    )
    return [
        ClosedChoice(row.closes_at, row.decision_id, row.slot, row.record, row.reason is not None)
        for row in rows
    ]


def allowances(connection: Connection) -> dict[str, int]:
    """By key, how much is spent."""
    a = schema.allowances.c
    return {row.key: row.spent for row in connection.execute(select(a.key, a.spent))}


def closed_by(connection: Connection, learner: str, until_us: int) -> int:
    """How many of a learner's choices closed by a time."""
    x = schema.learnables.c
    count = select(func.count()).where(x.learner == learner, x.closes_at <= until_us)
    return int(connection.scalar(count) or 0)


def closed_before(connection: Connection, learner: str, position: Position) -> int:
    """How many of a learner's choices stand at or before a position."""
    x = schema.learnables.c
    return int(
        connection.scalar(
            select(func.count()).where(
                x.learner == learner,
                or_(
                    x.closes_at < position.closes_at,
                    and_(x.closes_at == position.closes_at, x.decision_id <= position.decision_id),
                ),
            )
        )
        or 0
    )


def unit_decisions(
    connection: Connection, unit: str, surface: str, start_us: int, end_us: int
) -> list[Row[Any]]:
    """Rows (decision_id, record) of a unit's decisions on a surface, decided in [start, end)."""
    d, v = schema.decisions.c, schema.voids.c
    return list(
        connection.execute(
            select(d.decision_id, d.record)
            .outerjoin_from(schema.decisions, schema.voids, v.decision_id == d.decision_id)
            .where(
                d.unit == unit,
                d.surface == surface,
                d.decided_at >= start_us,
                d.decided_at < end_us,
                v.decision_id.is_(None),
            )
            .order_by(d.decided_at, d.decision_id)
        )
    )


def last_commit(connection: Connection) -> int:
    """The time of the last commit of a decision, in microseconds; 0 before the first."""
    d = schema.decisions.c
    return connection.scalar(select(d.committed_at).order_by(d.seq.desc()).limit(1)) or 0


def settled(connection: Connection) -> int:
    """The time up to which learning takes all that is stamped as stored, in microseconds."""
    return connection.scalar(select(schema.settled.c.until_us)) or 0


def last_snapshot(connection: Connection) -> int:
    """The log position of the last snapshot that was stored; 0 before the first."""
    return connection.scalar(select(func.max(schema.snapshots.c.seq))) or 0


def last_replayable(connection: Connection, limit: int) -> list[str]:
    """Ids of the last decisions that this engine made, but for erased ones, newest first."""
    d = schema.decisions.c
    return list(
        connection.scalars(
            select(d.decision_id)
            .where(d.origin != "import", d.unit.not_like(f"{ERASED}%"))
            .order_by(d.seq.desc())
            .limit(limit)
        )
    )


def decisions_after(
    connection: Connection, seq: int, limit: int, surface: str | None = None
) -> list[Any]:
    """Rows (seq, committed_at, record, void) after a log position, in log order."""
    d, v = schema.decisions.c, schema.voids.c
    statement = (
        select(d.seq, d.committed_at, d.record, v.reason.label("void"))
        .outerjoin_from(schema.decisions, schema.voids, v.decision_id == d.decision_id)
        .where(d.seq > seq)
        .order_by(d.seq)
        .limit(limit)
    )
    if surface is not None:
        statement = statement.where(d.surface == surface)
    return list(connection.execute(statement))


def outcomes_after(connection: Connection, seq: int, limit: int) -> list[Any]:
    """Rows of ``outcomes`` after a log position, in the order of arrival."""
    o = schema.outcomes
    return list(connection.execute(select(o).where(o.c.seq > seq).order_by(o.c.seq).limit(limit)))


def exposure_rows(connection: Connection) -> list[Any]:
    """Every row of ``exposures``."""
    x = schema.exposures
    return list(connection.execute(select(x).order_by(x.c.decision_id, x.c.slot)))


def assignment_rows(connection: Connection) -> list[Any]:
    """Every row of ``assignments``."""
    a = schema.assignments
    return list(connection.execute(select(a).order_by(a.c.kind, a.c.id, a.c.unit, a.c.variant)))


def counts(connection: Connection) -> dict[str, int]:
    """How many rows each table of the log holds."""
    tables = ("decisions", "outcomes", "exposures", "assignments", "snapshots", "voids")
    return {
        name: int(
            connection.scalar(select(func.count()).select_from(schema.metadata.tables[name])) or 0
        )
        for name in tables
    }


def outcomes_with_units(connection: Connection, metrics: Sequence[str]) -> list[Any]:
    """Outcomes of the metrics, each with the unit that it names or its decision has."""
    o, d = schema.outcomes.c, schema.decisions.c
    return list(
        connection.execute(
            select(
                o.outcome_id,
                o.decision_id,
                func.coalesce(o.unit, d.unit).label("unit"),
                o.metric,
                o.value,
                o.occurred_at,
                o.received_at,
                o.corrects,
            )
            .outerjoin_from(schema.outcomes, schema.decisions, o.decision_id == d.decision_id)
            .where(o.metric.in_(metrics))
            .order_by(o.seq)
        )
    )


def assignments_of(connection: Connection, kind: str, id_: str) -> list[Any]:
    """First assignments to each variant of an experiment, or to a holdout."""
    a = schema.assignments
    return list(
        connection.execute(
            select(a).where(a.c.kind == kind, a.c.id == id_).order_by(a.c.unit, a.c.assigned_at)
        )
    )


def void_rows(connection: Connection) -> list[Any]:
    """Rows (decision_id, reason, at) of the decisions answered otherwise than stored."""
    return list(connection.execute(select(schema.voids).order_by(schema.voids.c.decision_id)))


def revision_digests(connection: Connection) -> list[str]:
    """Every stored revision."""
    return list(connection.scalars(select(schema.revisions.c.digest)))
