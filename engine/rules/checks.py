"""Refuses, when a rule is read, the clauses that the declared types of attributes already decide.

An ordering of a string and a number has no value whatever the attribute holds, and their equality
is always false: both are mistakes.
"""

from __future__ import annotations

from engine.errors import RuleError
from engine.rules.tree import ListLiteral, Operand, Path
from engine.rules.values import ORDERED, Kind


def check_comparison(operator: str, left: Operand, right: Operand, position: int) -> None:
    """Raises RuleError unless ``left operator right`` can be true for some values."""
    kinds = {left.kind, right.kind}
    if Kind.NULL in kinds and len(kinds) == 2:
        path = left if isinstance(left, Path) else right
        repair = (
            f"write has({path.name}) or !has({path.name})"
            if isinstance(path, Path)
            else "remove it"
        )
        raise RuleError(
            f'"{operator}" at character {position} compares with null, which a declared attribute '
            f"never is: {repair}",
            position,
        )
    if len(kinds) == 2:
        raise RuleError(
            f'"{operator}" at character {position} compares {_describe(left)} with '
            f"{_describe(right)}, which never holds: compare values of one type",
            position,
        )
    if operator not in {"==", "!="} and left.kind not in ORDERED:
        raise RuleError(
            f'"{operator}" at character {position} orders {_describe(left)}, which has no order: '
            'use "==", "!=" or "in"',
            position,
        )


def check_member(item: Operand, items: Operand, position: int) -> None:
    """Raises RuleError unless ``item in items`` can be true for some values."""
    if items.kind is not Kind.LIST:
        raise RuleError(
            f'"in" at character {position} looks into {_describe(items)}: '
            "its right side is a list, as in [1, 2], or a list attribute",
            position,
        )
    if isinstance(items, ListLiteral):
        for element in items.elements:
            if element.kind is not item.kind:
                raise RuleError(
                    f'"in" at character {position} looks for {_describe(item)}, which never equals '
                    f"the {element.kind.value} at character {element.start}: remove that element "
                    "or mend its type",
                    element.start,
                )
    elif item.kind is not Kind.STRING:
        raise RuleError(
            f'"in" at character {position} looks for {_describe(item)} in {_describe(items)}, '
            "whose elements are strings: compare a string",
            position,
        )


def check_condition(operand: Operand) -> None:
    """Raises RuleError unless ``operand`` alone can be a condition."""
    if operand.kind is Kind.BOOLEAN:
        return
    raise RuleError(
        f"{_describe(operand)} at character {operand.start} is no condition: compare it, "
        'as in "x > 0" or "x in [1, 2]"',
        operand.start,
    )


def _describe(operand: Operand) -> str:
    if isinstance(operand, Path):
        return f"`{operand.name}` (a {operand.kind})"
    return f"a {operand.kind}"
