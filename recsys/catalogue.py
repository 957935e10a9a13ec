"""The catalogue: an immutable table of items with typed attributes, each with the time it was told.

Rows stand in the order of item ids. Every change makes another catalogue and shares the columns
that it left alone, so that a reader is never disturbed by a writer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from recsys.errors import RecsysError

ColumnKind = Literal["string", "number", "boolean", "strings", "time"]
COLUMN_KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)

LARGEST_PART = 1e15
"""Of an embedding: lengths are summed in single floats."""

Value: TypeAlias = str | float | bool | int | tuple[str, ...]
Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_DTYPES: dict[ColumnKind, type[np.generic]] = {
    "string": np.int32,
    "number": np.float64,
    "boolean": np.bool_,
    "strings": np.int32,
    "time": np.int64,
}

ROLES: Mapping[str, tuple[ColumnKind, ...]] = MappingProxyType(
    {
        "category": ("string",),
        "franchise": ("string",),
        "price": ("number",),
        "margin": ("number",),
        "stock": ("number",),
        "regions": ("strings", "string"),
        "published": ("time",),
        "compatible_with": ("strings",),
        "replenish_days": ("number",),
    }
)
"""What an attribute can mean to the recommender, and the kinds that can mean it."""


@dataclass(frozen=True)
class ItemSchema:
    """The attributes that items may have.

    Parameters
    ----------
    attributes
        The kind of each: a string, a number, a boolean, several strings, or a time in microseconds
        since 1970, UTC.
    roles
        Which attribute has which of `ROLES`; an attribute named as a role has it without saying.
    vector_size
        How many numbers an item's embedding has; 0: items have none.

    Raises
    ------
    RecsysError
        If a kind or role is unknown, or an attribute's kind cannot have its role.
    """

    attributes: Mapping[str, ColumnKind]
    roles: Mapping[str, str] = field(default_factory=dict)
    vector_size: int = 0

    def __post_init__(self) -> None:
        for name, kind in self.attributes.items():
            if not name or kind not in COLUMN_KINDS:
                raise RecsysError(
                    f"items.attributes.{name} is {kind!r}. Known: {', '.join(COLUMN_KINDS)}."
                )
        if self.vector_size < 0:
            raise RecsysError(f"items.vector_size is {self.vector_size}. Give 0 or more.")
        for role, name in self.roles.items():
            if role not in ROLES:
                raise RecsysError(f"items.roles.{role} is no role. Known: {', '.join(ROLES)}.")
            if name not in self.attributes:
                raise RecsysError(f"items.roles.{role} is {name!r}, which is not declared.")
        for role, kinds in ROLES.items():
            named = self.role(role)
            if named is not None and self.attributes[named] not in kinds:
                raise RecsysError(
                    f"items.attributes.{named} is a {self.attributes[named]}, but {role} must be "
                    f"{' or '.join(kinds)}. Change its kind, or its name."
                )
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))
        object.__setattr__(self, "roles", MappingProxyType(dict(self.roles)))

    def role(self, role: str) -> str | None:
        """The attribute that has a role."""
        return self.roles.get(role, role if role in self.attributes else None)

    def value(self, name: str, value: object) -> Value | None:
        """A value as its attribute's column holds it; None is unknown.

        Raises
        ------
        RecsysError
            If the attribute is not declared, or the value is not of its kind.
        """
        kind = self.attributes.get(name)
        if kind is None:
            known = ", ".join(self.attributes) or "none"
            raise RecsysError(f"{name} is no declared attribute of items. Known: {known}.")
        if value is None:
            return None
        checked: Value | None = _VALUES[kind](value)
        if checked is None:
            raise RecsysError(f"{name} is {value!r}. Give {_WORDS[kind]}.")
        return checked


def _string(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no digest or answer could hold
        return None
    return value


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _strings(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return None
    if any(_string(part) is None for part in value):
        return None
    return tuple(dict.fromkeys(value))


def _time(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) < 2**63 else None


_VALUES: Mapping[ColumnKind, Any] = {
    "string": _string,
    "number": _number,
    "boolean": _boolean,
    "strings": _strings,
    "time": _time,
}
_WORDS: Mapping[ColumnKind, str] = {
    "string": "a string",
    "number": "a finite number",
    "boolean": "true or false",
    "strings": "a list of strings",
    "time": "microseconds since 1970, UTC",
}


class Item(msgspec.Struct, frozen=True):
    """What is told of an item; attributes that are not named stay as they were.

    What was known of an attribute later than ``at`` stays too, so that news may come out of order.

    Parameters
    ----------
    attributes
        None makes an attribute unknown.
    vector
        The embedding, None if it is not told.
    at
        When this was true, in microseconds since 1970, UTC; None: when it is upserted.
    """

    id: str
    attributes: dict[str, Any] = {}
    vector: tuple[float, ...] | None = None
    at: int | None = None


@dataclass(frozen=True, eq=False)
class Column:
    """One attribute of all n items.

    Parameters
    ----------
    values
        (n,): float64 numbers, bool, int64 microseconds, or int32 codes into ``categories`` (-1
        where unknown). Of ``strings``: the codes of all items one after the other.
    known
        (n,), whether an item has a value.
    updated_at
        (n,), when the value was told last, in microseconds since 1970; 0 where it never was.
    offsets
        Of ``strings`` only, (n + 1,): item i has ``values[offsets[i]:offsets[i + 1]]``.
    """

    kind: ColumnKind
    values: npt.NDArray[Any]
    known: Mask
    updated_at: Times
    categories: tuple[str, ...] = ()
    offsets: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for array in (self.values, self.known, self.updated_at, self.offsets):
            if array is not None:
                array.setflags(write=False)

    @cached_property
    def codes(self) -> Mapping[str, int]:
        """The code of each category."""
        return {category: code for code, category in enumerate(self.categories)}

    def at(self, row: int) -> Value | None:
        """The value of one item, None if it is unknown."""
        if not self.known[row]:
            return None
        if self.offsets is not None:
            codes = self.values[self.offsets[row] : self.offsets[row + 1]]
            return tuple(self.categories[code] for code in codes)
        if self.kind == "string":
            return self.categories[int(self.values[row])]
        value: Value = self.values[row].item()
        return value

    def take(self, rows: Rows) -> Column:
        """The column of some items, in that order; -1 stands for one of which nothing is known."""
        absent = rows < 0
        known = self.known[rows] & ~absent if len(self.known) else np.zeros(len(rows), np.bool_)
        updated_at = np.zeros(len(rows), np.int64)
        updated_at[~absent] = self.updated_at[rows[~absent]]
        if self.offsets is not None:
            lengths = np.zeros(len(rows), np.int64)
            lengths[~absent] = np.diff(self.offsets)[rows[~absent]]
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            starts = np.zeros(len(rows), np.int64)
            starts[~absent] = self.offsets[rows[~absent]]
            index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
            return replace(
                self,
                values=self.values[index],
                known=known,
                updated_at=updated_at,
                offsets=offsets,
            )
        values = np.full(len(rows), _blank(self.kind), self.values.dtype)
        values[~absent] = self.values[rows[~absent]]
        return replace(self, values=values, known=known, updated_at=updated_at)

    def contents(self) -> Iterable[bytes]:
        """The same bytes for the same values, however categories came to be numbered."""
        yield self.kind.encode()
        yield self.known.tobytes()
        yield self.updated_at.astype("<i8").tobytes()
        if self.offsets is not None:
            yield self.offsets.astype("<i8").tobytes()
        if self.kind in {"string", "strings"}:
            used, codes = np.unique(self.values, return_inverse=True)
            words = ["" if code < 0 else self.categories[code] for code in used]
            order = sorted(range(len(words)), key=lambda i: (used[i] >= 0, words[i]))
            rank = np.empty(len(words), np.int64)
            rank[order] = np.arange(len(words))
            yield msgspec.json.encode([words[i] for i in order])
            yield rank[codes].astype("<i8").tobytes()
        else:
            yield self.values.astype(self.values.dtype.newbyteorder("<")).tobytes()


def _blank(kind: ColumnKind) -> float | int | bool:
    return {"string": -1, "number": math.nan, "boolean": False, "strings": -1, "time": 0}[kind]


def _column(
    kind: ColumnKind, values: Sequence[Value | None], times: Times, codes: Mapping[str, int]
) -> Column:
    """A column of values that were checked, with categories numbered from ``codes`` on."""
    known = np.array([value is not None for value in values], np.bool_)
    numbered = dict(codes)

    def code(word: object) -> int:
        return numbered.setdefault(str(word), len(numbered))

    offsets = None
    flat: list[Any]
    if kind == "strings":
        lists = [value if isinstance(value, tuple) else () for value in values]
        flat = [code(word) for words in lists for word in words]
        offsets = np.concatenate([[0], np.cumsum([len(words) for words in lists])]).astype(np.int64)
    elif kind == "string":
        flat = [-1 if value is None else code(value) for value in values]
    else:
        flat = [_blank(kind) if value is None else value for value in values]
    categories = tuple(numbered) if kind in {"string", "strings"} else ()
    return Column(kind, np.array(flat, _DTYPES[kind]), known, times, categories, offsets)


def _joined(old: Column, fresh: Column) -> Column:
    """Both columns one after the other; ``fresh`` was numbered from the codes of ``old`` on."""
    offsets = None
    if old.offsets is not None and fresh.offsets is not None:
        offsets = np.concatenate([old.offsets, fresh.offsets[1:] + old.offsets[-1]])
    return Column(
        old.kind,
        np.concatenate([old.values, fresh.values]),
        np.concatenate([old.known, fresh.known]),
        np.concatenate([old.updated_at, fresh.updated_at]),
        fresh.categories,
        offsets,
    )


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """Distinct item ids, one a row."""

    ids: tuple[str, ...] = ()

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {item_id: row for row, item_id in enumerate(self.ids)}

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    def rows(self, ids: Iterable[str]) -> Rows:
        """(m,), the row of each id, -1 where it is unknown."""
        rows = self._rows
        return np.array([rows.get(item_id, -1) for item_id in ids], np.intp)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """n items; start at `Catalogue.empty` or `recsys.loading.load_items`.

    Parameters
    ----------
    index
        Of the ids, in ascending order; catalogues that differ in attributes alone share it.
    columns
        One of each declared attribute.
    vectors
        (n, vector_size), zeros where the embedding is unknown; None if the schema has none.
    updated_at
        (n,), when anything was told of an item last, in microseconds since 1970, UTC.
    blocked_ids
        Items that must not be shown, whatever is told of them and even if they are removed and
        come back.
    """

    schema: ItemSchema
    index: ItemIndex
    columns: Mapping[str, Column]
    vectors: Vectors | None
    updated_at: Times
    blocked_ids: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for array in (self.vectors, self.updated_at):
            if array is not None:
                array.setflags(write=False)

    @staticmethod
    def empty(schema: ItemSchema) -> Catalogue:
        """A catalogue without items."""
        none = np.zeros(0, np.int64)
        columns = {name: _column(kind, (), none, {}) for name, kind in schema.attributes.items()}
        vectors = np.zeros((0, schema.vector_size), np.float32) if schema.vector_size else None
        return Catalogue(schema, ItemIndex(), MappingProxyType(columns), vectors, none.copy())

    @property
    def ids(self) -> tuple[str, ...]:
        """n ids, one a row."""
        return self.index.ids

    @property
    def size(self) -> int:
        """n."""
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the contents, in hexadecimal."""
        digest = hashlib.sha256()
        for part in self._contents():
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    def _contents(self) -> Iterable[bytes]:
        yield msgspec.json.encode([dict(self.schema.attributes), dict(self.schema.roles)])
        yield msgspec.json.encode(self.ids)
        yield msgspec.json.encode(sorted(self.blocked_ids))
        yield self.updated_at.astype("<i8").tobytes()
        for name in sorted(self.columns):
            yield name.encode()
            yield from self.columns[name].contents()
        if self.vectors is not None:
            yield self.vectors.astype("<f4").tobytes()

    @cached_property
    def blocked(self) -> Mask:
        """(n,), whether an item is blocked."""
        mask = np.zeros(self.size, np.bool_)
        rows = self.rows(sorted(self.blocked_ids))
        mask[rows[rows >= 0]] = True
        mask.setflags(write=False)
        return mask

    def rows(self, ids: Iterable[str]) -> Rows:
        """(m,), the row of each id, -1 where it is unknown."""
        return self.index.rows(ids)

    def column(self, name: str) -> Column:
        """An attribute's column.

        Raises
        ------
        RecsysError
            If it is not declared.
        """
        if name not in self.columns:
            known = ", ".join(self.columns) or "none"
            raise RecsysError(f"{name} is no declared attribute of items. Known: {known}.")
        return self.columns[name]

    def role(self, role: str) -> Column | None:
        """The column of the attribute with one of `ROLES`, None if no attribute has it."""
        name = self.schema.role(role)
        return None if name is None else self.columns[name]

    def upsert(self, items: Sequence[Item], now: int) -> Catalogue:
        """The catalogue with what is told; of two values for one time the last counts.

        Raises
        ------
        RecsysError
            If an id is empty, an attribute is undeclared or of another kind, or a vector of another
            size; the message names the item.
        """
        told = _Told(self.schema)
        for item in items:
            told.add(item, now)
        fresh = {item.id for item in items if item.id not in self.index}
        if not fresh:
            return _heard(self, told)
        index = ItemIndex(tuple(sorted((*self.ids, *fresh))))
        return _heard(self._taken(index, self.rows(index.ids)), told)

    def _taken(self, index: ItemIndex, rows: Rows) -> Catalogue:
        """The catalogue of other ids, each in one of our rows, -1 for none."""
        there = rows >= 0
        updated_at = np.zeros(len(rows), np.int64)
        updated_at[there] = self.updated_at[rows[there]]
        vectors = None
        if self.vectors is not None:
            vectors = np.zeros((len(rows), self.vectors.shape[1]), np.float32)
            vectors[there] = self.vectors[rows[there]]
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return Catalogue(
            self.schema, index, MappingProxyType(columns), vectors, updated_at, self.blocked_ids
        )

    def remove(self, ids: Sequence[str]) -> Catalogue:
        """The catalogue without some items.

        Raises
        ------
        RecsysError
            If an id is unknown.
        """
        gone = self._known(ids, "remove")
        rows = np.array([row for row in range(self.size) if row not in gone], np.intp)
        return self._taken(ItemIndex(tuple(self.ids[row] for row in rows)), rows)

    def block(self, ids: Sequence[str]) -> Catalogue:
        """The catalogue with some items blocked.

        Raises
        ------
        RecsysError
            If an id is unknown: a block that meets nothing would be believed in.
        """
        self._known(ids, "block")
        return replace(self, blocked_ids=self.blocked_ids | set(ids))

    def unblock(self, ids: Sequence[str]) -> Catalogue:
        """The catalogue with some items no longer blocked.

        Raises
        ------
        RecsysError
            If an id is not blocked.
        """
        free = sorted(set(ids) - self.blocked_ids)
        if free:
            raise RecsysError(f"unblock names {free[0]!r}, which is not blocked.")
        return replace(self, blocked_ids=self.blocked_ids - set(ids))

    def _known(self, ids: Sequence[str], what: str) -> set[int]:
        rows = self.rows(ids)
        for item_id, row in zip(ids, rows, strict=True):
            if row < 0:
                raise RecsysError(f"{what} names {item_id!r}, which the catalogue does not have.")
        return {int(row) for row in rows}


