"""What a value is in a rule: its kind, and equality as CEL defines it.

CEL is typed at run time: "20" is a string whatever it looks like, `true` is no number, and `1`
equals `1.0` because both are numbers. Python agrees only in part (`True == 1`), so every comparison
goes by kind first.

A Python value has a kind if a rule can hold it exactly. NaN, integers beyond 64 bits, times without
a zone and objects of any other class have none, and what has no kind is unknown.

References: CEL language definition, github.com/google/cel-spec, doc/langdef.md, "Values" and
"Equality and Ordering".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The kinds of value that a rule tells apart."""

    NULL = "null"
    BOOLEAN = "boolean"
    NUMBER = "number"
    STRING = "string"
    TIMESTAMP = "timestamp"
    LIST = "list"
    MAP = "map"


ATTRIBUTE_TYPES: Final[dict[str, Kind]] = {
    "string": Kind.STRING,
    "integer": Kind.NUMBER,
    "number": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
    "timestamp": Kind.TIMESTAMP,
    "list": Kind.LIST,
}
"""The types an attribute may be declared with; a list is one of strings."""

ORDERED: Final = frozenset({Kind.BOOLEAN, Kind.NUMBER, Kind.STRING, Kind.TIMESTAMP})

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

_KINDS: Final[dict[type, Kind]] = {
    type(None): Kind.NULL,
    bool: Kind.BOOLEAN,
    int: Kind.NUMBER,
    float: Kind.NUMBER,
    str: Kind.STRING,
    datetime: Kind.TIMESTAMP,
    list: Kind.LIST,
    tuple: Kind.LIST,
    dict: Kind.MAP,
}
_STRINGS_ONLY: Final = frozenset({str})
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)


def kind_of(value: object) -> Kind | None:
    """The kind of a Python value, None where a rule cannot hold it exactly."""
    kind = _KINDS.get(type(value))
    if kind is Kind.NUMBER:
        # NaN fails both branches: it is the one number not equal to itself.
        if type(value) is int:
            return kind if INT_MIN <= value <= INT_MAX else None
        return kind if value == value else None  # noqa: PLR0124
    if kind is Kind.TIMESTAMP and isinstance(value, datetime) and value.utcoffset() is None:
        return None
    return kind


def equal(left: object, right: object) -> bool | None:
    """CEL's ``left == right``: False between kinds, None where either side has no kind.

    Lists are equal if all their elements are; one unequal pair, or unequal lengths, decides.
    Whole maps, and lists within lists, are never compared: None.
    """
    kind, other = kind_of(left), kind_of(right)
    if kind is None or other is None:
        return None
    if kind is not other:
        return False
    if kind is Kind.MAP:
        return None
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and _all(map(_equal_elements, left, right))
    return left == right


def _equal_elements(left: object, right: object) -> bool | None:
    # A list may hold itself, or others as deep as its sender likes.
    if kind_of(left) is Kind.LIST and kind_of(right) is Kind.LIST:
        return None
    return equal(left, right)


def contains(items: list[object] | tuple[object, ...], value: object) -> bool | None:
    """CEL's ``value in items``: None if no element equals and one cannot be compared."""
    if type(value) is str and _STRINGS_ONLY.issuperset(map(type, items)):
        return value in items
    found: bool | None = False
    for item in items:
        same = equal(item, value)
        if same:
            return True
        if same is None:
            found = None
    return found


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    result: bool | None = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result


def timestamp(text: str) -> datetime | None:
    """The instant an RFC 3339 text names, None if it names none (no zone, no time, no such day).

    Digits beyond the microsecond are dropped.
    """
    # `fromisoformat` reads far more of ISO 8601 than RFC 3339 allows: weeks, basic forms, "+00".
    if _RFC_3339.fullmatch(text) is None:
        return None
    try:
        instant = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return None if instant.utcoffset() is None else instant
