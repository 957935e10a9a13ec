"""Opening a database: its address, its version, and reading and writing in short transactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from engine.errors import StoreError, StoreLostError
from engine.log import Entry, Result
from engine.store.backend import Backend, parse_address, said
from engine.store.postgres import PostgresBackend
from engine.store.sqlite import SqliteBackend
from engine.store.write import write_entries

HEAD = "0005"
"""The migration that this code reads and writes."""

T = TypeVar("T")


class Store:
    """A database of the log.

    Every method raises StoreError where the database refuses, with nothing of the call stored, and
    StoreLostError where it cannot be reached.
    """

    def __init__(self, url: str, *, writer: str | None = None) -> None:
        """Open ``url``; to write, give a few words that say who does.

        Raises
        ------
        StoreError
            If the address is none of ours, another process writes where only one may, or the
            database is of another version.
        """
        self.url = url
        self.writable = writer is not None
        address = parse_address(url)
        kind = SqliteBackend if address.drivername == "sqlite" else PostgresBackend
        self._backend: Backend = kind(address, writer)
        self.shared = self._backend.shared
        self.settle_after_us = self._backend.settle_after_us
        self.longest_s = self._backend.longest_s
        self._name = self._backend.name
        try:
            self._check_version(migrate=self.writable)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def write(self, entries: Sequence[Entry], now_us: int, *, live: bool = False) -> list[Result]:
        """Append the entries in one durable transaction; one result each, in order.

        ``live`` entries are late if they are stamped at or before the settled time.
        """
        if not self.writable:
            raise StoreError(f'"{self._name}" is open for reading only')
        try:
            return self._write(entries, now_us, live=live)
        except StoreLostError as first:
            if not first.unsure:
                raise
        # The connection broke amid the transaction: was it committed? A new connection tells.
        try:
            return self._write(entries, now_us, live=live, again=True)
        except StoreError as second:
            # Refused is no answer either to whether the first was committed.
            raise StoreLostError(str(second), unsure=True) from second

    def _write(
        self, entries: Sequence[Entry], now_us: int, *, live: bool, again: bool = False
    ) -> list[Result]:
        try:
            with self._backend.engine.begin() as connection:
                return write_entries(connection, entries, now_us, live=live, again=again)
        except (SQLAlchemyError, OverflowError, ValueError) as error:
            # The driver raises the last two as they are, for values that no column holds.
            raise self._refused("a write", error) from error

    def read(self, query: Callable[[Connection], T]) -> T:
        """What ``query`` returns, run in one short read transaction."""
        try:
            with self._backend.engine.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise self._refused("a read", error) from error

    def ping(self) -> None:
        """Ask the database for nothing; raises as all methods do."""
        self.read(lambda c: c.execute(text("SELECT 1")))

    def lead(self) -> bool:
        """Take or keep the place of the one learner; whether this process has it."""
        return self._backend.lead()

    def cut(self) -> None:
        """Break the connections in use: calls that wait for a silent database are lost at once."""
        self._backend.cut()

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the database, without waiting for readers."""
        try:
            self._backend.checkpoint()
        except SQLAlchemyError as error:
            raise self._refused("a checkpoint", error) from error

    def clear_files(self) -> bool:
        """Leave no byte of what was erased in the log's files; False while a reader prevents it."""
        try:
            return self._backend.clear_files()
        except SQLAlchemyError as error:
            raise self._refused("a checkpoint", error) from error

    def close(self) -> None:
        """Release connections, the learner's place and the lock."""
        self._backend.close()

    def _refused(self, what: str, error: Exception) -> StoreError:
        if self._backend.lost(error):
            unsure = isinstance(error, DBAPIError) and error.connection_invalidated
            return StoreLostError(
                f'"{self._name}" cannot be used now: {said(error)}', unsure=unsure
            )
        return StoreError(f'"{self._name}" refused {what}: {said(error)}')

    def _check_version(self, *, migrate: bool) -> None:
        try:
            with self._backend.engine.connect() as connection:
                version = _version(connection)
        except SQLAlchemyError as error:
            if self._backend.lost(error):
                raise StoreLostError(
                    f'"{self._name}" cannot be opened: {said(error)}; '
                    "give an address whose server runs and holds that database",
                    unsure=False,
                ) from error
            raise StoreError(f'"{self._name}" is no database of ours: {said(error)}') from error
        if version == HEAD:
            return
        if not migrate:
            if version is None:
                raise StoreError(
                    f'"{self._name}" holds no log; give the database of a server or an import'
                )
            raise StoreError(
                f'"{self._name}" is of version {version}, this code of {HEAD}; '
                "open it once with a writing command to migrate it"
            )
        from engine.store.migrations import upgrade  # noqa: PLC0415  Alembic is slow to import

        try:
            upgrade(self._backend)
        except LookupError as error:
            raise StoreError(
                f'"{self._name}" is of version {version}, which this code, of {HEAD}, does not '
                "know; use the code that wrote it"
            ) from error
        except SQLAlchemyError as error:
            raise StoreError(
                f'"{self._name}" is no database of ours and cannot become one: {said(error)}'
            ) from error


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version
