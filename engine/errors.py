"""The one hierarchy of errors that a caller of the engine catches.

    EngineError
    ├── ConfigurationError     a workspace with faults; ``faults`` lists them all
    ├── RuleError              a rule that does not parse; ``position`` says where
    ├── RequestError           a request that cannot be answered; ``field`` names the reason
    │   ├── NotFoundError      an unknown surface, decision, policy or snapshot
    │   └── ConflictError      an id reused with other content, a record that cannot be replayed
    ├── StoreError             the database refused, or is locked
    │   └── StoreLostError     the database cannot be reached now; ``unsure`` of what was in flight
    ├── SnapshotError          a snapshot whose bytes do not match their digest
    └── ReportError            a report that the log cannot support

The packages below raise one error of their own each; the engine translates it with
``raise … from``, so that none of them escapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class EngineError(Exception):
    """Root of everything that the engine raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a workspace: where, what, and how to mend it."""

    field: str
    value: str
    message: str
    file: Path | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file and self.line else ""
        value = f" is {self.value}" if self.value else ""
        return f"{place}`{self.field}`{value}: {self.message}"


class ConfigurationError(EngineError):
    """A workspace with faults, all of them at once."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class RuleError(EngineError):
    """A rule whose text does not parse; ``position`` counts characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class RequestError(EngineError):
    """A request that cannot be answered as it stands; ``field`` is a dotted path into it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"`{field}` {message}" if field else message)
        self.field = field
        self.message = message


class NotFoundError(RequestError):
    """The request names something that does not exist here."""


class ConflictError(RequestError):
    """The request contradicts what is already stored."""


class StoreError(EngineError):
    """The database cannot do what was asked; nothing of the request was stored."""


class StoreLostError(StoreError):
    """The database cannot be reached, whatever it is asked; nothing is known to be stored.

    ``unsure`` says that the connection broke amid a transaction, which may yet have been committed.
    """

    def __init__(self, message: str, *, unsure: bool) -> None:
        super().__init__(message)
        self.unsure = unsure


class SnapshotError(EngineError):
    """A snapshot is missing, or its bytes do not match the digest it was stored under."""


class ReportError(EngineError):
    """The log cannot support the report that was asked for, and why."""
