"""A request for a decision, valid by construction, and the attributes it brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from types import MappingProxyType
from typing import Any

from engine.errors import RequestError
from engine.ids import rfc3339, to_microseconds
from engine.workspace import Attribute, Surface
from recsys.call import LARGEST_K

LONGEST_ID = 256
LONGEST_TEXT = 1_000
LONGEST_LIST = 1_000
MOST_ATTRIBUTES = 500
MOST_FILTERS = 100
LONGEST_DEADLINE_MS = 60_000
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DecideRequest:
    """What a service asks: who, where, on what occasion, and what it knows of the moment.

    Raises
    ------
    RequestError
        If an id is empty, longer than 256 characters or holds control characters; if neither
        ``user_id`` nor ``anonymous_id`` is given; if the deadline is not between 1 and 60,000 ms.
    """

    surface: str
    user_id: str | None = None
    anonymous_id: str | None = None
    trigger: str | None = None
    context: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    slots: tuple[str, ...] | None = None
    request_id: str | None = None
    deadline_ms: int | None = None
    peek: bool = False
    traceparent: str | None = None

    def __post_init__(self) -> None:
        for name in ("user_id", "anonymous_id", "request_id", "traceparent"):
            value = getattr(self, name)
            if value is not None:
                check_id(name, value)
        if self.user_id is None and self.anonymous_id is None:
            raise RequestError("user_id", "is missing, as is `anonymous_id`; give at least one")
        if self.deadline_ms is not None and not 1 <= self.deadline_ms <= LONGEST_DEADLINE_MS:
            raise RequestError(
                "deadline_ms",
                f"is {self.deadline_ms}; give 1 to {LONGEST_DEADLINE_MS:,} milliseconds",
            )
        if len(self.context) > MOST_ATTRIBUTES:
            raise RequestError(
                "context", f"has {len(self.context)} attributes; give at most {MOST_ATTRIBUTES}"
            )

    @property
    def unit(self) -> str:
        """The unit of the first identifier: ``u:`` and the user id, else ``a:`` and the other."""
        return f"u:{self.user_id}" if self.user_id is not None else f"a:{self.anonymous_id}"


def check_id(field_: str, value: str) -> None:
    """Raises RequestError unless the value can be an identifier: 1 to 256 printable characters."""
    if not value:
        raise RequestError(field_, "is empty; give 1 to 256 characters, or leave it out")
    if len(value) > LONGEST_ID:
        raise RequestError(
            field_, f"has {len(value):,} characters; give at most {LONGEST_ID}, as a hash of it"
        )
    if not value.isprintable():
        raise RequestError(field_, "holds a control character; remove it")


@dataclass(frozen=True, slots=True)
class RecommendRequest:
    """A call for one slate: where and for whom as of a decision, and what to put in it.

    ``slate`` None is the surface's only one, ``k`` None as many as its plan says. ``decision_id``
    names the decision that referred to the slate.

    Raises
    ------
    RequestError
        If ``k`` is not between 1 and 1,000, ids of items are more than 1,000 or no ids, or filters
        are more than 100.
    """

    of: DecideRequest
    slate: str | None = None
    k: int | None = None
    seeds: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    decision_id: str | None = None

    def __post_init__(self) -> None:
        if self.k is not None and not 1 <= self.k <= LARGEST_K:
            raise RequestError("k", f"is {self.k}; give 1 to {LARGEST_K:,} items")
        for name in ("seeds", "exclude"):
            ids = getattr(self, name)
            if len(ids) > LONGEST_LIST:
                raise RequestError(name, f"has {len(ids):,} items; give at most {LONGEST_LIST:,}")
            for index, id_ in enumerate(ids):
                check_id(f"{name}[{index}]", id_)
        if len(self.filters) > MOST_FILTERS:
            raise RequestError(
                "filters", f"has {len(self.filters):,} attributes; give at most {MOST_FILTERS}"
            )
        if self.decision_id is not None:
            check_id("decision_id", self.decision_id)


@dataclass(frozen=True, slots=True)
class Attributes:
    """The declared attributes of one request, as the record keeps them and as rules read them.

    ``ages_us`` names those observed before this moment. ``unknown`` says of each attribute that has
    no usable value why: missing, stale, undeclared. ``features`` are the usable values that are
    scalars, which is what a policy can read.
    """

    recorded: Mapping[str, Any]
    ages_us: Mapping[str, int]
    unknown: Mapping[str, str]
    values: Mapping[str, Any]
    features: Mapping[str, float | str | bool | None]


def read_attributes(surface: Surface, context: Mapping[str, Any], now_us: int) -> Attributes:
    """The attributes of a request's context, checked against what the surface declares.

    A value may be given bare, which is of now, or as ``{"value": …, "at": RFC 3339}``. An
    undeclared name is noted and its value dropped.

    Raises
    ------
    RequestError
        If a value is not of its declared type, is not finite, is too long, or is of the future.
    """
    recorded: dict[str, Any] = {}
    ages: dict[str, int] = {}
    unknown: dict[str, str] = {}
    values: dict[str, Any] = {}
    declared = surface.attributes
    for name in context:
        if name not in declared:
            unknown[name[:LONGEST_ID]] = "undeclared"
    for name, attribute in declared.items():
        given: Any = context.get(name)  # its type decides below
        kind = type(given)
        # Nearly all values are recorded and read as they come, and told without a call of ours;
        # what is told apart no further here is looked at closely.
        if kind is str:
            plain = attribute.type == "string" and len(given) <= LONGEST_TEXT and given.isascii()
        elif kind is float:
            plain = attribute.type == "number" and isfinite(given)
        else:
            plain = kind is bool and attribute.type == "boolean"
        if plain:
            recorded[name] = values[name] = given
            continue
        age = 0
        if type(given) is dict:
            given, age = _dated(name, given, now_us)
        if given is None:
            unknown[name] = "missing"
            continue
        value, readable = _typed(attribute, given)
        recorded[name] = value
        if age:
            ages[name] = age
        if attribute.max_age_us is not None and age > attribute.max_age_us:
            unknown[name] = "stale"
        else:
            values[name] = readable
    features = (
        values if surface.only_scalars else {n: v for n, v in values.items() if declared[n].scalar}
    )
    return Attributes(recorded, ages, unknown, values, features)


def _dated(name: str, given: dict[str, Any], now_us: int) -> tuple[Any, int]:
    if set(given) != {"value", "at"}:
        raise RequestError(
            f"context.{name}", 'is an object; give a bare value or {"value": …, "at": …}'
        )
    age = now_us - parse_time(f"context.{name}.at", given["at"])
    # A caller's clock may run a little ahead of ours; further on it is a mistake.
    if age < -60_000_000:
        raise RequestError(f"context.{name}.at", "lies in the future; give when it was observed")
    return given["value"], max(age, 0)


def _typed(attribute: Attribute, given: object) -> tuple[Any, Any]:
    """The value as recorded, and as rules and policies read it."""
    kind = type(given)
    match attribute.type:
        case "string" if kind is str and _is_text(given):  # type: ignore[arg-type]  # kind says str
            return given, given
        case "integer" if kind is int and -(2**53) <= given <= 2**53:  # type: ignore[operator]  # kind says int
            return given, given
        case "number" if kind is int and -(2**63) <= given < 2**63:  # type: ignore[operator]  # kind says int
            return given, given
        case "number" if kind is float and isfinite(given):  # type: ignore[arg-type]  # kind says float
            return given, given
        case "boolean" if kind is bool:
            return given, given
        case "timestamp" if kind is str:
            moment = parse_time(f"context.{attribute.name}", given)
            return rfc3339(moment), datetime.fromisoformat(rfc3339(moment))
        case "list" if (
            isinstance(given, list)
            and len(given) <= LONGEST_LIST
            and all(type(item) is str and _is_text(item) for item in given)
        ):
            return given, given
    raise RequestError(
        f"context.{attribute.name}", f"is {_shown(given)}; give {_EXPECTED[attribute.type]}"
    )


def _is_text(value: str) -> bool:
    """Whether the record can hold it: not too long, and no half of a surrogate pair."""
    if len(value) > LONGEST_TEXT:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_EXPECTED = {
    "string": f"a string of at most {LONGEST_TEXT:,} characters",
    "integer": "an integer of at most 2^53",
    "number": "a finite number, within 64 bits if it is an integer",
    "boolean": "true or false",
    "list": f"a list of at most {LONGEST_LIST:,} strings",
    "timestamp": "a time as RFC 3339 with zone, such as 2026-03-04T20:47:00Z",
}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def parse_time(field_: str, text: object) -> int:
    """Microseconds since 1970 of an RFC 3339 text.

    Raises
    ------
    RequestError
        If it is no text, no RFC 3339 time, or has no zone.
    """
    if isinstance(text, str) and len(text) <= 64:
        try:
            moment = to_microseconds(datetime.fromisoformat(text))
            # A zone can push a moment of the first or last day out of the years that exist.
            rfc3339(moment)
        except (ValueError, OverflowError):
            pass
        else:
            return moment
    raise RequestError(
        field_,
        f"is {_shown(text)}; give a time as RFC 3339 with zone, such as 2026-03-04T20:47:00Z",
    )
