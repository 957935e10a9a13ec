"""Items and interactions from CSV and Parquet files: bad lines are told, the rest is loaded.

Of a CSV file line 1 is the header; of a Parquet file the first row is line 1. In CSV several
strings stand in one field, parted by `|`, and the numbers of an embedding by spaces; an empty field
is unknown. Times are RFC 3339 with their zone, timestamps, or whole microseconds since 1970, UTC.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from recsys.catalogue import Catalogue, ColumnKind, Item, ItemSchema, check_item
from recsys.errors import RecsysError
from recsys.interactions import Interactions

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_ID = 256
"""What is longer could be loaded, and then by no other way be told of, or blocked."""

LONGEST_AHEAD_US = 86_400_000_000
"""What is told for a later time would be fresh for as long, and no later news would be newer."""

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}

Row = dict[str, Any]


class LineFault(NamedTuple):
    """Why a line of a file was left out."""

    line: int
    field: str
    value: object
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


def load_items(path: Path, schema: ItemSchema, now: int) -> tuple[Catalogue, list[LineFault]]:
    """A catalogue of the file's items, and the lines that are no item.

    The columns are `id`, any attributes of the schema, `vector` if it has one, and optionally
    `updated_at`, when a row was true; where that is not told it is ``now``, in microseconds since
    1970, UTC. Of two lines with one id the first counts.

    Raises
    ------
    RecsysError
        If the file cannot be read as a whole, has no `id`, or a column that is not declared.
    """
    expected = {"id", *schema.attributes, "updated_at"} | (
        {"vector"} if schema.vector_size else set()
    )
    header, rows = _table(path)
    _check_header(path, header, {"id"}, expected)
    items: dict[str, Item] = {}
    faults: list[LineFault] = []
    for line, row in rows:
        fields = _Fields(line, row, faults)
        item = _item(fields, schema)
        if item is None:
            continue
        if item.at is not None and item.at > now + LONGEST_AHEAD_US:
            fields.fault("updated_at", "updated_at lies more than a day ahead. Check the clock.")
            continue
        if item.id in items:
            fields.fault("id", f"id {item.id!r} stands in an earlier line, which counts.")
            continue
        try:
            check_item(schema, item)
        except RecsysError as error:
            fields.fault("id", str(error))
            continue
        items[item.id] = item
    return Catalogue.empty(schema).upsert(list(items.values()), now), faults


def _item(fields: _Fields, schema: ItemSchema) -> Item | None:
    item_id = fields.read("id", _text)
    if item_id is None and fields.sound:
        fields.fault("id", "id is empty. Name the item.")
    if item_id is not None and len(item_id) > LONGEST_ID:
        fields.fault("id", f"id has {len(item_id)} characters. Give at most {LONGEST_ID}.")
    attributes = {
        name: fields.read(name, _PARSERS[kind])
        for name, kind in schema.attributes.items()
        if name in fields.row
    }
    vector = fields.read("vector", _vector)
    at = fields.read("updated_at", _time)
    return Item(item_id, attributes, vector, at) if fields.sound else None


@dataclass(frozen=True)
class InteractionColumns:
    """The columns of a file of interactions; None where the file has no such column.

    Parameters
    ----------
    kind
        Without one every interaction is a "view".
    value
        Without one every interaction has the value 1.
    segment
        The segment of users that the user was in.
    """

    user: str = "user_id"
    item: str = "item_id"
    at: str = "at"
    kind: str | None = None
    value: str | None = None
    segment: str | None = None


def load_interactions(
    path: Path, columns: InteractionColumns | None = None
) -> tuple[Interactions, list[LineFault]]:
    """The interactions of a file, whose other columns are not read, and the lines that are none.

    Raises
    ------
    RecsysError
        If the file cannot be read as a whole, or lacks one of the columns.
    """
    columns = columns or InteractionColumns()
    parsers: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "users": (columns.user, _text),
        "items": (columns.item, _text),
        "at": (columns.at, _time),
    }
    optional = (("kinds", columns.kind, _text), ("values", columns.value, _number))
    parsers |= {name: (column, parser) for name, column, parser in optional if column is not None}
    header, rows = _table(path)
    segment = {columns.segment} if columns.segment is not None else set()
    needed = {column for column, _ in parsers.values()} | segment
    _check_header(path, header, needed, set(header))
    found: dict[str, list[Any]] = {name: [] for name in (*parsers, "segments")}
    faults: list[LineFault] = []
    for line, row in rows:
        fields = _Fields(line, row, faults)
        values = {name: fields.read(column, parser) for name, (column, parser) in parsers.items()}
        for name, value in values.items():
            if value is None and fields.sound:
                column = parsers[name][0]
                fields.fault(column, f"{column} is empty. Fill it in, or drop the line.")
        values["segments"] = fields.read(columns.segment, _text) if columns.segment else None
        if fields.sound:
            for name, value in values.items():
                found[name].append(value)
    return Interactions.of(**found), faults


class _Fields:
    """The fields of one line; the first fault leaves it out."""

    def __init__(self, line: int, row: Row, faults: list[LineFault]) -> None:
        self._line = line
        self._faults = faults
        self.row = row
        self.sound = True
        if None in row:  # csv puts fields beyond the header there
            self.fault("", "the line has more fields than the header. Quote fields with commas.")

    def read(self, name: str, parser: Callable[[Any], Any]) -> Any:
        value = self.row.get(name)
        if value is None or value == "":
            return None
        try:
            return parser(value)
        except ValueError as error:
            self.fault(name, f"{name} is {value!r}. Give {error}.")
            return None

    def fault(self, name: str, message: str) -> None:
        if self.sound:
            self._faults.append(LineFault(self._line, name, self.row.get(name), message))
            self.sound = False


def _table(path: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """The header of a file and its rows with their lines."""
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".parquet"}:
        raise RecsysError(f"file {str(path)!r} ends in {suffix!r}. Give a .csv or a .parquet file.")
    if not path.is_file():
        raise RecsysError(f"file {str(path)!r} is not there.")
    return _parquet(path) if suffix == ".parquet" else _csv(path)


def _csv(path: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    def rows() -> Iterator[tuple[int, Row]]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            try:
                for row in reader:
                    yield reader.line_num, row
            except (UnicodeDecodeError, csv.Error) as error:
                raise RecsysError(
                    f"file {str(path)!r} cannot be read beyond line {reader.line_num}: {error}."
                ) from error

    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            header = next(csv.reader(file), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise RecsysError(f"file {str(path)!r} is no CSV in UTF-8: {error}.") from error
    return header, rows()


def _parquet(path: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    import pyarrow as pa  # noqa: PLC0415  files are read offline: serving does not import Arrow
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise RecsysError(f"file {str(path)!r} is no Parquet file: {error}.") from error

    def rows() -> Iterator[tuple[int, Row]]:
        line = 0
        for batch in file.iter_batches():
            columns = [column.to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                line += 1
                yield line, dict(zip(batch.schema.names, values, strict=True))

    return list(file.schema_arrow.names), rows()


def _check_header(path: Path, header: list[str], needed: set[str], known: set[str]) -> None:
    for name in sorted(needed - set(header)):
        raise RecsysError(
            f"file {str(path)!r} has no column {name!r}. It has: {', '.join(header) or 'none'}."
        )
    for name in header:
        if name not in known:
            raise RecsysError(
                f"file {str(path)!r} has a column {name!r}, which the schema does not declare. "
                f"Declare it or drop it. Declared: {', '.join(sorted(known))}."
            )
        if header.count(name) > 1:
            raise RecsysError(f"file {str(path)!r} has two columns {name!r}. Rename one.")


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def _boolean(value: Any) -> bool:
    found = value if isinstance(value, bool) else _BOOLEANS.get(str(value).lower())
    if found is None:
        raise ValueError("true or false")
    return found


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split("|")) if part)
    if isinstance(value, list):
        return tuple(_text(part) for part in value)
    raise ValueError("strings parted by '|'")


def _time(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        return int(value)
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("a time with its zone, as 2026-03-01T08:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("a time with its zone, as 2026-03-01T08:00:00Z")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _vector(value: Any) -> tuple[float, ...]:
    parts = value.split() if isinstance(value, str) else value
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError("numbers parted by spaces") from None


_PARSERS: Mapping[ColumnKind, Callable[[Any], Any]] = {
    "string": _text,
    "number": _number,
    "boolean": _boolean,
    "strings": _strings,
    "time": _time,
}
