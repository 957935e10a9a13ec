"""Validating a content's shape: every fault at once, what is sound kept for later checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.workspace.schema import NAME_PATTERN, WorkspacePart
from engine.workspace.source import Path_, Source, without

_ID_REPAIR = "must be 1 to 64 letters, digits, _ or -; rename it"
_NAME_REPAIR = (
    "must be 1 to 64 letters, digits or _, the first no digit, as rules read it; rename it"
)
_MOST_ROUNDS = 12
_STAND_INS: Mapping[str, object] = {
    "direction": "up",
    "owner": "unknown",
    "reason": "unknown",
    "share": 0.0,
    "value": None,
}
"""For required keys that no later check reads: what lacks one is checked on as if it had it."""

Part = TypeVar("Part", bound=BaseModel)


def checked(source: Source, model: type[Part]) -> Part | None:
    """A source's content as a model has it; None where it has faults, each noted in the source."""
    try:
        return model.model_validate(source.content)
    except ValidationError as error:
        told: set[Path_] = set()
        for detail in error.errors(include_url=False):
            path, _ = _place(detail, source.content)
            if path not in told:
                told.add(path)
                source.fault(path, _message(detail, path, model), _value(source.content, path))
        return None


def validated(source: Source) -> WorkspacePart | None:
    """The sound part of a source's content; each fault of the rest is noted in the source.

    A faulty part is left out, or has a stand-in for what it lacks, and the rest is validated again,
    so that one misspelt key does not hide what is wrong elsewhere. None if nothing sound remains.
    """
    content: Mapping[str, Any] = source.content
    told: set[Path_] = set()
    for _ in range(_MOST_ROUNDS):
        try:
            return WorkspacePart.model_validate(content)
        except ValidationError as error:
            doomed: list[Path_] = []
            lacking: list[Path_] = []
            for detail in error.errors(include_url=False):
                path, cut = _place(detail, content)
                written = source.written(path)
                if not _is_told(written, told):
                    told.add(written)
                    source.fault(path, _message(detail, path, WorkspacePart), _value(content, path))
                if detail["type"] == "missing" and path[-1] in _STAND_INS:
                    lacking.append(path)
                else:
                    doomed.append(cut)
        if () in doomed:
            return None
        source.forget(doomed)
        content = without(_completed(content, lacking), doomed)
    return None


def _is_told(path: Path_, told: set[Path_]) -> bool:
    """Whether a fault of the part or of what it held was told before.

    What held only faulty parts is empty without them, which is no fault of its own.
    """
    return any(t[: len(path)] == path for t in told)


def _completed(content: Mapping[str, Any], lacking: Sequence[Path_]) -> dict[str, Any]:
    """A copy of the content with a stand-in at each path."""
    completed = without(content, ())
    for path in lacking:
        node: Any = completed
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = _STAND_INS[str(path[-1])]
    return completed


def _place(detail: ErrorDetails, content: Mapping[str, Any]) -> tuple[Path_, Path_]:
    """Where a fault is told, and the part to leave out for it."""
    found: list[str | int] = []
    node: Any = content
    for part in detail["loc"]:
        if not _holds(node, part):
            break
        node = node[part]
        found.append(part)
    path = tuple(found)
    if detail["type"] == "missing":
        return (*path, detail["loc"][-1]), path
    return path, path


def _holds(node: object, part: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, Mapping) and part in node


def _message(detail: ErrorDetails, path: Path_, model: type[BaseModel]) -> str:
    match detail["type"]:
        case "missing":
            return "is required; add it"
        case "extra_forbidden":
            return _unknown_key(path, model)
        case "string_pattern_mismatch":
            return _NAME_REPAIR if detail["ctx"]["pattern"] == NAME_PATTERN else _ID_REPAIR
        case "value_error":
            return str(detail["ctx"]["error"])
        case "literal_error":
            return f"must be one of {detail['ctx']['expected']}"
        case "too_short" if detail["ctx"]["actual_length"] == 0:
            return "is empty; add at least one entry"
        case _:
            message = detail["msg"]
            return message[:1].lower() + message[1:]


def _unknown_key(path: Path_, model: type[BaseModel]) -> str:
    known = sorted(_part_at(path[:-1], model).model_fields)
    near = get_close_matches(str(path[-1]), known, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"is not a known key; {hint}Known: {', '.join(known)}"


def _part_at(path: Path_, model: type[BaseModel]) -> type[BaseModel]:
    """The model that describes the part at ``path`` of what ``model`` describes."""
    kind: Any = model
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:
            kind = get_args(kind)[-1]
        kind = _innermost(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else model


def _innermost(kind: Any) -> Any:
    """The container or model beneath ``Annotated`` and ``| None``."""
    while True:
        arguments = get_args(kind)
        if not arguments or kind.__class__.__name__ == "GenericAlias":
            return kind
        kind = next((a for a in arguments if a is not type(None)), kind)


def _value(content: Mapping[str, Any], path: Path_) -> object:
    node: Any = content
    for part in path:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return None
    return node