class _Told:
    """The news of an upsert by attribute and item."""

    def __init__(self, schema: ItemSchema) -> None:
        self._schema = schema
        self.values: dict[str, dict[str, tuple[Value | None, int]]] = {}
        self.vectors: dict[str, tuple[float, ...]] = {}
        self.times: dict[str, int] = {}

    def add(self, item: Item, now: int) -> None:
        if not _string(item.id):
            raise RecsysError(f"item.id is {item.id!r}. Give a string that is not empty.")
        at = now if item.at is None else item.at
        for name, value in item.attributes.items():
            try:
                checked = self._schema.value(name, value)
            except RecsysError as error:
                raise RecsysError(f"item {item.id!r}: {error}") from error
            news = self.values.setdefault(name, {})
            if item.id not in news or news[item.id][1] <= at:
                news[item.id] = (checked, at)
        if item.vector is not None:
            self.vectors[item.id] = self._vector(item.id, item.vector)
        self.times[item.id] = max(at, self.times.get(item.id, 0))

    def _vector(self, item_id: str, vector: tuple[float, ...]) -> tuple[float, ...]:
        size = self._schema.vector_size
        if len(vector) != size:
            raise RecsysError(
                f"item {item_id!r}: vector has {len(vector)} numbers, but items.vector_size is "
                f"{size}. Give that many, or change the schema."
            )
        if not all(_number(part) is not None and abs(part) <= LARGEST_PART for part in vector):
            raise RecsysError(
                f"item {item_id!r}: vector holds what is no finite number, or one beyond "
                f"{LARGEST_PART:g}. Give embeddings of length 1 or so."
            )
        return vector


