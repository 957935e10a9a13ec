"""Reading YAML files: a workspace's as one merged mapping, and where in which each key stands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from engine.errors import Fault

SECTIONS = (
    *("surfaces", "policies", "holdouts", "layers", "time_zone"),
    *("items", "slates", "recommenders"),
)
LARGEST_FILE_BYTES = 4_000_000
Path_ = tuple[str | int, ...]


@dataclass(slots=True)
class Source:
    """The merged content of a workspace's files, and where each part of it was written."""

    content: dict[str, Any] = field(default_factory=dict)
    places: dict[Path_, tuple[Path, int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    kept: dict[Path_, list[int]] = field(default_factory=dict)
    """Of each list that lost faulty entries: where those that remain were written."""

    def fault(self, path: Path_, message: str, value: object = None) -> None:
        """Note a fault at a path, with the file and line of the nearest part that was written."""
        path = self.written(path)
        file, line = self.place(path)
        self.faults.append(Fault(dotted(path), shown(value), message, file, line))

    def written(self, path: Path_) -> Path_:
        """Where a path into what remains of the content was written."""
        found: Path_ = ()
        for part in path:
            kept = self.kept.get(found)
            found = (*found, kept[part] if kept and isinstance(part, int) else part)
        return found

    def forget(self, paths: Sequence[Path_]) -> None:
        """Note which list entries are left out of what remains of the content."""
        left_out = [(self.written(path[:-1]), self.written(path)[-1]) for path in paths if path]
        for holder, entry in left_out:
            if isinstance(entry, int):
                entries = self.kept.setdefault(holder, list(range(self._length(holder))))
                self.kept[holder] = [e for e in entries if e != entry]

    def _length(self, path: Path_) -> int:
        node: Any = self.content
        for part in path:
            node = node[part]
        return len(node)

    def place(self, path: Path_) -> tuple[Path | None, int | None]:
        """File and line (from 1) of a path, or of its nearest written ancestor."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return None, None


def dotted(path: Path_) -> str:
    """A path as its reader writes it: ``surfaces.home.slots.layout.rules[0].when``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: object) -> str:
    """A value for a message: as JSON, shortened; empty for no value."""
    if value is None:
        return ""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def canonical(content: Mapping[str, Any]) -> bytes:
    """The one JSON text of a content: keys sorted, no white space."""
    return msgspec.json.encode(content, order="deterministic")


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON: the name of a revision."""
    return hashlib.sha256(canonical(content)).hexdigest()


def written(content: Mapping[str, Any]) -> str:
    """Content as the text of a YAML file."""
    text = StringIO()
    yaml = YAML(typ="rt")
    yaml.default_flow_style = False
    yaml.dump(content, text)
    return text.getvalue()


def read(folder: Path) -> Source:
    """Every ``*.yaml`` and ``*.yml`` below ``folder``, merged; faults are noted, never raised."""
    source = Source()
    if not folder.is_dir():
        source.faults.append(
            Fault("workspace", shown(str(folder)), "is not a folder; name one with YAML files")
        )
        return source
    files = sorted(p for p in folder.rglob("*") if p.suffix in {".yaml", ".yml"} and p.is_file())
    if not files:
        source.faults.append(
            Fault("workspace", shown(str(folder)), "holds no *.yaml file; add one with `surfaces:`")
        )
    for file in files:
        name = file.relative_to(folder)
        document = _document(source, file, name, "workspace", SECTIONS)
        if document is not None:
            _merge(source, document, (), source.content, name)
    return source


class _TimesAsText(RoundTripConstructor):
    """Reads an unquoted time as the text that was written."""


_TimesAsText.add_constructor("tag:yaml.org,2002:timestamp", RoundTripConstructor.construct_scalar)


def read_file(file: Path, what: str, keys: Sequence[str]) -> Source:
    """One YAML file, ``what`` it is and its keys; faults are noted, never raised.

    An unquoted time is read as its text.
    """
    source = Source(places={(): (file, 1)})
    document = _document(source, file, file, what, keys, _TimesAsText)
    if document is not None:
        source.content = _plain(source, document, (), file)
    return source


def _document(
    source: Source,
    file: Path,
    name: Path,
    what: str,
    keys: Sequence[str],
    constructor: type[RoundTripConstructor] = RoundTripConstructor,
) -> CommentedMap | None:
    """The mapping that a file holds; None if it is empty, or faulty, which is noted."""

    def refuse(message: str, line: int = 1) -> None:
        source.faults.append(Fault(what, shown(str(name)), message, name, line))

    yaml = YAML(typ="rt")
    yaml.version = (1, 2)
    yaml.Constructor = constructor
    try:
        if file.stat().st_size > LARGEST_FILE_BYTES:
            refuse(f"is larger than {LARGEST_FILE_BYTES:,} bytes; split it")
            return None
        document = yaml.load(file.read_text(encoding="utf-8"))
    except OSError as error:
        refuse(f"cannot be read: {error.strerror}; name a YAML file that can")
        return None
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        message = f"is not YAML 1.2: {getattr(error, 'problem', None) or error}"
        refuse(message, mark.line + 1 if mark else 1)
        return None
    if document is None or isinstance(document, CommentedMap):
        return document
    refuse(f"must be a mapping with some of {', '.join(keys)}")
    return None


def _merge(
    source: Source, node: CommentedMap, path: Path_, into: dict[str, Any], file: Path
) -> None:
    for key, value in node.items():
        if not isinstance(key, str):
            message = "is not text; put the key in quotes"
            source.faults.append(
                Fault(dotted((*path, str(key))), shown(key), message, file, _line(node, key))
            )
            continue
        here: Path_ = (*path, key)
        spread = len(here) == 1 or (len(here) == 2 and here[0] == "layers")
        if spread and isinstance(value, CommentedMap) and isinstance(into.get(key, {}), dict):
            source.places.setdefault(here, (file, _line(node, key)))
            _merge(source, value, here, into.setdefault(key, {}), file)
        elif key in into:
            before, line = source.place(here)
            source.faults.append(
                Fault(
                    dotted(here),
                    "",
                    f"is declared twice, first at {before}:{line}; keep one of them",
                    file,
                    _line(node, key),
                )
            )
        else:
            source.places[here] = (file, _line(node, key))
            into[key] = _plain(source, value, here, file)


def _plain(source: Source, node: object, path: Path_, file: Path) -> Any:
    """The node as plain JSON data, each part's line noted on the way."""
    if isinstance(node, CommentedMap):
        result = {}
        for key, value in node.items():
            name = str(key) if _encodable(str(key)) else ascii(key)
            here = (*path, name)
            source.places[here] = (file, _line(node, key))
            if name != key:
                source.fault(here, "is not text; put the key in quotes", name)
            result[name] = _plain(source, value, here, file)
        return result
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            source.places[(*path, index)] = (file, node.lc.item(index)[0] + 1)
        return [_plain(source, value, (*path, index), file) for index, value in enumerate(node)]
    return _scalar(source, node, path)


def _scalar(source: Source, node: object, path: Path_) -> Any:
    """The node as JSON has it; for one that JSON cannot hold a fault, told once, and a stand-in."""
    match node:
        case None | bool():
            return node
        case ScalarBoolean():
            return bool(node)
        case str() if _encodable(node):
            return str(node)
        case str():
            source.fault(path, "holds half of a surrogate pair, which is no text", ascii(node))
            return ascii(node)
        case int() if -(2**63) <= node < 2**63:
            return int(node)
        case int():
            source.fault(path, "is beyond 64 bits; put it in quotes", str(node))
            return 0
        case float() if isfinite(node):
            return float(node)
        case float():
            source.fault(path, "must be finite", str(node))
            return 0.0
    source.fault(path, "is a YAML type that JSON lacks; put it in quotes", str(node))
    return str(node)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _line(node: CommentedMap, key: object) -> int:
    # A key that a merge (`<<`) brought in has no place of its own.
    written = node.lc.data or {}
    return int(written[key][0] if key in written else node.lc.line) + 1


def without(content: Mapping[str, Any], paths: Sequence[Path_]) -> dict[str, Any]:
    """The content less the parts at ``paths``; what holds them is kept."""
    doomed = set(paths)

    def kept(node: object, path: Path_) -> Any:
        if isinstance(node, Mapping):
            return {k: kept(v, (*path, k)) for k, v in node.items() if (*path, k) not in doomed}
        if isinstance(node, list):
            return [kept(v, p) for p, v in _indexed(node, path) if p not in doomed]
        return node

    result: dict[str, Any] = kept(content, ())
    return result


def _indexed(nodes: list[Any], path: Path_) -> Iterator[tuple[Path_, Any]]:
    return (((*path, index), node) for index, node in enumerate(nodes))
