"""The one source of randomness: a hash that puts each unit into [0, 1), the same everywhere.

Any warehouse can recompute a bucket; ``docs/experiments.md`` has the SQL, ``tests/vectors/`` the
vectors that hold every implementation to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5
from typing import Final

from experiments.errors import ExperimentError, Fault

UNITS_SALT: Final = "units"
"""The salt under which reports select units; nothing else may be decided under it."""


def bucket(salt: str, unit: str) -> float:
    """Where ``unit`` falls in [0, 1) under ``salt``: uniform, and independent between salts.

        MD5(salt ":" unit), UTF-8; its first 64 bits, big-endian; the top 53 of them / 2^53

    53 bits are what a float64 holds exactly: dividing all 64 by 2^64 would round the largest to 1.
    A salt has no ":", so that no two pairs are hashed alike.

    >>> bucket("layer.homepage", "u:ada")
    0.6905532019451255

    References
    ----------
    RFC 1321 for MD5, used for spread and not for secrecy.
    """
    return _fraction(md5(f"{salt}:{unit}".encode(), usedforsecurity=False).digest())


def bucketer(salt: str) -> Callable[[str], float]:
    """``bucket`` under one salt, which is hashed once: a sixth faster."""
    salted = md5(f"{salt}:".encode(), usedforsecurity=False)

    def of(unit: str) -> float:
        digest = salted.copy()
        digest.update(unit.encode())
        return _fraction(digest.digest())

    return of


def _fraction(digest: bytes) -> float:
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


@dataclass(frozen=True, slots=True)
class UnitRange:
    """The units whose bucket lies in [low, high): a stable random share of all units."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise _bad_range(f"{self.low}:{self.high}")

    def contains(self, unit: str, salt: str = UNITS_SALT) -> bool:
        """Whether ``unit`` is one of them."""
        return self.low <= bucket(salt, unit) < self.high


def parse_units(text: str) -> UnitRange:
    """Reads the selector ``low:high``; raises ExperimentError if it is none."""
    low, _, high = text.partition(":")
    try:
        bounds = float(low), float(high)
    except ValueError:
        raise _bad_range(text) from None
    return UnitRange(*bounds)


def in_units(text: str, unit: str, salt: str = UNITS_SALT) -> bool:
    """Whether the selector ``text`` takes ``unit``; raises ExperimentError if it is none."""
    return parse_units(text).contains(unit, salt)


def _bad_range(text: str) -> ExperimentError:
    message = "write low:high with 0 ≤ low < high ≤ 1, as in 0.5:1"
    return ExperimentError((Fault("units", text, message),))
