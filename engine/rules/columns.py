"""Evaluates a clause tree over columns of items at once, with the verdicts of the scalar rules.

What a rule reads of an item is named ``item.<attribute>`` and found in a column; all else it reads
is the same for every item and found among the attributes of the moment. A verdict is 1 for true, 0
for false and -1 for unknown, and equals that of :meth:`engine.rules.Rule.evaluate` on the item's
own values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.ids import to_datetime, to_microseconds
from engine.rules.compiler import MIRRORED, MISSING, TESTS, Attributes, compile_tree, reader
from engine.rules.tree import (
    And,
    Clause,
    Compare,
    Has,
    ListLiteral,
    Member,
    Node,
    Not,
    Operand,
    Or,
    Path,
    Truth,
)
from engine.rules.values import Kind
from recsys.catalogue import Column

ITEM: Final = "item."
"""What the names of an item's attributes begin with."""

Rows: TypeAlias = npt.NDArray[np.intp]
Verdicts: TypeAlias = npt.NDArray[np.int8]
_Truth: TypeAlias = npt.NDArray[np.uint8]
_Flags: TypeAlias = npt.NDArray[np.bool_]

# Ordered so that Kleene's "and" is the least and "or" the greatest.
_FALSE, _UNKNOWN, _TRUE = np.uint8(0), np.uint8(1), np.uint8(2)
_VERDICTS: Final = np.array([0, -1, 1], np.int8)
_LARGEST_EXACT: Final = 2**53
# As of scalars; between arrays they give arrays.
_TESTS: Final[Mapping[str, Callable[[Any, Any], Any]]] = TESTS


class Columns(Protocol):
    """Where columns are found by name: a catalogue."""

    def column(self, name: str) -> Column: ...


ColumnEvaluator: TypeAlias = Callable[[Columns, Rows, Attributes], Verdicts]
_Part: TypeAlias = Callable[[Columns, Rows, Attributes], _Truth]


def compile_columns(node: Node, clauses: int) -> ColumnEvaluator:
    """The evaluator of a tree of declared attributes with so many clauses.

    ``evaluator(columns, rows, attributes)`` gives (m,) verdicts on the items in m rows.
    """
    part = _part(node, clauses)

    def evaluate(columns: Columns, rows: Rows, attributes: Attributes) -> Verdicts:
        return _VERDICTS[part(columns, rows, attributes)]

    return evaluate


def _part(node: Node, clauses: int) -> _Part:
    match node:
        case And(operands):
            return _joined(tuple(_part(o, clauses) for o in operands), np.minimum, _FALSE)
        case Or(operands):
            return _joined(tuple(_part(o, clauses) for o in operands), np.maximum, _TRUE)
        case Not(operand):
            inner = _part(operand, clauses)
            return lambda columns, rows, attributes: _TRUE - inner(columns, rows, attributes)
        case _:
            return _clause(node, clauses)


def _joined(parts: tuple[_Part, ...], join: np.ufunc, decided: np.uint8) -> _Part:
    def evaluate(columns: Columns, rows: Rows, attributes: Attributes) -> _Truth:
        found = parts[0](columns, rows, attributes)
        for part in parts[1:]:
            if (found == decided).all():
                break
            found = join(found, part(columns, rows, attributes))
        return found

    return evaluate


def _clause(clause: Clause, clauses: int) -> _Part:
    match clause:
        case Has(_, path) if _of_item(path):
            name = _name(path)
            return lambda columns, rows, _: _of(columns.column(name).known[rows])
        case Truth(_, Path() as path) if _of_item(path):
            name = _name(path)
            return lambda columns, rows, _: _known(
                columns.column(name).known[rows], columns.column(name).values[rows]
            )
        case Compare(_, sign, left, right) if _of_item(left) or _of_item(right):
            if not _of_item(left):
                sign, left, right = MIRRORED[sign], right, left
            if _of_item(right):
                return _pairs(clause, sign, left, right, clauses)
            return _comparison(clause, sign, left, right, clauses)
        case Member(_, item, items) if _of_item(item) or _of_item(items):
            return _membership(clause, item, items, clauses)
        case _:
            return _alike(clause, clauses)


def _of_item(operand: Operand) -> bool:
    return isinstance(operand, Path) and operand.name.startswith(ITEM)


