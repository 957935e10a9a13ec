"""Rules over items: which may be shown at all, and which are moved up or down.

A rule looks at columns of the catalogue for many items at once and finds each true, false or
unknown. What is unknown opens no gate: a requirement that is unknown keeps an item out, and so does
a suppression; a boost that is unknown adds nothing.

The engine brings rules of its own in the workspace's language; those here need none.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from recsys.call import Call
from recsys.catalogue import Catalogue, Column, Mask, Rows
from recsys.errors import RecsysError
from recsys.groups import flattened

Verdicts: TypeAlias = npt.NDArray[np.int8]
FloatArray: TypeAlias = npt.NDArray[np.float64]
RuleKind = Literal["require", "suppress", "boost", "bury"]

TRUE, FALSE, UNKNOWN = np.int8(1), np.int8(0), np.int8(-1)

MICROSECONDS_PER_DAY = 86_400_000_000


class Rule(Protocol):
    """What all rules have: an id, a reason in words, and the columns they read, by name or role."""

    @property
    def id(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def reads(self) -> frozenset[str]: ...


class ItemRule(Rule, Protocol):
    """A rule that is true or not of an item.

    ``require`` keeps out what is not true of it, ``suppress`` what is not false; ``boost`` adds
    ``amount`` to the utility of what is true, ``bury`` takes it away.
    """

    @property
    def kind(self) -> RuleKind: ...
    @property
    def amount(self) -> float: ...

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """(m,), `TRUE`, `FALSE` or `UNKNOWN` of each item."""
        ...


class Grade(Rule, Protocol):
    """A rule whose amount is the item's own: so much for its margin, its freshness."""

    def amounts(self, catalogue: Catalogue, rows: Rows, call: Call) -> FloatArray:
        """(m,), added to the utility of each item; 0 where nothing is known."""
        ...


def column_of(catalogue: Catalogue, name: str) -> Column:
    """A column by its name, or by its role.

    Raises
    ------
    RecsysError
        If no attribute is named so, or has the role.
    """
    return catalogue.column(catalogue.schema.role(name) or name)


def passes(rule: ItemRule, verdicts: Verdicts) -> Mask:
    """(m,), which items a hard rule lets through."""
    return np.asarray(verdicts == (TRUE if rule.kind == "require" else FALSE))


def _three(holds: Mask, known: Mask) -> Verdicts:
    return np.where(known, holds, UNKNOWN).astype(np.int8)


def listed(rows: Rows, ids: Iterable[str], catalogue: Catalogue) -> Mask:
    """(m,), which of the rows are those of some ids; unknown ids are nobody's."""
    found = np.sort(catalogue.rows(ids))
    found = found[np.searchsorted(found, 0) :]
    if len(found) == 0:
        return np.zeros(len(rows), np.bool_)
    if 8 * len(rows) > catalogue.size:
        flags = np.zeros(catalogue.size, np.bool_)
        flags[found] = True
        return np.asarray(flags[rows])
    at = np.minimum(np.searchsorted(found, rows), len(found) - 1)
    return np.asarray(found[at] == rows)


def numbers(catalogue: Catalogue, name: str) -> Column:
    """A column of numbers, by name or role.

    Raises
    ------
    RecsysError
        If it is of another kind.
    """
    column = column_of(catalogue, name)
    if column.kind != "number":
        raise RecsysError(f"{name} is a {column.kind} and must be a number. Name another.")
    return column


@dataclass(frozen=True)
class _Hard:
    """What the hard rules here share."""

    @property
    def kind(self) -> RuleKind:
        return "require"

    @property
    def amount(self) -> float:
        return 0.0


@dataclass(frozen=True)
class _Suppression(_Hard):
    """A rule of what the call says; it reads no column and is never unknown."""

    @property
    def kind(self) -> RuleKind:
        return "suppress"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()


# What holds for every slate --------------------------------------------------------------------


@dataclass(frozen=True)
class NotBlocked(_Suppression):
    """Keeps out items that the catalogue blocks."""

    id: str = "blocked"
    reason: str = "blocked"

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:  # noqa: ARG002  # as all rules
        """See `ItemRule.verdicts`."""
        return catalogue.blocked[rows].astype(np.int8)


@dataclass(frozen=True)
class NotExcluded(_Suppression):
    """Keeps out the items that the call excludes."""

    id: str = "excluded"
    reason: str = "excluded by the call"

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        return listed(rows, call.exclude, catalogue).astype(np.int8)


