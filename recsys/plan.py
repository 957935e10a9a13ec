"""A slate's plan: what may fill it, by which rules, and how its items are put in order.

What composition reads of a plan is `Composing`, plain values that a trace keeps, so that a slate
can be composed again from its trace alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from recsys.call import LARGEST_K, SLATE_KINDS, SlateKind
from recsys.catalogue import Catalogue
from recsys.errors import RecsysError
from recsys.rules import (
    HARD,
    Compatible,
    Grade,
    ItemRule,
    Matches,
    NotBlocked,
    NotExcluded,
    NotSeed,
    Rule,
    SameAsSeed,
    column_of,
)

MOST_CANDIDATES = 10_000

ALWAYS: Sequence[ItemRule] = (NotBlocked(), NotExcluded(), Matches())
"""The hard rules of every slate."""

RELATED: frozenset[SlateKind] = frozenset({"similar", "alternatives", "accessories", "bundles"})
"""Kinds that say something of the items being looked at, and nothing without them."""

OF_KIND: dict[SlateKind, Sequence[ItemRule]] = {
    "because_you": (NotSeed(),),
    "similar": (NotSeed(),),
    "alternatives": (NotSeed(), SameAsSeed()),
    "accessories": (NotSeed(), Compatible()),
    "bundles": (NotSeed(),),
}
"""The hard rules that make a kind what it is; a plan's rule of the same id takes their place."""


def _whole(value: object, least: int, most: float = math.inf) -> bool:
    """Whether a value of any type is a whole number in a range."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _real(value: object) -> bool:
    """Whether a value of any type is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """At most so many items of a slate share a value, such as a franchise.

    Parameters
    ----------
    unknown
        Items whose value is unknown count as sharing one (``together``), or as sharing none
        (``apart``). Items that are known to have no value share none.
    """

    column: str
    at_most: int
    unknown: Literal["together", "apart"] = "together"

    def __post_init__(self) -> None:
        if not _whole(self.at_most, 1):
            raise RecsysError(
                f"limits.{self.column}.at_most is {self.at_most!r}. Give 1 or more; a rule keeps "
                "items out altogether."
            )

    @property
    def id(self) -> str:
        """The name under which items that were passed over are listed."""
        return f"at_most:{self.column}"


class Diversity(msgspec.Struct, frozen=True, kw_only=True):
    """Less for what resembles the items before it.

    Parameters
    ----------
    kind
        ``mmr`` takes away the likeness to the most similar of them; ``dpp`` −log of what of the
        item they do not span, as makes a slate probable in a determinantal point process.
    weight
        Of the range of the candidates' scores, for a likeness of 1 (or a log of −1).
    column
        Likeness is the share of an attribute's values in common; None: the cosine of embeddings.

    References
    ----------
    Carbonell & Goldstein (1998), The Use of MMR, SIGIR; their λ is 1 / (1 + weight). Chen, Zhang &
    Zhou (2018), Fast Greedy MAP Inference for Determinantal Point Process, NeurIPS 31.
    """

    kind: Literal["mmr", "dpp"] = "mmr"
    weight: float = 0.3
    column: str | None = None

    def __post_init__(self) -> None:
        _above_zero("diversity.weight", self.weight)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A slate whose mix of an attribute's values is like that of what the user did.

    Parameters
    ----------
    weight
        Of the range of the candidates' scores, for a divergence of 1 of the whole slate.
    ignore
        Kinds of interactions that say nothing for an item.

    References
    ----------
    Steck (2018), Calibrated Recommendations, RecSys; his λ is weight / (1 + weight).
    """

    column: str
    weight: float
    ignore: tuple[str, ...] = ("return",)

    def __post_init__(self) -> None:
        _above_zero("calibration.weight", self.weight)


class Exploration(msgspec.Struct, frozen=True, kw_only=True):
    """How positions are drawn from the items that rules still allow.

    Position j shows item i with (1 − ε) softmax(utility / temperature)_i + ε / m_j, where m_j is
    how many are allowed there; at temperature 0 the best item takes the place of the softmax.

    Parameters
    ----------
    temperature
        Of the range of the candidates' scores.
    """

    temperature: float = 0.0
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if not _real(self.temperature) or self.temperature < 0:
            raise RecsysError(
                f"exploration.temperature is {self.temperature!r}. Give a finite number, 0 or more."
            )
        if not _real(self.epsilon) or not 0 <= self.epsilon <= 1:
            raise RecsysError(f"exploration.epsilon is {self.epsilon!r}. Give a share, 0 to 1.")


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A position that is taken: by one item, or by the best of those that a column is true of.

    Hard rules and limits outrank a pin: what they keep out leaves its position to the others.

    Parameters
    ----------
    position
        From 1.
    item_id, column
        One of them: an item, or a column of booleans, such as what is paid for.
    sponsored
        Whether the position is paid for.
    """

    position: int
    item_id: str = ""
    column: str = ""
    sponsored: bool = False

    def __post_init__(self) -> None:
        if not _whole(self.position, 1):
            raise RecsysError(f"pins.position is {self.position!r}. Positions count from 1.")
        if bool(self.item_id) == bool(self.column):
            raise RecsysError(
                f"the pin at position {self.position} names item_id {self.item_id!r} and column "
                f"{self.column!r}. Name one of them."
            )


