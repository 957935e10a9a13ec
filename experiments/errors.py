"""The one error that this package raises."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One thing wrong with a design: ``path`` into it, the value there, what to do about it."""

    path: str
    value: object
    message: str

    def __str__(self) -> str:
        return f"`{self.path}` is {self.value!r}: {self.message}"


class ExperimentError(ValueError):
    """A design or selector that cannot stand; ``faults`` lists everything wrong with it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
