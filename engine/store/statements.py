"""The commit's statements as drivers take them, compiled once.

SQLAlchemy's own execution spends as long on each row's parameters as SQLite does on the row, and to
make a look-up anew for every batch was half of what storing an outcome took.

SQLite, which works in this process, takes rows one by one. PostgreSQL takes a batch's rows as one
array for each column: a statement for each row costs it and the driver several times as much.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import Column, Dialect, Insert, String, Table, Text, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from engine.store import schema

Values: TypeAlias = Mapping[str, Any] | Sequence[Any]

_ONLY_IF_NEW = frozenset({"revisions", "voids"})


def matching(
    dialect: Dialect, columns: tuple[Column[Any], ...], values: Sequence[str]
) -> tuple[str, Any]:
    """A query for rows whose first column is one of the values, and its parameters."""
    if dialect.name == "postgresql":
        return _any(dialect, columns), {"values": list(values)}
    # Of a few sizes only, so that few statements are prepared.
    size = 1 << (len(values) - 1).bit_length()
    return _in(dialect, columns, size), (*values, *[values[-1]] * (size - len(values)))


def inserting(dialect: Dialect, name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, Any]:
    """The insert of rows into a table, in their order, and its parameters.

    Rows of content-addressed and first-time tables are stored only if they are new.
    """
    table = schema.metadata.tables[name]
    if dialect.name == "postgresql":
        return _insert_arrays(dialect, table), {
            column: [row[column] for row in rows] for column in _filled(table)
        }
    statement, columns = _insert_rows(dialect, table)
    values = operator.itemgetter(*columns)
    return statement, [values(row) for row in rows]


@lru_cache(maxsize=128)
def _in(dialect: Dialect, columns: tuple[Column[Any], ...], count: int) -> str:
    values = [bindparam(f"value_{number}", type_=columns[0].type) for number in range(count)]
    query = select(*dict.fromkeys(columns)).where(columns[0].in_(values))
    return str(query.compile(dialect=dialect))


@lru_cache(maxsize=16)
def _any(dialect: Dialect, columns: tuple[Column[Any], ...]) -> str:
    values = bindparam("values", type_=postgresql.ARRAY(Text))
    query = select(*dict.fromkeys(columns)).where(columns[0] == func.any(values))
    return str(query.compile(dialect=dialect))


@lru_cache(maxsize=16)
def _insert_rows(dialect: Dialect, table: Table) -> tuple[str, tuple[str, ...]]:
    """An insert of one row, and the columns in the order of its values."""
    statement = _in_conflict(sqlite.insert(table), table)
    compiled = statement.compile(dialect=dialect, column_keys=_filled(table))
    return str(compiled), tuple(compiled.positiontup or ())


@lru_cache(maxsize=16)
def _insert_arrays(dialect: Dialect, table: Table) -> str:
    """An insert of many rows, whose parameters are a list for each column."""
    columns = _filled(table)
    arrays = [bindparam(column, type_=_array(table.c[column])) for column in columns]
    arguments = func.unnest(*arrays)
    rows = arguments.table_valued(*columns, with_ordinality="place", name="given").render_derived()
    # By place: log positions are in the order of the batch.
    ordered = select(*(rows.c[column] for column in columns)).order_by(rows.c.place)
    statement = postgresql.insert(table).from_select(columns, ordered)
    text = str(_in_conflict(statement, table).compile(dialect=dialect))
    # Sent as they are in memory: the driver writes arrays as text with a search for each escape.
    return text.replace(")s::", ")b::")


def _in_conflict(statement: Any, table: Table) -> Insert:
    """The insert with what it does where a row is there: both dialects write it alike."""
    result: Insert = statement
    if table is schema.snapshot_data:
        # The same digest is the same bytes, unless those stored were damaged: these mend them.
        result = statement.on_conflict_do_update(
            index_elements=["digest"], set_={"data": statement.excluded.data}
        )
    elif table is schema.items:
        # They say what holds now.
        result = statement.on_conflict_do_update(
            index_elements=["item_id"],
            set_={c: statement.excluded[c] for c in ("change", "content")},
        )
    elif table is schema.assignments:
        # The first assignment is the earliest, in whatever order an import brings them.
        new = statement.excluded
        result = statement.on_conflict_do_update(
            index_elements=["kind", "id", "unit", "variant"],
            set_={c: new[c] for c in ("assigned_at", "decision_id", "probability", "factors")},
            where=new.assigned_at < table.c.assigned_at,
        )
    elif table is schema.allowances:
        result = statement.on_conflict_do_update(
            index_elements=["key"], set_={"spent": statement.excluded.spent}
        )
    elif table.name in _ONLY_IF_NEW:
        result = statement.on_conflict_do_nothing()
    return result


@lru_cache(maxsize=16)
def _filled(table: Table) -> list[str]:
    """The columns that a row gives; the database numbers it."""
    return [column.name for column in table.columns if column.name != "seq"]


def _array(column: Column[Any]) -> postgresql.ARRAY[Any]:
    return postgresql.ARRAY(Text() if isinstance(column.type, String) else column.type)
