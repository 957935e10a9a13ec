"""What differs between the databases that a log can stand in; all else of the store is the same."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from engine.errors import StoreError

ADDRESSES = "sqlite:///path/to/file.db or postgresql://user@host/database"


class Backend(Protocol):
    """One database, opened by this process."""

    name: str
    """The address as people may see it, without a password."""
    shared: bool
    """Whether several processes may write at the same time."""
    settle_after_us: int
    """How long after its stamp something may still be stored by another process."""
    longest_s: float | None
    """Seconds after which a call counts as lost; None where the database is in this process."""
    engine: Engine

    def begin_migration(self, connection: Connection) -> None:
        """Begin the transaction of a migration, so that it is whole and alone."""

    def lost(self, error: Exception) -> bool:
        """Whether an error says that the database cannot be used now, whatever it is asked."""

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the database, where that is ours to do."""

    def clear_files(self) -> bool:
        """Leave no byte of what was erased in files of ours; False while a reader is there."""

    def cut(self) -> None:
        """Break the connections in use: whoever waits for a silent database waits no more."""

    def lead(self) -> bool:
        """Take or keep the one learner's place; whether this process has it."""

    def close(self) -> None:
        """Release connections, the place and the lock."""


def parse_address(url: str) -> URL:
    """The parts of a database's address.

    Raises
    ------
    StoreError
        If it is none of ours; the message shows no password.
    """
    try:
        address = make_url(url)
    except (ArgumentError, ValueError) as error:
        # What does not parse may hold a password anywhere.
        raise StoreError(f"the database's address cannot be read; write {ADDRESSES}") from error
    ours = address.drivername in {"sqlite", "postgresql"}
    if not ours or not address.database or address.database == ":memory:":
        raise StoreError(
            f'database "{shown(address)}" is none that a log can stand in; write {ADDRESSES}'
        )
    return address


def shown(address: URL) -> str:
    """An address as people may see it: a password may stand before the host or in the query."""
    return address.set(query={}).render_as_string()


def said(error: Exception) -> str:
    """What the database said, without the statement and its values, which may be personal."""
    original = getattr(error, "orig", None)
    if original is None:
        return type(error).__name__
    # PostgreSQL names values in the details of its message.
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    return str(primary or original).strip()
