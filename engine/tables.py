"""The log as Arrow tables: a row for each choice, item shown, outcome, exposure and assignment.

The same tables are what an export writes, what a report reads, and what an analyst queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from math import prod
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from recsys import Slate

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

SLATES: Final = pa.schema(
    [
        ("decision_id", pa.string()),
        ("decided_at", _TIME),
        ("origin", pa.string()),
        ("surface", pa.string()),
        ("unit", pa.string()),
        ("slate", pa.string()),
        ("trace_id", pa.string()),
        ("position", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float64()),
        ("propensity", pa.float64()),
        ("placed", pa.string()),
        ("reason", pa.string()),
        ("because", pa.string()),
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

_AT_ONCE = 1_000
_ENCODER = msgspec.json.Encoder()


class _Identity(msgspec.Struct, gc=False):
    unit: str


class _Draw(msgspec.Struct, gc=False):
    id: str
    drawn: bool = True
    expires_at: int | None = None


class _Choice(msgspec.Struct, gc=False):
    slot: str
    action: str
    propensity: float
    reason: str
    eligible: msgspec.Raw
    path: str | None
    path_factors: msgspec.Raw
    policy: str | None
    learner: str | None
    snapshot: str | None
    floor: float
    pmf: list[float] | None
    expected: list[float] | None
    draw: _Draw | None
    fallback: str | None


class _Record(msgspec.Struct, gc=False):
    """What the tables show of a record: reading all of it takes three times as long."""

    decision_id: str
    origin: str
    decided_at: int
    identity: _Identity
    surface: str
    trigger: str | None
    context: msgspec.Raw
    unknown: dict[str, str]
    revision: str
    choices: list[_Choice]
    slates: msgspec.Raw = msgspec.Raw(b"{}")


_DECODE = msgspec.json.Decoder(_Record).decode
_DECODE_SLATES = msgspec.json.Decoder(dict[str, Slate]).decode
_DECODE_CONTEXT = msgspec.json.Decoder(dict[str, Any]).decode
_DECODE_FACTORS = msgspec.json.Decoder(dict[str, float]).decode
_DECODE_NAMES = msgspec.json.Decoder(list[str]).decode


def choices_table(rows: Iterable[Any]) -> pa.Table:
    """The choices of rows with ``record`` and ``committed_at``, one for each decision and slot."""
    # A few at a time: more objects at once are looked through by the collector again and again.
    waiting = iter(rows)
    batches = []
    while some := list(islice(waiting, _AT_ONCE)):
        batches += _choices(some).to_batches()
    return pa.Table.from_batches(batches, CHOICES)


def _choices(rows: Sequence[Any]) -> pa.Table:
    records = [_DECODE(row.record) for row in rows]
    choices = [choice for record in records for choice in record.choices]
    draws = [choice.draw for choice in choices]
    of = np.repeat(np.arange(len(records)), [len(record.choices) for record in records])
    by_record: dict[str, list[Any]] = {
        "decision_id": [r.decision_id for r in records],
        "decided_at": [r.decided_at for r in records],
        "committed_at": [row.committed_at for row in rows],
        "origin": [r.origin for r in records],
        "surface": [r.surface for r in records],
        "unit": [r.identity.unit for r in records],
        "trigger": [r.trigger for r in records],
        "context": [_known_context(r) for r in records],
        "revision": [r.revision for r in records],
    }
    by_choice: dict[str, list[Any]] = {
        "slot": [c.slot for c in choices],
        "action": [c.action for c in choices],
        "propensity": [c.propensity for c in choices],
        "reason": [c.reason for c in choices],
        "policy": [c.policy for c in choices],
        "learner": [c.learner for c in choices],
        "snapshot": [c.snapshot for c in choices],
        "path": [c.path for c in choices],
        "path_probability": [_product(bytes(c.path_factors)) for c in choices],
        "floor": [c.floor for c in choices],
        "draw_id": [d.id if d else None for d in draws],
        "drawn": [d.drawn if d else False for d in draws],
        "expires_at": [d.expires_at if d else None for d in draws],
        "pmf": [c.pmf for c in choices],
        "expected": [c.expected for c in choices],
        "fallback": [c.fallback for c in choices],
    }
    columns = {name: _array(name, values).take(of) for name, values in by_record.items()}
    columns |= {name: _array(name, values) for name, values in by_choice.items()}
    columns["eligible"] = _eligible(choices)
    return pa.table({name: columns[name] for name in CHOICES.names}, schema=CHOICES)


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    return pa.array(values, CHOICES.field(name).type)


@lru_cache(maxsize=1_000)
def _product(factors: bytes) -> float:
    """Of an assignment path's factors, of which a log has few."""
    return prod(_DECODE_FACTORS(factors).values())


def _eligible(choices: Sequence[_Choice]) -> pa.Array:
    """The eligible sets, of which a log has few: each is made once."""
    sets: dict[bytes, int] = {}
    codes = [sets.setdefault(bytes(c.eligible), len(sets)) for c in choices]
    return _array("eligible", [_DECODE_NAMES(names) for names in sets]).take(
        np.array(codes, dtype=np.int64)
    )


def _known_context(record: _Record) -> bytes:
    """JSON of the attributes that rules and policies could use: neither stale nor missing."""
    if not record.unknown:
        return bytes(record.context)
    given = _DECODE_CONTEXT(record.context)
    return _ENCODER.encode({n: value for n, value in given.items() if n not in record.unknown})


def slates_table(rows: Iterable[Any]) -> pa.Table:
    """The items of slates of rows with ``record``, one for each position."""
    columns: dict[str, list[Any]] = {name: [] for name in SLATES.names}
    for row in rows:
        record = _DECODE(row.record)
        if bytes(record.slates) == b"{}":
            continue
        for id_, slate in _DECODE_SLATES(record.slates).items():
            for item in slate.items:
                values = {
                    "decision_id": record.decision_id,
                    "decided_at": record.decided_at,
                    "origin": record.origin,
                    "surface": record.surface,
                    "unit": record.identity.unit,
                    "slate": id_,
                    "trace_id": slate.trace_id,
                    "position": item.position,
                    "item_id": item.item_id,
                    "score": item.score,
                    "propensity": item.propensity,
                    "placed": item.placed,
                    "reason": item.reason,
                    "because": item.because,
                    "revision": record.revision,
                }
                for name, value in values.items():
                    columns[name].append(value)
    return pa.table(columns, schema=SLATES)


def table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Rows with an attribute for each column of a schema, as a table."""
    return pa.table(
        {name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema
    )


def traces_table(rows: Iterable[Any]) -> pa.Table:
    """Whole records as JSON text, one for each decision."""
    listed: dict[str, list[Any]] = {"decision_id": [], "record": []}
    for row in rows:
        record = _DECODE(row.record)
        listed["decision_id"].append(record.decision_id)
        listed["record"].append(bytes(row.record).decode())
    return pa.table(listed, schema=TRACES)
