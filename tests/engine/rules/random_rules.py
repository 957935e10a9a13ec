"""Random rules and attributes, each rule in our language and in CEL proper."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from engine.rules.values import INT_MAX, INT_MIN

ANY: Final = ("a", "b", "c", "profile.plan", "profile.age")
"""Attributes that hold a value of any kind, or none."""
TIMES: Final = ("seen", "joined")
"""Attributes that hold a time, or none."""

_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
_NUMBERS: Final = (0, 1, 2, -1, 20, INT_MAX, INT_MIN, 1.0, 2.5, -0.5, -0.0, 20.0, 1e300)
_STRINGS: Final = ("", "a", "b", "aa", "20", "true", "é", "Z", "😀", "￿", "it's", "\\", "\n\t")
_INSTANTS: Final = tuple(
    datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(hours=hours) for hours in (-24, 0, 1, 8760)
)


@dataclass(frozen=True)
class Source:
    """One expression in our language and in CEL, where attributes are fields of the map `ctx`."""

    ours: str
    cel: str


def random_rule(random: Random, depth: int = 3) -> Source:
    """A condition of clauses joined by &&, || and !, at most ``depth`` operators deep."""
    if depth == 0 or random.random() < 0.25:
        return _clause(random)
    match random.choice(("&&", "&&", "||", "||", "!")):
        case "!":
            inner = random_rule(random, depth - 1)
            return Source(f"!({inner.ours})", f"!({inner.cel})")
        case sign:
            parts = [random_rule(random, depth - 1) for _ in range(random.choice((2, 2, 3)))]
            return Source(
                f" {sign} ".join(f"({part.ours})" for part in parts),
                f" {sign} ".join(f"({part.cel})" for part in parts),
            )


def random_attributes(random: Random) -> dict[str, object]:
    """A value of any kind for each attribute, or its absence."""
    attributes: dict[str, object] = {
        name: _value(random) for name in ("a", "b", "c") if random.random() < 0.8
    }
    attributes |= {name: random.choice(_INSTANTS) for name in TIMES if random.random() < 0.8}
    if random.random() < 0.8:
        attributes["profile"] = {
            name: _value(random) for name in ("plan", "age") if random.random() < 0.8
        }
    return attributes


def for_cel(attributes: dict[str, object]) -> dict[str, object]:
    """The same attributes for a CEL engine: times as text, all in the map `ctx`."""
    return {
        "ctx": {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in attributes.items()
        }
    }


def _clause(random: Random) -> Source:
    kind = random.random()
    if kind < 0.5:
        left, right = _operand(random), _operand(random)
        sign = random.choice(_COMPARISONS)
        return Source(f"{left.ours} {sign} {right.ours}", f"{left.cel} {sign} {right.cel}")
    if kind < 0.6:
        left, right = _time(random), _time(random)
        sign = random.choice(_COMPARISONS)
        return Source(f"{left.ours} {sign} {right.ours}", f"{left.cel} {sign} {right.cel}")
    if kind < 0.8:
        item = _operand(random)
        items = _list(random) if random.random() < 0.6 else _path(random)
        return Source(f"{item.ours} in {items.ours}", f"{item.cel} in {items.cel}")
    if kind < 0.9:
        name = random.choice((*ANY, *TIMES))
        # CEL's has(ctx.profile.plan) is an error without ctx.profile, where ours is false.
        whole = [f"has(ctx.{name.rpartition('.')[0]})"] if "." in name else []
        return Source(f"has({name})", " && ".join(f"({c})" for c in (*whole, f"has(ctx.{name})")))
    if kind < 0.95:
        return _path(random)
    constant = random.choice(("true", "false"))
    return Source(constant, constant)


def _operand(random: Random) -> Source:
    return _path(random) if random.random() < 0.65 else _literal(random)


def _path(random: Random) -> Source:
    name = random.choice(ANY)
    return Source(name, f"ctx.{name}")


def _time(random: Random) -> Source:
    if random.random() < 0.6:
        name = random.choice(TIMES)
        return Source(name, f"timestamp(ctx.{name})")
    text = f'timestamp("{random.choice(_INSTANTS).isoformat()}")'
    return Source(text, text)


def _literal(random: Random) -> Source:
    text = _written(random, _scalar(random))
    return Source(text, text)


def _list(random: Random) -> Source:
    elements = [_written(random, _scalar(random)) for _ in range(random.randrange(4))]
    text = f"[{', '.join(elements)}]"
    return Source(text, text)


def _scalar(random: Random) -> object:
    return random.choice(
        (
            random.choice(_NUMBERS),
            random.choice(_NUMBERS),
            random.choice(_STRINGS),
            random.choice(_STRINGS),
            random.choice((True, False)),
            None,
        )
    )


def _value(random: Random) -> object:
    if random.random() < 0.25:
        return [_scalar(random) for _ in range(random.randrange(4))]
    return float("inf") if random.random() < 0.05 else _scalar(random)


def _written(random: Random, value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(random, value)
    return repr(value)


def _quoted(random: Random, value: str) -> str:
    quote = random.choice(('"', "'", '"""', "'''"))
    if random.random() < 0.3:
        return quote + "".join(f"\\U{ord(character):08x}" for character in value) + quote
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace(quote[0], f"\\{quote[0]}")
    return quote + escaped + quote