class Composing(msgspec.Struct, frozen=True, kw_only=True):
    """What of a plan the order of a slate depends on, beside its candidates."""

    limits: tuple[Limit, ...] = ()
    diversity: Diversity | None = None
    calibration: Calibration | None = None
    exploration: Exploration = Exploration()

    def __post_init__(self) -> None:
        columns = [limit.column for limit in self.limits]
        if len(set(columns)) < len(columns):
            raise RecsysError("limits name a column twice. Limit each once.")

    @property
    def grouped(self) -> tuple[str, ...]:
        """The columns whose values are compared between items."""
        named = [limit.column for limit in self.limits]
        named += [
            each.column for each in (self.diversity, self.calibration) if each and each.column
        ]
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True, kw_only=True)
class SlatePlan:
    """How a slate is filled.

    Parameters
    ----------
    k
        How many items a caller is given who names no number; pins stand within it.
    candidates
        How many items are asked for and scored.
    objective
        The metric that the scorer predicts, as declared.
    rules
        Hard and soft rules, beside `ALWAYS` and those of the kind.
    grades
        Rules whose amount is the item's own.
    items
        Of ``editorial``: the items in the editors' order. None: whatever the candidates are.

    Raises
    ------
    RecsysError
        If any of it is out of range, or two rules have one id.
    """

    id: str
    kind: SlateKind = "for_you"
    k: int = 10
    candidates: int = 1000
    objective: str = "relevance"
    rules: tuple[ItemRule, ...] = ()
    grades: tuple[Grade, ...] = ()
    pins: tuple[Pin, ...] = ()
    items: tuple[str, ...] | None = None
    composing: Composing = field(default_factory=Composing)

    def __post_init__(self) -> None:
        if not self.id:
            raise RecsysError("plan.id is empty. Name the slate.")
        where = f"slates.{self.id}"
        if self.kind not in SLATE_KINDS:
            raise RecsysError(
                f"{where}.kind is {self.kind!r}, which is unknown. Known: {', '.join(SLATE_KINDS)}."
            )
        if not _whole(self.k, 1, LARGEST_K):
            raise RecsysError(f"{where}.k is {self.k!r}. Give 1 to {LARGEST_K}.")
        if not _whole(self.candidates, self.k, MOST_CANDIDATES):
            raise RecsysError(
                f"{where}.candidates is {self.candidates!r}. Give k or more, at most "
                f"{MOST_CANDIDATES:,}."
            )
        if self.items is not None and self.kind != "editorial":
            raise RecsysError(
                f"{where}.items are for editorial slates, and its kind is {self.kind}."
            )
        positions = [pin.position for pin in self.pins]
        if len(set(positions)) < len(positions) or max(positions, default=0) > self.k:
            raise RecsysError(
                f"{where}.pins are at positions {positions} of {self.k}. Pin each position once."
            )
        every: tuple[Rule, ...] = (*ALWAYS, *self.rules, *self.grades)
        ids = [rule.id for rule in every]
        ids += [limit.id for limit in self.composing.limits]
        twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
        if twice:
            raise RecsysError(f"{where}.rules: two have the id {twice[0]!r}. Name each apart.")
        for rule in self.rules:
            soft = rule.kind not in HARD
            if soft and (not _real(rule.amount) or rule.amount <= 0):
                raise RecsysError(
                    f"{where}.rules.{rule.id}.amount is {rule.amount!r}. Give a finite number "
                    "above 0; bury takes it away."
                )

    @property
    def hard(self) -> tuple[ItemRule, ...]:
        """Every rule that keeps items out."""
        own = tuple(rule for rule in self.rules if rule.kind in HARD)
        taken = {rule.id for rule in own}
        of_kind = tuple(rule for rule in OF_KIND.get(self.kind, ()) if rule.id not in taken)
        return (*ALWAYS, *of_kind, *own)

    @property
    def soft(self) -> tuple[ItemRule, ...]:
        """Every rule that moves items by one amount."""
        return tuple(rule for rule in self.rules if rule.kind not in HARD)

    def check(self, catalogue: Catalogue) -> None:
        """Raise unless the catalogue has every attribute that the plan reads.

        Raises
        ------
        RecsysError
            If an attribute is not declared or not of the kind that its use needs.
        """
        every: tuple[Rule, ...] = (*self.hard, *self.soft, *self.grades)
        for rule in every:
            for name in sorted(rule.reads):
                self._column(catalogue, name, f"rules.{rule.id}", ())
        for name in self.composing.grouped:
            self._column(catalogue, name, "composing", ("string", "strings", "boolean"))
        for pin in self.pins:
            if pin.column:
                self._column(catalogue, pin.column, "pins", ("boolean",))
        diversity = self.composing.diversity
        if diversity and diversity.column is None and catalogue.vectors is None:
            raise RecsysError(
                f"slates.{self.id}.composing.diversity goes by embeddings, and items have none. "
                "Name a column, or declare items.vector_size."
            )

    def _column(self, catalogue: Catalogue, name: str, where: str, kinds: Sequence[str]) -> None:
        try:
            kind = column_of(catalogue, name).kind
        except RecsysError as error:
            raise RecsysError(f"slates.{self.id}.{where} reads {error}") from error
        if kinds and kind not in kinds:
            raise RecsysError(
                f"slates.{self.id}.{where} reads {name}, which is a {kind} and must be "
                f"{' or '.join(kinds)}."
            )


def _above_zero(name: str, value: float) -> None:
    if not _real(value) or value <= 0:
        raise RecsysError(f"{name} is {value!r}. Give a finite number above 0, or leave it out.")
