"""A log in a SQLite file: one writing process, a write-ahead log, commits that are on the disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from engine.errors import StoreError
from engine.store.backend import shown
from engine.store.lock import WriterLock

_BUSY_S = 30
_WRITING = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 0",
    # From the first row on: what a page once held would stay in it after an erasure.
    "secure_delete = ON",
)
_READING = ("query_only = ON",)


class SqliteBackend:
    """A file; whoever writes holds the lock beside it."""

    shared = False
    settle_after_us = 0
    longest_s: float | None = None

    def __init__(self, address: URL, writer: str | None) -> None:
        """Open the file; to write, ``writer`` says in a few words who does.

        Raises
        ------
        StoreError
            If another process writes, the file cannot be made, or there is none to read.
        """
        self.name = shown(address)
        path = Path(str(address.database))
        self._lock: WriterLock | None = None
        if writer:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = WriterLock(path, writer)
            except OSError as error:
                raise StoreError(
                    f'"{self.name}" cannot be written: {error.strerror}; give a path that can'
                ) from error
        elif not path.exists():
            raise StoreError(
                f'"{self.name}" does not exist; give the database of a server or an import'
            )
        # A reader opens anew each time, so that it never holds a transaction that keeps the
        # write-ahead log from being folded back.
        self.engine = (
            create_engine(address, connect_args={"check_same_thread": False, "timeout": _BUSY_S})
            if writer
            else create_engine(address, connect_args={"timeout": _BUSY_S}, poolclass=NullPool)
        )
        pragmas = _WRITING if writer else _READING

        @event.listens_for(self.engine, "connect")
        def settings(connection: object, _entry: ConnectionPoolEntry) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, which SQLAlchemy leaves untyped
            for pragma in (*pragmas, "cache_size = -16000"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    def begin_migration(self, connection: Connection) -> None:
        # Python's driver begins a transaction before rows are changed, but not before tables are:
        # a process killed between two of them would leave a half-made database.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def lost(self, error: Exception) -> bool:
        name = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
        if str(name).startswith("SQLITE_READONLY"):
            # A connection that met a read-only file stays so; the next is to look again.
            self.engine.dispose()
        return False

    def checkpoint(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(text("PRAGMA wal_checkpoint(PASSIVE)"))

    def clear_files(self) -> bool:
        # Pages are cleared as rows leave them; what they held stands in the write-ahead log.
        with self.engine.connect() as connection:
            # Commits wait while this waits for readers.
            connection.execute(text("PRAGMA busy_timeout = 200"))
            try:
                busy = connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).scalar_one()
            finally:
                connection.execute(text(f"PRAGMA busy_timeout = {1_000 * _BUSY_S}"))
        return int(busy) == 0

    def cut(self) -> None:
        """Nothing: there is none."""

    def lead(self) -> bool:
        return self._lock is not None

    def close(self) -> None:
        with suppress(SQLAlchemyError):
            self.engine.dispose()
        if self._lock:
            self._lock.release()
            self._lock = None
