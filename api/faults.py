"""What is wrong with a body that msgspec refused: the field, its value, and how to mend it.

msgspec says where it stopped and what it expected, not what it found. So a refused body is read
once more, by a parser that lets nearly everything pass, and the value is looked up there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from api.problems import FieldError, shortened, shown

_LONGEST_NAME = 64
_LONGEST_PATH = 256
_PLACE = re.compile(r"(?P<message>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_LACKS = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `([\w |]+)`, got .*")
_OUT_OF_RANGE = "Number out of range"
_NUMBER = "a finite number of at most 64 bits"
_REPAIRS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "array": "a list",
    "object": "an object",
}
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class _Odd:
    """A number as it was written, which JSON may hold and a decision's record may not."""

    text: str


def body_fault(body: bytes, model: type[msgspec.Struct], error: Exception) -> FieldError:
    """What is wrong with a body in which msgspec, decoding it as the model, raised the error."""
    try:
        content = json.loads(
            body.decode(), parse_float=_number, parse_int=_integer, parse_constant=_Odd
        )
    except UnicodeDecodeError as fault:
        return FieldError("", f"is not UTF-8 at byte {fault.start}; encode it so")
    except RecursionError:
        return FieldError("", "cannot be read; give JSON that is not nested deeply")
    except ValueError as fault:
        return FieldError("", f"cannot be read: {fault}; give JSON")
    if isinstance(error, msgspec.ValidationError):
        found = _mismatch(content, model, str(error))
        if found is not None:
            return found
    said = f"cannot be read: {error}; give JSON that is not nested deeply"
    return next(_unreadable(content), None) or FieldError("", said)


def _mismatch(content: object, model: type[msgspec.Struct], text: str) -> FieldError | None:
    """The fault of a value that is not of its field's type; None where it cannot be found."""
    place = _PLACE.fullmatch(text)
    message, path = (place["message"], place["path"] or "") if place else (text, "")
    if lacks := _LACKS.fullmatch(message):
        return FieldError(_joined(path, f".{lacks[1]}"), "is missing; add it")
    if unknown := _UNKNOWN.fullmatch(message):
        name = shortened(unknown[1], _LONGEST_NAME)
        return FieldError(_joined(path, f".{name}"), _unknown(unknown[1], model))
    value = _at(content, path)
    hint = get_type_hints(model).get(path.rpartition(".")[2])
    expected = _EXPECTED.fullmatch(message)
    wanted = [kind for kind in expected[1].split(" | ") if kind != "null"] if expected else []
    if get_origin(hint) is Literal:
        repair = " or ".join(f'"{known}"' for known in get_args(hint))
    elif wanted and all(kind in _REPAIRS for kind in wanted):
        repair = " or ".join(_REPAIRS[kind] for kind in wanted)
    elif message == _OUT_OF_RANGE and isinstance(value, _Odd | int):
        repair = _NUMBER
    else:
        return None
    said = f"give {repair}" if value is _ABSENT else f"is {_shown(value)}; give {repair}"
    return FieldError(path, said)


def _unknown(name: str, model: type[msgspec.Struct]) -> str:
    known = sorted(model.__struct_fields__)
    near = get_close_matches(name[:_LONGEST_NAME], known, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"is unknown; {hint}known: " + ", ".join(f'"{field}"' for field in known)


def _at(content: Any, path: str) -> object:
    """The value at a path such as ``slots[1]``."""
    for name, index in _STEP.findall(path):
        try:
            content = content[int(index) if index else name]
        except (LookupError, TypeError):
            return _ABSENT
    return content


def _unreadable(content: object) -> Iterator[FieldError]:
    """The values that no record can hold, in their order: odd numbers, halves of characters."""
    # A stack, since what is nested too deeply for recursion comes here as well.
    waiting = [("", content)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _Odd):
            yield FieldError(path, f"is {_shown(value)}; give {_NUMBER}")
        elif isinstance(value, str) and not _is_whole(value):
            said = f"is {_shown(value)}, which holds half of a surrogate pair; send the whole"
            yield FieldError(path, said)
        elif isinstance(value, list):
            odd = [(_joined(path, f"[{i}]"), v) for i, v in enumerate(value) if _may_be_odd(v)]
            waiting += reversed(odd)
        elif isinstance(value, Mapping):
            if not all(map(_is_whole, value)):
                said = "has a name that holds half of a surrogate pair; send the whole"
                yield FieldError(path, said)
            odd = [(_joined(path, f".{k}"), v) for k, v in value.items() if _may_be_odd(v)]
            waiting += reversed(odd)


def _may_be_odd(value: object) -> bool:
    """Whether to look closer: of a large body's values, paths are made for few."""
    if isinstance(value, str):
        return not _is_whole(value)
    return isinstance(value, _Odd) or (isinstance(value, list | dict) and bool(value))


def _joined(path: str, step: str) -> str:
    return shortened((path + step[: _LONGEST_NAME + 1]).removeprefix("."), _LONGEST_PATH)


def _is_whole(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(text: str) -> float | _Odd:
    number = float(text)
    return number if isfinite(number) else _Odd(text)


def _integer(text: str) -> int | _Odd:
    try:
        return int(text)
    except ValueError:
        # Python reads no more digits than some thousands.
        return _Odd(text)


def _shown(value: object) -> str:
    return shortened(value.text) if isinstance(value, _Odd) else shown(value)
