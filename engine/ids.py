"""Identifiers and time as the edge makes them; everything below receives them as values."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from struct import Struct

Clock = Callable[[], int]
IdSource = Callable[[int], str]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BITS = Struct("Q")
_READ_BYTES = 512 * _BITS.size


def system_clock() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


class SteadyClock:
    """A clock that never goes back: while the one beneath does, it stands still."""

    def __init__(self, clock: Clock, not_before: int = 0) -> None:
        self._clock = clock
        self._last = not_before

    def __call__(self) -> int:
        """Microseconds since 1970-01-01 UTC, never fewer than it said before."""
        self._last = max(self._last, self._clock())
        return self._last

    def advance(self, beyond: int) -> None:
        """Say nothing at or before ``beyond`` any more."""
        self._last = max(self._last, beyond + 1)


def uuid7(now_us: int, random_bits: int) -> str:
    """A UUID of version 7 (RFC 9562 §5.7): the millisecond of ``now_us``, then 74 random bits.

    The 12 bits of ``rand_a`` hold the fraction of the millisecond (method 3 of §6.2), so that ids
    of one process sort by time to about a quarter of a microsecond's step.
    """
    milliseconds, rest_us = divmod(now_us, 1_000)
    fraction = rest_us * 4_096 // 1_000
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | fraction << 64
    value |= 0b10 << 62 | random_bits & (1 << 62) - 1
    # As str(UUID(int=value)) is, at a third of its time.
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def random_uuid7(now_us: int) -> str:
    """A UUIDv7 with bits of the operating system's randomness."""
    return uuid7(now_us, secrets.randbits(62))


def random_token() -> str:
    """32 characters of the operating system's randomness."""
    return secrets.token_hex(16)


class RandomIds:
    """Makes UUIDv7s with random bits that are read from the operating system for many at once.

    Each such reading lets go of the interpreter's lock; beside the committer's thread that costs a
    decision more than its id does.
    """

    def __init__(self) -> None:
        self._bits: Iterator[int] = iter(())

    def __call__(self, now_us: int) -> str:
        """A UUIDv7 of this moment."""
        bits = next(self._bits, None)
        if bits is None:
            self._bits = (bits for (bits,) in _BITS.iter_unpack(secrets.token_bytes(_READ_BYTES)))
            bits = next(self._bits)
        return uuid7(now_us, bits)


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC of a moment with a time zone, exactly.

    Raises
    ------
    ValueError
        If the moment has no zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f'"{moment.isoformat()}" has no time zone; add one, as +00:00 or Z')
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(microseconds: int) -> datetime:
    """The moment in UTC, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)


def rfc3339(microseconds: int) -> str:
    """The moment as RFC 3339 in UTC, with microseconds: ``2026-03-04T20:47:00.000000Z``."""
    return to_datetime(microseconds).isoformat(timespec="microseconds").replace("+00:00", "Z")
