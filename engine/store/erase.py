"""Erasing a unit: reading its rows by what identifies it, and renaming them in one transaction.

The one exception to a log that is only appended to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from engine.log import ErasureEntry
from engine.store import schema
from engine.store.read import PAGE


def unit_records(connection: Connection, unit: str) -> list[Any]:
    """Rows (decision_id, record) of all of a unit's decisions."""
    d = schema.decisions.c
    return list(
        connection.execute(select(d.decision_id, d.record).where(d.unit == unit).order_by(d.seq))
    )


def unit_outcomes(connection: Connection, unit: str, decision_ids: Sequence[str]) -> list[Any]:
    """Rows (seq, outcome_id, unit, corrects) of outcomes of the unit or of one of the decisions."""
    o = schema.outcomes.c
    columns = select(o.seq, o.outcome_id, o.unit, o.corrects)
    found = list(connection.execute(columns.where(o.unit == unit)))
    for start in range(0, len(decision_ids), PAGE):
        some = decision_ids[start : start + PAGE]
        found += connection.execute(columns.where(o.decision_id.in_(some)))
    return found


def has_traces(connection: Connection, unit: str) -> bool:
    """Whether anything beside decisions and outcomes names the unit."""
    tables = schema.assignments, schema.sticky_draws, schema.interactions
    return any(
        connection.execute(select(table.c.unit).where(table.c.unit == unit).limit(1)).first()
        for table in tables
    )


def erase(connection: Connection, entry: ErasureEntry) -> None:
    """Put an erasure in force within the connection's transaction."""
    d, o = schema.decisions, schema.outcomes
    a, s, x = schema.assignments, schema.sticky_draws, schema.interactions
    for start in range(0, len(entry.interactions), PAGE):
        some = entry.interactions[start : start + PAGE]
        connection.execute(delete(x).where(x.c.interaction_id.in_(some)))
    if entry.unit is not None:
        # What a later decision would refer to; the erased ones carry their draws themselves.
        connection.execute(delete(s).where(s.c.unit == entry.unit))
        connection.execute(delete(x).where(x.c.unit == entry.unit))
        connection.execute(update(a).where(a.c.unit == entry.unit).values(unit=entry.pseudonym))
    if entry.records:
        connection.execute(
            update(d)
            .where(d.c.decision_id == bindparam("of"))
            .values(
                unit=bindparam("new_unit"),
                request_id=bindparam("new_request_id"),
                request_digest=None,
                record=bindparam("new_record"),
            ),
            [
                {
                    "of": record.decision_id,
                    "new_unit": record.unit,
                    "new_request_id": record.request_id,
                    "new_record": record.data,
                }
                for record in entry.records
            ],
        )
    if entry.outcomes:
        connection.execute(
            update(o)
            .where(o.c.seq == bindparam("of"))
            .values(
                outcome_id=bindparam("new_id"),
                digest=bindparam("new_digest"),
                unit=bindparam("new_unit"),
                corrects=bindparam("new_corrects"),
            ),
            [
                {
                    "of": outcome.seq,
                    "new_id": outcome.outcome_id,
                    "new_digest": outcome.digest,
                    "new_unit": outcome.unit,
                    "new_corrects": outcome.corrects,
                }
                for outcome in entry.outcomes
            ],
        )