def check_item(schema: ItemSchema, item: Item) -> None:
    """Refuse an item that `Catalogue.upsert` would refuse.

    Raises
    ------
    RecsysError
        As there.
    """
    _Told(schema).add(item, 0)


def _heard(catalogue: Catalogue, told: _Told) -> Catalogue:
    """The catalogue with news of items that it has."""
    columns = dict(catalogue.columns)
    for name, news in told.values.items():
        old = columns[name]
        rows = catalogue.rows(news)
        times = np.array([at for _, at in news.values()], np.int64)
        newer = times >= old.updated_at[rows]
        rows, times = rows[newer], times[newer]
        values = [value for (value, _), new in zip(news.values(), newer, strict=True) if new]
        pointer = np.arange(catalogue.size)
        pointer[rows] = catalogue.size + np.arange(len(rows))
        fresh = _column(old.kind, values, times, old.codes)
        columns[name] = _joined(old, fresh).take(pointer)
    vectors = catalogue.vectors
    if told.vectors and vectors is not None:
        vectors = vectors.copy()
        vectors[catalogue.rows(told.vectors)] = list(told.vectors.values())
    updated_at = catalogue.updated_at.copy()
    rows = catalogue.rows(told.times)
    updated_at[rows] = np.maximum(updated_at[rows], list(told.times.values()))
    return replace(
        catalogue, columns=MappingProxyType(columns), vectors=vectors, updated_at=updated_at
    )