def _name(operand: Operand) -> str:
    assert isinstance(operand, Path)  # noqa: S101  for the type checker: _of_item said so
    return operand.name.removeprefix(ITEM)


def _of(holds: _Flags) -> _Truth:
    return np.where(holds, _TRUE, _FALSE)


def _known(known: _Flags, holds: _Flags) -> _Truth:
    return np.where(known, np.where(holds, _TRUE, _FALSE), _UNKNOWN)


def _alike(clause: Clause, clauses: int) -> _Part:
    """A clause that reads nothing of the items: one verdict for all of them."""
    evaluate = compile_tree(clause)

    def part(_: Columns, rows: Rows, attributes: Attributes) -> _Truth:
        return np.full(len(rows), _letter(evaluate(attributes, ["-"] * clauses)))

    return part


def _letter(verdict: bool | None) -> np.uint8:
    return _UNKNOWN if verdict is None else _TRUE if verdict else _FALSE


def _one_by_one(clause: Clause, clauses: int) -> _Part:
    """A clause on each item's own values: for what is too rare to be worth columns."""
    evaluate = compile_tree(clause)
    match clause:
        case Compare(_, _, left, right):
            operands: tuple[Operand, ...] = (left, right)
        case Member(_, item, items):
            operands = (item, items)
        case _:
            operands = ()
    paths = [o for o in operands if isinstance(o, Path) and _of_item(o)]

    def part(columns: Columns, rows: Rows, attributes: Attributes) -> _Truth:
        found = np.empty(len(rows), np.uint8)
        for index, row in enumerate(rows):
            own = {path.name: item_value(columns.column(_name(path)), row) for path in paths}
            found[index] = _letter(evaluate({**attributes, **own}, ["-"] * clauses))
        return found

    return part


def item_value(column: Column, row: int) -> object:
    """An item's value as scalar rules read it; None where it is unknown."""
    value = column.at(row)
    return to_datetime(value) if column.kind == "time" and isinstance(value, int) else value


# Comparisons ----------------------------------------------------------------------------------


def _comparison(clause: Clause, sign: str, left: Operand, right: Operand, clauses: int) -> _Part:
    """``item.x sign y``, where y is no item's."""
    kind = left.kind
    if kind is Kind.LIST:
        return _one_by_one(clause, clauses)
    name, read, compare = _name(left), reader(right), _COMPARE[kind] if kind else _compare_words

    def part(columns: Columns, rows: Rows, attributes: Attributes) -> _Truth:
        value = read(attributes)
        if value is MISSING:
            return np.full(len(rows), _UNKNOWN)
        column = columns.column(name)
        return _known(column.known[rows], compare(column, rows, sign, value))

    return part


def _compare_numbers(column: Column, rows: Rows, sign: str, value: Any) -> _Flags:
    values = column.values[rows]
    if isinstance(value, int) and abs(value) > _LARGEST_EXACT and int(float(value)) != value:
        # Between two floats: what is above the lower one is above the integer, too.
        return _beside(values, sign, float(value), float(value) > value)
    holds: _Flags = _TESTS[sign](values, value)
    return holds


def _beside(values: npt.NDArray[Any], sign: str, near: float, above: bool) -> _Flags:
    """How values stand to a number that no float equals, next to ``near``, which is above it?"""
    if sign in {"==", "!="}:
        return np.full(len(values), sign == "!=")
    below: _Flags = values < near if above else values <= near
    return below if sign in {"<", "<="} else ~below


def _compare_words(column: Column, rows: Rows, sign: str, value: Any) -> _Flags:
    codes = column.values[rows]
    if sign in {"==", "!="}:
        same: _Flags = codes == column.codes.get(value, -2)
        return same if sign == "==" else ~same
    used, places = np.unique(codes, return_inverse=True)
    test = _TESTS[sign]
    holds = [code >= 0 and test(column.categories[code], value) for code in used]
    return np.array(holds, np.bool_)[places]


def _compare_booleans(column: Column, rows: Rows, sign: str, value: Any) -> _Flags:
    holds: _Flags = _TESTS[sign](column.values[rows], np.bool_(value))
    return holds


def _compare_times(column: Column, rows: Rows, sign: str, value: Any) -> _Flags:
    holds: _Flags = _TESTS[sign](column.values[rows], to_microseconds(value))
    return holds


