"""The log as Arrow tables: one row for each choice, outcome, exposure and assignment.

The same tables are what an export writes, what a report reads, and what an analyst queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from engine.record import ChoiceRecord, DecisionRecord, decode_record

_TIME: Final = pa.timestamp("us", tz="UTC")

CHOICES: Final = pa.schema(
    [
        ("decision_id", pa.string()),
        ("decided_at", _TIME),
        ("committed_at", _TIME),
        ("origin", pa.string()),
        ("surface", pa.string()),
        ("slot", pa.string()),
        ("unit", pa.string()),
        ("trigger", pa.string()),
        ("action", pa.string()),
        ("propensity", pa.float64()),
        ("reason", pa.string()),
        ("policy", pa.string()),
        ("learner", pa.string()),
        ("snapshot", pa.string()),
        ("path", pa.string()),
        ("path_probability", pa.float64()),
        ("floor", pa.float64()),
        ("draw_id", pa.string()),
        ("drawn", pa.bool_()),
        ("expires_at", _TIME),
        ("eligible", pa.list_(pa.string())),
        ("pmf", pa.list_(pa.float64())),
        ("expected", pa.list_(pa.float64())),
        ("context", pa.string()),
        ("fallback", pa.string()),
        ("revision", pa.string()),
    ]
)

TRACES: Final = pa.schema([("decision_id", pa.string()), ("record", pa.string())])

OUTCOMES: Final = pa.schema(
    [
        ("outcome_id", pa.string()),
        ("decision_id", pa.string()),
        ("unit", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("occurred_at", _TIME),
        ("received_at", _TIME),
        ("corrects", pa.string()),
    ]
)

EXPOSURES: Final = pa.schema(
    [
        ("decision_id", pa.string()),
        ("slot", pa.string()),
        ("occurred_at", _TIME),
        ("received_at", _TIME),
    ]
)

ASSIGNMENTS: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("id", pa.string()),
        ("unit", pa.string()),
        ("variant", pa.string()),
        ("probability", pa.float64()),
        ("assigned_at", _TIME),
        ("decision_id", pa.string()),
        ("factors", pa.string()),
    ]
)

VOIDS: Final = pa.schema([("decision_id", pa.string()), ("reason", pa.string()), ("at", _TIME)])

_ENCODER = msgspec.json.Encoder()


def choices_table(rows: Iterable[Any]) -> pa.Table:
    """The choices of rows with ``record`` and ``committed_at``, one for each decision and slot."""
    listed: dict[str, list[Any]] = {name: [] for name in CHOICES.names}
    for row in rows:
        record = decode_record(row.record)
        context = _ENCODER.encode(known_context(record)).decode()
        for choice in record.choices:
            for name, value in _choice(record, choice).items():
                listed[name].append(value)
            listed["committed_at"].append(row.committed_at)
            listed["context"].append(context)
    return pa.table(listed, schema=CHOICES)


def _choice(record: DecisionRecord, choice: ChoiceRecord) -> dict[str, Any]:
    drawn = choice.draw
    return {
        "decision_id": record.decision_id,
        "decided_at": record.decided_at,
        "origin": record.origin,
        "surface": record.surface,
        "slot": choice.slot,
        "unit": record.unit,
        "trigger": record.trigger,
        "action": choice.action,
        "propensity": choice.propensity,
        "reason": choice.reason,
        "policy": choice.policy,
        "learner": choice.learner,
        "snapshot": choice.snapshot,
        "path": choice.path,
        "path_probability": choice.path_probability,
        "floor": choice.floor,
        "draw_id": drawn.id if drawn else None,
        "drawn": drawn.drawn if drawn else False,
        "expires_at": drawn.expires_at if drawn else None,
        "eligible": choice.eligible,
        "pmf": choice.pmf,
        "expected": choice.expected,
        "fallback": choice.fallback,
        "revision": record.revision,
    }


def known_context(record: DecisionRecord) -> dict[str, Any]:
    """The attributes that rules and policies could use: those neither stale nor missing."""
    return {name: value for name, value in record.context.items() if name not in record.unknown}


def table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Rows with an attribute for each column of a schema, as a table."""
    return pa.table(
        {name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema
    )


def traces_table(rows: Iterable[Any]) -> pa.Table:
    """Whole records as JSON text, one for each decision."""
    listed: dict[str, list[Any]] = {"decision_id": [], "record": []}
    for row in rows:
        record = decode_record(row.record)
        listed["decision_id"].append(record.decision_id)
        listed["record"].append(bytes(row.record).decode())
    return pa.table(listed, schema=TRACES)
