"""Continuous choices: what ``actions: {range: [0, 30], step: 5}`` of a slot stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from engine.workspace.source import Path_, Source

MOST_ACTIONS = 500
_LARGEST = 1_000_000
_KEYS = ("range", "step")


def expand(source: Source) -> None:
    """Put the actions that ranges stand for in their place; a faulty range is noted.

    The number 2.5 becomes the action ``2_5``, whose value is the number and whose feature ``value``
    as well. An action is a mapping, so ``range`` with a list is none of that name.
    """
    for path, slot in _slots(source.content):
        actions = slot.get("actions")
        if isinstance(actions, Mapping) and isinstance(actions.get("range"), list):
            numbers = _numbers(source, (*path, "actions"), actions)
            slot["actions"] = {
                _id(number): {"value": _plain(number), "features": {"value": _plain(number)}}
                for number in numbers
            } or _stand_in(slot, actions["range"])


def _slots(content: Mapping[str, Any]) -> Iterator[tuple[Path_, dict[str, Any]]]:
    for surface, part in _mappings(content.get("surfaces")):
        for slot, slot_part in _mappings(part.get("slots")):
            yield ("surfaces", surface, "slots", slot), slot_part


def _mappings(parts: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(parts, Mapping):
        yield from ((name, part) for name, part in parts.items() if isinstance(part, dict))


def _stand_in(slot: Mapping[str, Any], ends: list[Any]) -> dict[str, Any]:
    """One action in place of a faulty range, so that what else is wrong is told, and no more."""
    low = next((_plain(number) for number in map(_decimal, ends) if number is not None), 0)
    return {str(slot.get("default")): {"value": None, "features": {"value": low}}}


def _numbers(source: Source, path: Path_, actions: Mapping[str, Any]) -> tuple[Decimal, ...]:
    """The numbers from the low end to the high one, as they were written; none if faulty."""
    for key in actions:
        if key not in _KEYS:
            message = "cannot stand beside `range`; write `range` and `step`, or each action"
            source.fault((*path, key), message, actions[key])
            return ()
    ends = [end for end in map(_decimal, actions["range"]) if end is not None]
    if not (len(ends) == len(actions["range"]) == 2 and ends[0] < ends[1]):
        message = f"must be [low, high] with low < high, within ±{_LARGEST:,}"
        source.fault((*path, "range"), message, actions["range"])
        return ()
    low, high = ends
    step = _decimal(actions.get("step"))
    if step is None or step <= 0 or (high - low) % step != 0:
        message = "must lead from the range's low end to its high one in whole steps, as 1 or 0.5"
        source.fault((*path, "step"), message, actions.get("step"))
        return ()
    count = int((high - low) / step) + 1
    if count > MOST_ACTIONS:
        message = f"makes {count:,} actions of the range, and {MOST_ACTIONS} is the most; widen it"
        source.fault((*path, "step"), message, actions["step"])
        return ()
    return tuple(low + at * step for at in range(count))


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = Decimal(str(value))
    # With more digits the name of a number would be no id.
    return number if abs(number) <= _LARGEST and number == round(number, 6) else None


def _plain(number: Decimal) -> int | float:
    return int(number) if number == int(number) else float(number)


def _id(number: Decimal) -> str:
    return f"{number.normalize():f}".replace(".", "_")
