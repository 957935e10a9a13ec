"""Validating a content's shape: every fault at once, what is sound kept for later checks."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.workspace.schema import WorkspacePart
from engine.workspace.source import Path_, Source, without

_ID_REPAIR = "must be 1 to 64 letters, digits, _ or -; rename it"
_MOST_ROUNDS = 12


def validated(source: Source) -> WorkspacePart | None:
    """The sound part of a source's content; each fault of the rest is noted in the source.

    A faulty part is left out and the rest validated again, so that one misspelt key does not hide
    what is wrong elsewhere. None if nothing sound remains.
    """
    content: Mapping[str, Any] = source.content
    told: set[Path_] = set()
    for _ in range(_MOST_ROUNDS):
        try:
            return WorkspacePart.model_validate(content)
        except ValidationError as error:
            doomed: list[Path_] = []
            for detail in error.errors(include_url=False):
                path, cut = _place(detail, content)
                if path not in told and not any(path[: len(t)] == t for t in told):
                    told.add(path)
                    source.fault(path, _message(detail, path), _value(content, path))
                doomed.append(cut)
        if () in doomed:
            return None
        content = without(content, doomed)
    return None


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


def _message(detail: ErrorDetails, path: Path_) -> str:
    match detail["type"]:
        case "missing":
            return "is required; add it"
        case "extra_forbidden":
            return _unknown_key(path)
        case "string_pattern_mismatch":
            return _ID_REPAIR
        case "value_error":
            return str(detail["ctx"]["error"])
        case "literal_error":
            return f"must be one of {detail['ctx']['expected']}"
        case "too_short":
            return "is empty; add at least one entry"
        case _:
            message = detail["msg"]
            return message[:1].lower() + message[1:]


def _unknown_key(path: Path_) -> str:
    known = sorted(_part_at(path[:-1]).model_fields)
    near = get_close_matches(str(path[-1]), known, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"is not a known key; {hint}Known: {', '.join(known)}"


def _part_at(path: Path_) -> type[BaseModel]:
    """The model that describes the part at ``path``."""
    kind: Any = WorkspacePart
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:
            kind = get_args(kind)[-1]
        kind = _innermost(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else WorkspacePart


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
