"""Turns a context into numbers, with a vocabulary that grows only by learning, in log order.

Columns are, first, an intercept that is always 1; then for each attribute

- ``number``: its value over the column's unit (a bool is 0 or 1);
- ``category``: 1 if the attribute is that string; beyond ``max_categories`` strings, ``other``;
- ``missing``: 1 if it is None or absent;

and for each declared interaction of two attributes a ``product`` of each column of the one with
each of the other.

A column exists from the first learned context in which it is not zero. The unit of a number is
the power of two nearest to the largest magnitude learned from, and grows with it: attributes arrive
unscaled, and a ridge penalty alike for all would else weigh a share and a revenue quite
differently. An attribute that changes type gets the columns of its new type beside the old.

What is learned from is thus at most √2 in magnitude. A prediction clips numbers to a million units:
further out than that a line says nothing, and squares might leave float64's range.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from policies.errors import PolicyError
from policies.types import (
    LARGEST_NUMBER,
    Context,
    Contexts,
    FloatArray,
    Value,
    check_name,
    check_value,
)

_FARTHEST = 1e6
BEYOND = 1.5
"""Learned numbers are at most this many units: above √2, so that rounding alone moves no unit."""

_LEAST_EXPONENT = -300  # the inverse of a unit must stay finite, of subnormal numbers too
_LEAST_UNIT = 2.0**_LEAST_EXPONENT


Values = Sequence[Value] | npt.NDArray[Any]
_NUMBERS = frozenset({float, int, bool})


class Column(msgspec.Struct, frozen=True, array_like=True):
    """One column: ``value`` is the string of a category, ``unit`` the unit of a number.

    Of a product ``attribute`` and ``value`` are its two columns, as JSON without their units.
    """

    type: str
    attribute: str
    value: str
    unit: float


class _Numbers(msgspec.Struct, frozen=True):
    """The attributes that are numbers, to be read together, and the names of the others."""

    names: tuple[str, ...]
    get: Any  # of a context, their values
    columns: npt.NDArray[np.intp]
    inverse_units: FloatArray
    limits: FloatArray
    others: tuple[tuple[str, dict[str, int]], ...]  # with the columns of their categories


class _Attribute:
    """Where the columns of one attribute are; -1 where there is none yet."""

    __slots__ = ("categories", "inverse_unit", "limit", "missing", "number", "other", "owned")

    def __init__(self) -> None:
        self.owned: list[int] = []  # all of them
        self.number = -1
        self.inverse_unit = 0.0
        self.limit = 0.0  # numbers up to this magnitude need no clipping
        self.categories: dict[str, int] = {}
        self.other = -1
        self.missing = -1

    def count_in(self, unit: float) -> None:
        self.inverse_unit = 1.0 / unit
        self.limit = min(_FARTHEST * unit, LARGEST_NUMBER)

    def encoded(self, value: float) -> float:
        return max(-_FARTHEST, min(float(value) * self.inverse_unit, _FARTHEST))


class Encoder:
    """Columns for contexts.

    Parameters
    ----------
    features
        The attributes read; None reads whatever is given.
    max_categories
        How many strings of an attribute have columns of their own.
    interactions
        Pairs of attributes whose columns are multiplied.
    columns
        Those already learned, as `columns` gave them.

    Raises
    ------
    PolicyError
        If ``columns`` are not a vocabulary.
    """

    def __init__(
        self,
        features: Sequence[str] | None,
        max_categories: int,
        columns: Iterable[Column] = (),
        interactions: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._features = None if features is None else tuple(features)
        self._max_categories = max_categories
        self._interactions = tuple(interactions)
        self._columns: list[Column] = []
        self._attributes: dict[str, _Attribute] = {}
        self._products: dict[tuple[int, int], int] = {}
        self._numbers: _Numbers | None = None
        for column in columns:
            self._append(column)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns after the intercept, in order."""
        return tuple(self._columns)

    @property
    def width(self) -> int:
        """How many numbers `encode` gives: d."""
        return len(self._columns) + 1

    def encode(self, context: Context) -> tuple[FloatArray, float]:
        """The context as numbers.

        Returns
        -------
        x
            (d,), the columns known so far.
        unseen
            The squared length of what the columns to come would hold. A ridge model that takes
            ``unseen / l2`` as their variance predicts before they are grown just as it does
            after: a value never learned from is uncertain, not zero.

        Raises
        ------
        PolicyError
            If an attribute that is read is not finite or of no known type.
        """
        fast = self._encode_plain(context)
        if fast is not None:
            return fast, 0.0
        x = [0.0] * self.width
        x[0] = 1.0
        unseen: dict[str, float] = {}
        for name in self._place_known(context, x):
            column, number = self._place(name, context.get(name))
            if isinstance(column, Column):
                unseen[name] = unseen.get(name, 0.0) + number * number
            elif column is not None:
                x[column] = number
        total = sum(unseen.values())
        if self._interactions:
            total += self._multiply(x, unseen)
        return np.array(x), total

    def encode_many(self, contexts: Sequence[Context]) -> tuple[FloatArray, FloatArray]:
        """`encode` of n contexts, column by column: x (n, d) and unseen (n,)."""
        x = np.zeros((len(contexts), self.width))
        x[:, 0] = 1.0
        unseen: dict[str, FloatArray] = {}
        given = contexts.columns if isinstance(contexts, Contexts) else {}
        names = given or dict.fromkeys(chain.from_iterable(contexts))
        for name in self._names(names):
            values = given.get(name)
            if values is None:
                values = [context.get(name) for context in contexts]
            if not self._encode_numbers(name, values, x):
                unseen[name] = self._encode_values(name, values, contexts, x)
        total: FloatArray = sum(unseen.values(), start=np.zeros(len(contexts)))
        if self._interactions:
            total = total + self._multiply_many(x, unseen)
        return x, total

    def grow(self, context: Context) -> None:
        """Add the columns that the context needs and that are not there yet."""
        for name in self._names(context):
            column, _ = self._place(name, context.get(name))
            if isinstance(column, Column):
                self._append(column)
        if self._interactions:
            x, _ = self.encode(context)
            for left, right in self._crossed(x):
                if (left, right) not in self._products:
                    both = (_label(self._columns[left - 1]), _label(self._columns[right - 1]))
                    self._append(Column("product", *both, 1.0))

    def widen_units(self, context: Context, x: FloatArray) -> list[tuple[int, float]]:
        """Grow the unit of each number that lies beyond it, and put the number into ``x`` anew.

        Parameters
        ----------
        x
            (d,), the context as `encode` gave it; changed in place.

        Returns
        -------
        For each such column its index and the factor, a power of two, by which its unit grew.
        """
        grown = []
        for index in np.flatnonzero(np.abs(x) > BEYOND).tolist():
            column = self._columns[index - 1]
            if column.type != "number":
                continue
            value: Any = context[column.attribute]
            unit = _unit_of(value)
            if unit > column.unit:
                self._columns[index - 1] = Column("number", column.attribute, "", unit)
                self._attributes[column.attribute].count_in(unit)
                self._numbers = None
                factor = unit / column.unit
                grown.append((index, factor))
                x[index] = float(value) / unit
                for pair, product in self._products.items():
                    if index in pair:
                        power = factor ** pair.count(index)
                        grown.append((product, power))
                        x[product] /= power
        return grown

    def _encode_plain(self, context: Context) -> FloatArray | None:
        """(d,) of a context whose numbers are plain and within bounds, and that has no news.

        This is the decision path: numbers are read, checked and placed together.
        """
        plan = self._numbers or self._plan()
        if len(plan.names) < 2 or self._interactions:
            return None
        if self._features is None and context.keys() != self._attributes.keys():
            return None
        try:
            values = plan.get(context)
            if not _NUMBERS.issuperset(map(type, values)):
                return None
            numbers = np.array(values, dtype=np.float64)
        except (KeyError, OverflowError):
            return None
        # NaN fails this comparison, and goes on to be refused.
        if not np.logical_and.reduce(np.abs(numbers) < plan.limits):
            return None
        numbers *= plan.inverse_units
        x = np.zeros(self.width)
        x[0] = 1.0
        x[plan.columns] = numbers
        for name, categories in plan.others:
            value = context.get(name)
            if type(value) is not str or value not in categories:
                return None
            x[categories[value]] = 1.0
        return x

    def _plan(self) -> _Numbers:
        known = self._attributes if self._features is None else self._features
        attributes = {name: self._attributes.get(name, _Attribute()) for name in known}
        names = tuple(name for name, attribute in attributes.items() if attribute.number >= 0)
        numbers = [attributes[name] for name in names]
        self._numbers = _Numbers(
            names,
            itemgetter(*names) if names else None,
            np.array([attribute.number for attribute in numbers], dtype=np.intp),
            np.array([attribute.inverse_unit for attribute in numbers]),
            np.array([attribute.limit for attribute in numbers]),
            tuple((name, a.categories) for name, a in attributes.items() if a.number < 0),
        )
        return self._numbers

    def _crossed(self, x: Sequence[float] | FloatArray) -> Iterable[tuple[int, int]]:
        """The pairs of columns, of declared interactions, that are not zero in ``x``, in order."""
        for one, other in self._interactions:
            left, right = self._not_zero(one, x), self._not_zero(other, x)
            for i in left:
                for j in right:
                    if one != other or i <= j:
                        yield i, j

    def _not_zero(self, name: str, x: Sequence[float] | FloatArray) -> list[int]:
        attribute = self._attributes.get(name)
        return [] if attribute is None else [i for i in attribute.owned if x[i] != 0.0]

    def _multiply(self, x: list[float], unseen: Mapping[str, float]) -> float:
        """Fill the products; the squared length of those that have no column yet."""
        total = 0.0
        for left, right in self._crossed(x):
            number = x[left] * x[right]
            product = self._products.get((left, right))
            if product is None:
                total += number * number
            else:
                x[product] = number
        for one, other in self._interactions:
            new, new_other = unseen.get(one, 0.0), unseen.get(other, 0.0)
            length = sum(x[i] ** 2 for i in self._not_zero(other, x))
            total += new * (length + new_other)
            if one != other:
                total += new_other * sum(x[i] ** 2 for i in self._not_zero(one, x))
        return total

    def _multiply_many(self, x: FloatArray, unseen: Mapping[str, FloatArray]) -> FloatArray:
        """`_multiply` of n contexts; the lengths (n,)."""
        news = np.zeros(len(x), dtype=bool)
        pairs = np.zeros(len(x), dtype=np.int64)
        for one, other in self._interactions:
            for name in (one, other):
                news |= np.asarray(unseen.get(name, 0.0)) > 0.0
            held = [
                (x[:, a.owned] != 0.0).sum(axis=1) if (a := self._attributes.get(name)) else 0
                for name in (one, other)
            ]
            pairs += held[0] * (held[0] + 1) // 2 if one == other else held[0] * held[1]
        placed = np.zeros(len(x), dtype=np.int64)
        for (left, right), product in self._products.items():
            x[:, product] = x[:, left] * x[:, right]
            placed += (x[:, left] != 0.0) & (x[:, right] != 0.0)
        total = np.zeros(len(x))
        for row in np.flatnonzero(news | (pairs != placed)).tolist():
            lengths = {name: float(squares[row]) for name, squares in unseen.items()}
            total[row] = self._multiply(x[row].tolist(), lengths)
        return total

    def _names(self, context: Mapping[str, object]) -> Sequence[str]:
        """The attributes to encode, sorted: the order of a mapping's keys is no part of the log."""
        return sorted(
            self._attributes.keys() | context.keys() if self._features is None else self._features
        )

    def _place_known(self, context: Context, x: list[float]) -> Sequence[str]:
        """Place plain values that have columns, as `_place` would; return the other attributes."""
        features = self._features
        rest = []
        attributes = self._attributes
        for name in context if features is None else features:
            attribute = attributes.get(name)
            if attribute is not None:
                value: Any = context.get(name)  # its type decides below
                kind = type(value)
                if kind is float or kind is int:
                    # NaN fails this comparison, and goes on to be refused.
                    if attribute.number >= 0 and -attribute.limit < value < attribute.limit:
                        x[attribute.number] = value * attribute.inverse_unit
                        continue
                elif kind is str and value in attribute.categories:
                    x[attribute.categories[value]] = 1.0
                    continue
            check_name(name, "context")
            rest.append(name)
        if features is None and not attributes.keys() <= context.keys():
            rest += attributes.keys() - context.keys()
        return sorted(rest)

    def _place(self, name: str, value: Value) -> tuple[int | Column | None, float]:
        """The column's index, or the column to grow, and its number; None where that is zero."""
        attribute = self._attributes.get(name)
        if isinstance(value, str):
            return self._place_category(name, attribute, value), 1.0
        if value is None:
            if attribute is not None and attribute.missing >= 0:
                return attribute.missing, 1.0
            return Column("missing", name, "", 1.0), 1.0
        check_value(name, value, "context")
        if value == 0:
            return None, 0.0
        if attribute is not None and attribute.number >= 0:
            return attribute.number, attribute.encoded(value)
        unit = _unit_of(value)
        return Column("number", name, "", unit), float(value) / unit

    def _place_category(self, name: str, attribute: _Attribute | None, value: str) -> int | Column:
        if attribute is None:
            return Column("category", name, value, 1.0)
        index = attribute.categories.get(value)
        if index is not None:
            return index
        if len(attribute.categories) < self._max_categories:
            return Column("category", name, value, 1.0)
        return attribute.other if attribute.other >= 0 else Column("other", name, "", 1.0)

    def _encode_numbers(self, name: str, values: Values, x: FloatArray) -> bool:
        """Fill one number column at once; False if a value is no number or has no column."""
        attribute = self._attributes.get(name)
        if attribute is None or attribute.number < 0:
            return False
        if not isinstance(values, np.ndarray) and not _NUMBERS.issuperset(map(type, values)):
            return False
        try:
            numbers = np.array(values, dtype=np.float64)
        except OverflowError:
            return False
        if not (np.abs(numbers) < LARGEST_NUMBER).all():
            return False
        numbers *= attribute.inverse_unit
        np.clip(numbers, -_FARTHEST, _FARTHEST, out=numbers)
        x[:, attribute.number] = numbers
        return True

    def _encode_values(
        self, name: str, values: Values, contexts: Sequence[Context], x: FloatArray
    ) -> FloatArray:
        """Fill the columns of one attribute, looking up each distinct string or None once.

        Returns
        -------
        (n,), the squared lengths of what has no column yet.
        """
        unseen = np.zeros(len(contexts))
        placed: dict[str | None, tuple[int | Column | None, float]] = {}
        always = self._features is not None or name in self._attributes
        always = always or isinstance(contexts, Contexts)
        for row, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
            if value is None or type(value) is str:
                if value is None and not always and name not in contexts[row]:
                    continue
                if value not in placed:
                    placed[value] = self._place(name, value)
                column, number = placed[value]
            else:
                column, number = self._place(name, value)
            if isinstance(column, Column):
                unseen[row] += number * number
            elif column is not None:
                x[row, column] = number
        return unseen

    def _append(self, column: Column) -> None:
        index = self.width
        self._numbers = None
        if column.type == "product":
            pair = self._pair(column)
            if pair is None or pair in self._products or column.unit != 1.0:
                raise _not_a_column(column)
            self._products[pair] = index
            self._columns.append(column)
            return
        attribute = self._attributes.setdefault(column.attribute, _Attribute())
        attribute.owned.append(index)
        free = False
        if column.type == "number":
            free = attribute.number < 0 and _LEAST_UNIT <= column.unit < LARGEST_NUMBER * 2.0
            attribute.number = index
            if free:
                attribute.count_in(column.unit)
        elif column.type == "category":
            free = column.value not in attribute.categories
            free = free and len(attribute.categories) < self._max_categories
            attribute.categories[column.value] = index
        elif column.type == "missing":
            free = attribute.missing < 0
            attribute.missing = index
        elif column.type == "other":
            free = attribute.other < 0
            attribute.other = index
        if not free:
            raise _not_a_column(column)
        self._columns.append(column)

    def _pair(self, product: Column) -> tuple[int, int] | None:
        """The indices of a product's columns, if they are there and may be multiplied."""
        index = {_label(column): i for i, column in enumerate(self._columns, start=1)}
        pair = index.get(product.attribute), index.get(product.value)
        if pair[0] is None or pair[1] is None:
            return None
        names = tuple(self._columns[i - 1].attribute for i in pair if i is not None)
        return (pair[0], pair[1]) if names in self._interactions else None


def _label(column: Column) -> str:
    """What a column is, without its unit, which grows."""
    return msgspec.json.encode([column.type, column.attribute, column.value]).decode()


def _not_a_column(column: Column) -> PolicyError:
    return PolicyError(f"snapshot.state: {column} is no column, or one too many.")


def _unit_of(value: float) -> float:
    """The power of two nearest to a number's magnitude."""
    return 2.0 ** max(round(math.log2(abs(value))), _LEAST_EXPONENT)
