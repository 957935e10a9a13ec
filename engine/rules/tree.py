"""The clause tree: what a rule says, as immutable values.

    Node     ::= And(nodes) | Or(nodes) | Not(node) | Clause
    Clause   ::= Compare | Member | Has | Truth        numbered in source order
    Operand  ::= Path | Literal | ListLiteral

``start`` and ``end`` count characters of the rule's text; ``text[start:end]`` is the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, TypeAlias

from engine.rules.values import Kind

Scalar: TypeAlias = bool | int | float | str | datetime | None


@dataclass(frozen=True, slots=True)
class Path:
    """An attribute by its dotted name; ``kind`` is its declared kind, None if undeclared."""

    name: str
    kind: Kind | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Scalar
    kind: Kind
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """A list of constants."""

    kind: ClassVar[Kind] = Kind.LIST
    elements: tuple[Literal, ...]
    start: int
    end: int


Operand: TypeAlias = Path | Literal | ListLiteral


@dataclass(frozen=True, slots=True)
class Compare:
    """``left operator right`` for one of == != < <= > >=."""

    index: int
    operator: str
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class Member:
    """``item in items``."""

    index: int
    item: Operand
    items: Operand


@dataclass(frozen=True, slots=True)
class Has:
    """``has(path)``."""

    index: int
    path: Path


@dataclass(frozen=True, slots=True)
class Truth:
    """An operand that is itself a condition: a boolean attribute, ``true`` or ``false``."""

    index: int
    operand: Operand


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node


@dataclass(frozen=True, slots=True)
class And:
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    operands: tuple[Node, ...]


Clause: TypeAlias = Compare | Member | Has | Truth
Node: TypeAlias = Clause | Not | And | Or
