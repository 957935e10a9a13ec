"""Opening a database: its address, its settings, its lock and its migrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from engine.errors import StoreError
from engine.log import Entry, Result
from engine.store.lock import WriterLock
from engine.store.write import write_entries

HEAD = "0001"
"""The migration that this code reads and writes."""

T = TypeVar("T")


class Store:
    """A database of the log; writing needs the one writer's lock.

    Every method raises StoreError where the database refuses, with nothing of the call stored.
    """

    def __init__(self, url: str, *, writer: str | None = None) -> None:
        """Open ``url``; to write, give a few words that say who does.

        Raises
        ------
        StoreError
            If the address is none of ours, another process writes, or the database is of another
            version.
        """
        self.url = url
        address = address_of(url)
        path = Path(str(address.database))
        self._lock: WriterLock | None = None
        if writer:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = WriterLock(path, writer)
            except OSError as error:
                raise StoreError(
                    f'"{url}" cannot be written: {error.strerror}; give a path that can'
                ) from error
        elif not path.exists():
            raise StoreError(f'"{url}" does not exist; give the database of a server or an import')
        self._engine = _engine(address, writing=writer is not None)
        try:
            self._check_version(migrate=writer is not None)
        except BaseException:
            self.close()
            raise

    @property
    def writable(self) -> bool:
        """Whether this process holds the writer's lock."""
        return self._lock is not None

    def write(self, entries: Sequence[Entry], now_us: int) -> list[Result]:
        """Append the entries in one durable transaction; one result each, in order."""
        if self._lock is None:
            raise StoreError(f'"{self.url}" is open for reading only')
        try:
            with self._engine.begin() as connection:
                return write_entries(connection, entries, now_us)
        except (SQLAlchemyError, OverflowError, UnicodeEncodeError) as error:
            # The driver raises the last two as they are, for values that no column holds.
            if _read_only(error):
                # A connection that met a read-only file stays so; the next is to look again.
                self._engine.dispose()
            raise StoreError(f'"{self.url}" refused a write: {said(error)}') from error

    def read(self, query: Callable[[Connection], T]) -> T:
        """What ``query`` returns, run in one short read transaction."""
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise StoreError(f'"{self.url}" refused a read: {said(error)}') from error

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the database, without waiting for readers."""
        try:
            with self._engine.connect() as connection:
                connection.execute(text("PRAGMA wal_checkpoint(PASSIVE)"))
        except SQLAlchemyError as error:
            raise StoreError(f'"{self.url}" refused a checkpoint: {said(error)}') from error

    def close(self) -> None:
        """Release connections and the lock."""
        self._engine.dispose()
        if self._lock:
            self._lock.release()
            self._lock = None

    def _check_version(self, *, migrate: bool) -> None:
        try:
            with self._engine.connect() as connection:
                version = _version(connection)
        except DatabaseError as error:
            raise StoreError(f'"{self.url}" is no database of ours: {said(error)}') from error
        if version == HEAD:
            return
        if not migrate:
            raise StoreError(
                f'"{self.url}" is of version {version}, this code of {HEAD}; '
                "open it once with a writing command to migrate it"
            )
        from engine.store.migrations import upgrade  # noqa: PLC0415  Alembic is slow to import

        try:
            upgrade(self._engine)
        except LookupError as error:
            raise StoreError(
                f'"{self.url}" is of version {version}, which this code, of {HEAD}, does not know; '
                "use the code that wrote it"
            ) from error
        except SQLAlchemyError as error:
            raise StoreError(
                f'"{self.url}" is no database of ours and cannot become one: {said(error)}'
            ) from error


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def address_of(url: str) -> URL:
    """The address that ``url`` writes; raises StoreError if it is none of a SQLite file."""
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            f'database "{url}" is no address; write sqlite:///path/to/file.db'
        ) from error
    if address.drivername != "sqlite" or not address.database or address.database == ":memory:":
        raise StoreError(
            f'database "{address.render_as_string()}" is not a SQLite file; '
            "write sqlite:///path/to/file.db"
        )
    return address


def _engine(address: URL, *, writing: bool) -> Engine:
    # A reader opens anew each time, so that it never holds a transaction that keeps the
    # write-ahead log from being folded back.
    engine = (
        create_engine(address, connect_args={"check_same_thread": False, "timeout": 30})
        if writing
        else create_engine(address, connect_args={"timeout": 30}, poolclass=NullPool)
    )

    @event.listens_for(engine, "connect")
    def settings(connection: object, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, which SQLAlchemy leaves untyped
        if writing:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA wal_autocheckpoint = 0")
        else:
            cursor.execute("PRAGMA query_only = ON")
        cursor.execute("PRAGMA cache_size = -16000")
        cursor.close()

    return engine


def _read_only(error: Exception) -> bool:
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    return str(name).startswith("SQLITE_READONLY")


def said(error: Exception) -> str:
    """What the database said, without the statement and its values, which may be personal."""
    return str(getattr(error, "orig", None) or type(error).__name__)
