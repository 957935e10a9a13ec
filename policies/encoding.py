"""Turns a context into numbers, with a vocabulary that grows only by learning, in log order.

Columns are, first, an intercept that is always 1; then for each attribute

- ``number``: its value over the column's unit (a bool is 0 or 1);
- ``category``: 1 if the attribute is that string; beyond ``max_categories`` strings, ``other``;
- ``missing``: 1 if it is None or absent.

A column exists from the first learned context in which it is not zero. The unit of a number is
the power of two nearest to the largest magnitude learned from, and grows with it: attributes arrive
unscaled, and a ridge penalty alike for all would else weigh a share and a revenue quite
differently. An attribute that changes type gets the columns of its new type beside the old.

What is learned from is thus at most √2 in magnitude. A prediction clips numbers to a million units:
further out than that a line says nothing, and squares might leave float64's range.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from policies.errors import PolicyError
from policies.types import LARGEST_NUMBER, Context, FloatArray, Value, check_value

_FARTHEST = 1e6
_BEYOND = 1.5  # above √2, so that rounding alone never moves a unit
_LEAST_EXPONENT = -300  # the inverse of a unit must stay finite, of subnormal numbers too
_LEAST_UNIT = 2.0**_LEAST_EXPONENT


class Column(msgspec.Struct, frozen=True, array_like=True):
    """One column: ``value`` is the string of a category, ``unit`` the unit of a number."""

    type: str
    attribute: str
    value: str
    unit: float


class _Attribute:
    """Where the columns of one attribute are; -1 where there is none yet."""

    __slots__ = ("categories", "inverse_unit", "limit", "missing", "number", "other")

    def __init__(self) -> None:
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
    ) -> None:
        self._features = None if features is None else tuple(features)
        self._max_categories = max_categories
        self._columns: list[Column] = []
        self._attributes: dict[str, _Attribute] = {}
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
        x = [0.0] * self.width
        x[0] = 1.0
        unseen = 0.0
        for name in self._place_known(context, x):
            column, number = self._place(name, context.get(name))
            if isinstance(column, Column):
                unseen += number * number
            elif column is not None:
                x[column] = number
        return np.array(x), unseen

    def encode_many(self, contexts: Sequence[Context]) -> tuple[FloatArray, FloatArray]:
        """`encode` of n contexts, column by column: x (n, d) and unseen (n,)."""
        x = np.zeros((len(contexts), self.width))
        x[:, 0] = 1.0
        unseen = np.zeros(len(contexts))
        for name in self._names(dict.fromkeys(chain.from_iterable(contexts))):
            values = [context.get(name) for context in contexts]
            if not self._encode_numbers(name, values, x):
                self._encode_values(name, values, contexts, x, unseen)
        return x, unseen

    def grow(self, context: Context) -> None:
        """Add the columns that the context needs and that are not there yet."""
        for name in self._names(context):
            column, _ = self._place(name, context.get(name))
            if isinstance(column, Column):
                self._append(column)

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
        for index in np.flatnonzero(np.abs(x) > _BEYOND).tolist():
            column = self._columns[index - 1]
            value: Any = context[column.attribute]  # only a number is that large
            unit = _unit_of(value)
            if unit > column.unit:
                self._columns[index - 1] = Column("number", column.attribute, "", unit)
                self._attributes[column.attribute].count_in(unit)
                grown.append((index, unit / column.unit))
                x[index] = float(value) / unit
        return grown

    def _names(self, context: Context) -> Sequence[str]:
        """The attributes to encode, sorted: the order of a mapping's keys is no part of the log."""
        return sorted(
            self._attributes.keys() | context.keys() if self._features is None else self._features
        )

    def _place_known(self, context: Context, x: list[float]) -> Sequence[str]:
        """Place plain values that have columns, as `_place` would; return the other attributes.

        This is the decision path: one dictionary look-up for an attribute and no call.
        """
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

    def _encode_numbers(self, name: str, values: list[Value], x: FloatArray) -> bool:
        """Fill one number column at once; False if a value is no number or has no column."""
        attribute = self._attributes.get(name)
        if attribute is None or attribute.number < 0:
            return False
        if not set(map(type, values)) <= {float, int, bool}:
            return False
        try:
            numbers = np.array(values, dtype=np.float64)
        except OverflowError:
            return False
        if not (np.abs(numbers) < LARGEST_NUMBER).all():
            return False
        x[:, attribute.number] = np.clip(numbers * attribute.inverse_unit, -_FARTHEST, _FARTHEST)
        return True

    def _encode_values(
        self,
        name: str,
        values: list[Value],
        contexts: Sequence[Context],
        x: FloatArray,
        unseen: FloatArray,
    ) -> None:
        """Fill the columns of one attribute, looking up each distinct string or None once."""
        placed: dict[str | None, tuple[int | Column | None, float]] = {}
        always = self._features is not None or name in self._attributes
        for row, value in enumerate(values):
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

    def _append(self, column: Column) -> None:
        attribute = self._attributes.setdefault(column.attribute, _Attribute())
        index = self.width
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
            raise PolicyError(f"snapshot.state: {column} is no column, or one too many.")
        self._columns.append(column)


def _unit_of(value: float) -> float:
    """The power of two nearest to a number's magnitude."""
    return 2.0 ** max(round(math.log2(abs(value))), _LEAST_EXPONENT)