@dataclass(frozen=True)
class NotSeed(_Suppression):
    """Keeps out the items being looked at."""

    id: str = "seed"
    reason: str = "being looked at"

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        return listed(rows, call.seeds, catalogue).astype(np.int8)


@dataclass(frozen=True)
class Matches(_Hard):
    """Keeps what has one of the values that each attribute is asked to have.

    A value is a string, boolean or number, several of them in a list, or bounds of a number or time
    as ``{"min": 10, "max": 20}``, both included. Of several strings an item must have one.

    Parameters
    ----------
    filters
        By attribute or role; None reads ``call.filters``.
    """

    filters: Mapping[str, Any] | None = None
    id: str = "filtered"
    reason: str = "not what was asked for"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset(self.filters or ())

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`.

        Raises
        ------
        RecsysError
            If an attribute is not declared, or what is asked of it is not of its kind.
        """
        broken = unknown = np.zeros(len(rows), np.bool_)
        for name, wanted in (call.filters if self.filters is None else self.filters).items():
            column = column_of(catalogue, name)
            known = column.known[rows]
            broken = broken | (known & ~_matching(column, rows, name, wanted))
            unknown = unknown | ~known
        return np.where(broken, FALSE, _three(~broken, ~unknown))


def _matching(column: Column, rows: Rows, name: str, wanted: object) -> Mask:
    """(m,), which of the items' values are wanted; anything where unknown."""
    if column.kind in {"number", "time"} and isinstance(wanted, Mapping):
        low, high = _bounds(name, wanted)
        values = column.values[rows]
        return np.asarray((values >= low) & (values <= high))
    many = wanted if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    kinds = {"string": str, "strings": str, "boolean": bool, "number": float, "time": int}
    kind = kinds[column.kind]
    for value in many:
        fits = isinstance(value, int | float if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise RecsysError(
                f"filters.{name} asks for {value!r}, but {name} is a {column.kind}. Ask for "
                "values of its kind."
            )
    if column.kind in {"string", "strings"}:
        # One place more than there are categories: the last, at -1, is of unknown values.
        wanted_codes = np.zeros(len(column.categories) + 1, np.bool_)
        wanted_codes[[column.codes[v] for v in map(str, many) if v in column.codes]] = True
        if column.kind == "string":
            return np.asarray(wanted_codes[column.values[rows]])
        flat, lengths = flattened(column, rows)
        found = np.zeros(len(rows), np.bool_)
        found[np.repeat(np.arange(len(rows)), lengths)[wanted_codes[flat]]] = True
        return found
    try:
        asked = np.array(list(many), column.values.dtype)
    except OverflowError as error:
        raise RecsysError(
            f"filters.{name} asks for one that no {column.kind} can be. Ask for a smaller one."
        ) from error
    return np.isin(column.values[rows], asked)


def _bounds(name: str, wanted: Mapping[str, object]) -> tuple[float, float]:
    bounds = [wanted.get("min", -math.inf), wanted.get("max", math.inf)]
    numeric = [
        bound
        for bound in bounds
        if isinstance(bound, int | float)
        and not isinstance(bound, bool)
        # Python's integers go further than any column.
        and (abs(bound) <= sys.float_info.max or bound in {-math.inf, math.inf})
    ]
    if not wanted or set(wanted) - {"min", "max"} or len(numeric) < 2:
        raise RecsysError(
            f'filters.{name} is {dict(wanted)!r}. Bounds are numbers: {{"min": 10, "max": 20}}.'
        )
    return numeric[0], numeric[1]


# What a plan may ask for -----------------------------------------------------------------------


@dataclass(frozen=True)
class InStock(_Hard):
    """Keeps what is in stock.

    Parameters
    ----------
    at_least
        How many must be left.
    """

    column: str = "stock"
    at_least: float = 1.0
    id: str = "in_stock"
    reason: str = "out of stock"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.column})

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:  # noqa: ARG002  # as all rules
        """See `ItemRule.verdicts`."""
        column = numbers(catalogue, self.column)
        return _three(column.values[rows] >= self.at_least, column.known[rows])


@dataclass(frozen=True)
class Fresh(_Hard):
    """Keeps what was told of recently: a value that is older than its limit may be wrong by now.

    Parameters
    ----------
    limit_s
        How many seconds ago the value may have been told.
    """

    limit_s: float
    column: str = "stock"
    id: str = "stock_fresh"
    reason: str = "stale"

    def __post_init__(self) -> None:
        if not 0 < self.limit_s < math.inf:
            raise RecsysError(f"rule {self.id}: limit_s is {self.limit_s!r}. Give seconds above 0.")

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.column})

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        column = column_of(catalogue, self.column)
        oldest = call.now - int(self.limit_s * 1e6)
        return _three(column.updated_at[rows] >= oldest, column.known[rows])


@dataclass(frozen=True)
class InRegion(_Hard):
    """Keeps what is offered where the user is; unknown if the call does not say where that is.

    Parameters
    ----------
    context
        The attribute of the call's context that names the region.
    """

    context: str = "region"
    column: str = "regions"
    id: str = "in_region"
    reason: str = "not offered in the region"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.column})

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        region = call.context.get(self.context)
        if not isinstance(region, str):
            return np.full(len(rows), UNKNOWN)
        column = column_of(catalogue, self.column)
        return _three(_matching(column, rows, self.column, region), column.known[rows])


@dataclass(frozen=True)
class Compatible(_Hard):
    """Keeps what fits an item being looked at.

    An item fits another if either names the other's id among what it is compatible with, or both
    name the same thing, such as a mount.
    """

    column: str = "compatible_with"
    id: str = "compatible"
    reason: str = "does not fit"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.column})

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        column = column_of(catalogue, self.column)
        seeds = catalogue.rows(call.seeds)
        named = [column.at(row) for row in seeds[seeds >= 0].tolist()]
        words = {word for each in named if isinstance(each, tuple) for word in each}
        fits = _matching(column, rows, self.column, [*words, *call.seeds])
        by_seed = listed(rows, words, catalogue)
        return _three((fits & column.known[rows]) | by_seed, column.known[rows] | by_seed)


@dataclass(frozen=True)
class SameAsSeed(_Hard):
    """Keeps what has a value in common with an item being looked at."""

    column: str = "category"
    id: str = "same_as_seed"
    reason: str = "of another kind"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.column})

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        column = column_of(catalogue, self.column)
        seeds = catalogue.rows(call.seeds)
        found = [column.at(row) for row in seeds[seeds >= 0].tolist()]
        values = [v for each in found for v in (each if isinstance(each, tuple) else (each,))]
        told = [value for value in values if value is not None]
        return _three(_matching(column, rows, self.column, told), column.known[rows])


@dataclass(frozen=True)
class NotOwned(_Suppression):
    """Keeps out what the user has."""

    id: str = "owned"
    reason: str = "owned already"

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        return listed(rows, call.owned, catalogue).astype(np.int8)


@dataclass(frozen=True)
class NotRecently(_Suppression):
    """Keeps out what the user did something with lately: bought, returned, finished.

    Parameters
    ----------
    did
        The kind of the interaction.
    days
        For how long; at exactly so many days an item may come back.
    """

    did: str = "purchase"
    days: float = 30.0
    id: str = "recent_purchase"
    reason: str = "bought recently"

    def __post_init__(self) -> None:
        if not 0 < self.days < math.inf or not self.did:
            raise RecsysError(
                f"rule {self.id}: did is {self.did!r} and days {self.days!r}. Name a kind of "
                "interaction and give days above 0."
            )

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        since = call.now - int(self.days * MICROSECONDS_PER_DAY)
        done = [i.item_id for i in call.history if i.kind == self.did and i.at > since]
        return listed(rows, done, catalogue).astype(np.int8)


@dataclass(frozen=True)
class DueAgain(_Hard):
    """Keeps what the user bought and has used up by now, for sources that propose other things.

    Parameters
    ----------
    column
        How many days an item lasts.
    early_days
        How many days before it runs out it is due.
    """

    column: str = "replenish_days"
    did: str = "purchase"
    early_days: float = 0.0
    id: str = "due"
    reason: str = "not due yet"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.column})

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        column = numbers(catalogue, self.column)
        last = {i.item_id: i.at for i in call.history if i.kind == self.did}
        found = np.full(len(rows), FALSE)
        position = np.flatnonzero(listed(rows, last, catalogue))
        for at, row in zip(position.tolist(), rows[position].tolist(), strict=True):
            if not column.known[row]:
                found[at] = UNKNOWN
                continue
            lasts = (float(column.values[row]) - self.early_days) * MICROSECONDS_PER_DAY
            found[at] = last[catalogue.ids[row]] + lasts <= call.now
        return found


@dataclass(frozen=True)
class WithinCap(_Hard):
    """Keeps what has not been given out as often as it may be: an inventory cap.

    Parameters
    ----------
    used, cap
        The columns that count how often, and say how often at most.
    """

    used: str
    cap: str
    id: str = "inventory_cap"
    reason: str = "its inventory is used up"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.used, self.cap})

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:  # noqa: ARG002  # as all rules
        """See `ItemRule.verdicts`."""
        used, cap = numbers(catalogue, self.used), numbers(catalogue, self.cap)
        return _three(used.values[rows] < cap.values[rows], used.known[rows] & cap.known[rows])


@dataclass(frozen=True)
class Except:
    """A hard rule that does not concern items with some values: stock is nothing to an article.

    Parameters
    ----------
    rule
        The rule for all others.
    column, values
        The attribute, such as the item's type, and its values that are left alone.
    """

    rule: ItemRule
    column: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rule.kind not in HARD or not self.values:
            raise RecsysError(
                f"rule {self.rule.id}: only a hard rule can be excepted from, for some values."
            )

    @property
    def id(self) -> str:
        return self.rule.id

    @property
    def kind(self) -> RuleKind:
        return self.rule.kind

    @property
    def reason(self) -> str:
        return self.rule.reason

    @property
    def amount(self) -> float:
        return 0.0

    @property
    def reads(self) -> frozenset[str]:
        return self.rule.reads | {self.column}

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        found = self.rule.verdicts(catalogue, rows, call).copy()
        column = column_of(catalogue, self.column)
        free = column.known[rows] & _matching(column, rows, self.column, self.values)
        found[free] = TRUE if self.kind == "require" else FALSE
        return found


HARD: Sequence[RuleKind] = ("require", "suppress")


# What moves items up or down -------------------------------------------------------------------


@dataclass(frozen=True)
class Having:
    """Moves items that have one of some values: up as ``boost``, down as ``bury``.

    Parameters
    ----------
    filters
        As those of `Matches`.
    amount
        Of the range of the candidates' scores, above 0.
    """

    filters: Mapping[str, Any]
    amount: float
    id: str
    kind: RuleKind = "boost"
    reason: str = ""

    @property
    def reads(self) -> frozenset[str]:
        return frozenset(self.filters)

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """See `ItemRule.verdicts`."""
        return Matches(self.filters).verdicts(catalogue, rows, call)


@dataclass(frozen=True)
class PerUnit:
    """So much for every so much of a number: of margin, say.

    Parameters
    ----------
    amount
        Added where the number is ``unit`` or more, taken away where it is −``unit`` or less, and
        in proportion between them; below 0 it works the other way.
    """

    column: str
    amount: float
    unit: float
    id: str
    reason: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.amount) or not 0 < self.unit < math.inf:
            raise RecsysError(
                f"rule {self.id}: amount is {self.amount!r} and unit {self.unit!r}. Give a finite "
                "amount and a unit above 0."
            )

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.column})

    def amounts(self, catalogue: Catalogue, rows: Rows, call: Call) -> FloatArray:  # noqa: ARG002  # as all grades
        """See `Grade.amounts`."""
        column = numbers(catalogue, self.column)
        share = np.clip(column.values[rows] / self.unit, -1.0, 1.0)
        return np.where(column.known[rows], self.amount * share, 0.0)


@dataclass(frozen=True)
class Newer:
    """More for what is new: ``amount`` on the day, half of it after each half-life."""

    amount: float
    half_life_days: float = 30.0
    column: str = "published"
    id: str = "freshness"
    reason: str = "new"

    def __post_init__(self) -> None:
        if not math.isfinite(self.amount) or not 0 < self.half_life_days < math.inf:
            raise RecsysError(
                f"rule {self.id}: amount is {self.amount!r} and half_life_days "
                f"{self.half_life_days!r}. Give a finite amount and days above 0."
            )

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.column})

    def amounts(self, catalogue: Catalogue, rows: Rows, call: Call) -> FloatArray:
        """See `Grade.amounts`."""
        column = column_of(catalogue, self.column)
        if column.kind != "time":
            raise RecsysError(f"{self.column} is a {column.kind} and must be a time. Name another.")
        days = np.maximum(call.now - column.values[rows], 0) / MICROSECONDS_PER_DAY
        return np.where(column.known[rows], self.amount * 0.5 ** (days / self.half_life_days), 0.0)