_COMPARE: Final[Mapping[Kind, Callable[[Column, Rows, str, Any], _Flags]]] = {
    Kind.NUMBER: _compare_numbers,
    Kind.STRING: _compare_words,
    Kind.BOOLEAN: _compare_booleans,
    Kind.TIMESTAMP: _compare_times,
}


def _pairs(clause: Clause, sign: str, left: Operand, right: Operand, clauses: int) -> _Part:
    """``item.x sign item.y``."""
    if left.kind in {Kind.LIST, Kind.STRING}:
        return _one_by_one(clause, clauses)
    one, other, test = _name(left), _name(right), _TESTS[sign]

    def part(columns: Columns, rows: Rows, _: Attributes) -> _Truth:
        a, b = columns.column(one), columns.column(other)
        return _known(a.known[rows] & b.known[rows], test(a.values[rows], b.values[rows]))

    return part


# Membership -----------------------------------------------------------------------------------


def _membership(clause: Clause, item: Operand, items: Operand, clauses: int) -> _Part:
    if isinstance(items, ListLiteral):
        return _among_literals(item, items)
    if _of_item(item) and _of_item(items):
        return _own_among_own(item, items)
    if _of_item(items):
        return _one_among_own(item, items)
    return _own_among(clause, item, items, clauses)


def _among_literals(item: Operand, items: ListLiteral) -> _Part:
    """``item.x in [1, 2]``."""
    name, kind = _name(item), item.kind
    values = [element.value for element in items.elements]

    def part(columns: Columns, rows: Rows, _: Attributes) -> _Truth:
        column = columns.column(name)
        holds = np.zeros(len(rows), np.bool_)
        for value in values:
            holds |= _COMPARE[kind or Kind.STRING](column, rows, "==", value)
        return _known(column.known[rows], holds)

    return part


def _own_among(clause: Clause, item: Operand, items: Operand, clauses: int) -> _Part:
    """``item.x in list``, where the list is no item's."""
    name, read, slowly = _name(item), reader(items), _one_by_one(clause, clauses)

    def part(columns: Columns, rows: Rows, attributes: Attributes) -> _Truth:
        given = read(attributes)
        if not isinstance(given, list | tuple):
            return np.full(len(rows), _UNKNOWN)
        if not all(type(word) is str for word in given):
            return slowly(columns, rows, attributes)
        column = columns.column(name)
        codes = [column.codes.get(word, -2) for word in given]
        return _known(column.known[rows], np.isin(column.values[rows], codes))

    return part


def _one_among_own(item: Operand, items: Operand) -> _Part:
    """``x in item.list``, where x is no item's."""
    name, read = _name(items), reader(item)

    def part(columns: Columns, rows: Rows, attributes: Attributes) -> _Truth:
        value = read(attributes)
        if value is MISSING:
            return np.full(len(rows), _UNKNOWN)
        column = columns.column(name)
        words, offsets = _lists(column, rows)
        return _known(column.known[rows], _any(words == column.codes.get(str(value), -2), offsets))

    return part


def _own_among_own(item: Operand, items: Operand) -> _Part:
    """``item.x in item.list``."""
    one, many = _name(item), _name(items)

    def part(columns: Columns, rows: Rows, _: Attributes) -> _Truth:
        a, b = columns.column(one), columns.column(many)
        used, places = np.unique(a.values[rows], return_inverse=True)
        # The code that each of the one's words has among the many's.
        codes = [b.codes.get(a.categories[code], -2) if code >= 0 else -2 for code in used]
        wanted = np.array(codes, np.int64)[places]
        words, offsets = _lists(b, rows)
        holds = _any(words == np.repeat(wanted, np.diff(offsets)), offsets)
        return _known(a.known[rows] & b.known[rows], holds)

    return part


def _lists(column: Column, rows: Rows) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The codes of some items' lists one after the other, and where each list begins and ends."""
    offsets = column.offsets
    if offsets is None:
        raise TypeError(f"a {column.kind} column has no lists")
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)
    return column.values[places], ends


def _any(holds: _Flags, offsets: npt.NDArray[np.int64]) -> _Flags:
    """Whether it holds of any word of each list."""
    before = np.concatenate([[0], np.cumsum(holds)])
    found: _Flags = before[offsets[1:]] > before[offsets[:-1]]
    return found
