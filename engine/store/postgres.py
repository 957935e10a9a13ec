"""A log in PostgreSQL: any number of replicas write, taking turns; one of them learns."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from engine.store.backend import shown

_MIGRATING, _LEARNING = 0x4556_4801, 0x4556_4802
"""Keys of the advisory locks, which each database has for itself: "EVH" and a number."""

_CONNECT_S = 5
_LONGEST_S = 10
"""Seconds after which a statement of a server, or a transaction in which it fell silent, ends."""

_NOT_NOW = frozenset({"08", "25", "53", "55", "57", "58"})
"""Classes of SQLSTATE that no other statement would fare better with: connections, read-only
transactions, resources, locks that time out, an operator who shuts the server down, its disk."""


def engine_of(address: URL, application: str, **options: Any) -> Engine:
    """SQLAlchemy's engine for an address; what the address's query says of connecting holds."""
    about = {
        "application_name": application,
        "connect_timeout": _CONNECT_S,
        # A server that vanished without a word is given up after some ten seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    chosen = {key: value for key, value in about.items() if key not in address.query}
    target = address.set(drivername="postgresql+psycopg")
    return create_engine(target, connect_args=chosen, **options)


class PostgresBackend:
    """A database on a PostgreSQL server."""

    shared = True
    # Longer than commits take and than the clocks of machines differ; what is stored later all the
    # same is stamped anew.
    settle_after_us = 5_000_000
    # What the server does not end itself by then is not heard of any more: it or its host stands
    # still, while the kernel goes on to acknowledge.
    longest_s: float | None = _LONGEST_S + 2.0

    def __init__(self, address: URL, writer: str | None) -> None:
        """Connects with the first use; ``writer`` says who writes, None for reading only."""
        self.name = shown(address)
        application = writer or "evenhand, reading"
        # Read committed, whatever the database's default is: what is read after waiting for the
        # turn must be what was committed in the turns before.
        self.engine = engine_of(
            address, application, pool_size=4, max_overflow=12, isolation_level="READ COMMITTED"
        )
        self._apart = engine_of(
            address, application, poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        self._place: Connection | None = None
        self._open: WeakSet[Any] = WeakSet()
        settings = _settings(writing=writer is not None)

        # The connections of drivers are untyped in SQLAlchemy.
        @event.listens_for(self.engine, "connect")
        def set_up(connection: Any, _entry: ConnectionPoolEntry) -> None:
            self._open.add(connection)
            cursor = connection.cursor()
            for statement in settings:
                cursor.execute(statement)
            cursor.close()
            connection.commit()

        @event.listens_for(self._apart, "connect")
        def note(connection: Any, _entry: ConnectionPoolEntry) -> None:
            self._open.add(connection)

    def begin_migration(self, connection: Connection) -> None:
        # Replicas may start at the same time: the second waits, and finds nothing left to do.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})

    def lost(self, error: Exception) -> bool:
        if not isinstance(error, DBAPIError):
            return False
        state = getattr(error.orig, "sqlstate", None)
        # What fails before the server answers, as connecting to none, has no state.
        unanswered = state is None and isinstance(error, OperationalError)
        lost = error.connection_invalidated or unanswered or str(state)[:2] in _NOT_NOW
        if lost:
            # Each connection of the pool may be as stale, or lead to a server that became a
            # standby; those in use are not touched.
            self.engine.dispose()
        return lost

    def checkpoint(self) -> None:
        """Nothing: the server does it."""

    def clear_files(self) -> bool:
        # The server keeps old versions of rows until a VACUUM, which is its operators' to plan.
        return True

    def cut(self) -> None:
        for connection in list(self._open):
            # A duplicate, since the number may be closed and given out again meanwhile.
            with (
                suppress(Exception),
                socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
            ):
                duplicate.shutdown(socket.SHUT_RDWR)

    def lead(self) -> bool:
        # The lock lives as long as its connection does, so a killed replica frees it.
        try:
            if self._place is not None:
                self._place.execute(text("SELECT 1"))
                return True
            connection = self._apart.connect()
            taken = text("SELECT pg_try_advisory_lock(:key)")
            if connection.scalar(taken, {"key": _LEARNING}):
                self._place = connection
                return True
            connection.close()
        except SQLAlchemyError:
            self._give_up_place()
        return False

    def close(self) -> None:
        self._give_up_place()
        with suppress(SQLAlchemyError):
            self._apart.dispose()
            self.engine.dispose()

    def _give_up_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            with suppress(SQLAlchemyError):
                place.invalidate()
            with suppress(SQLAlchemyError):
                place.close()


def _settings(*, writing: bool) -> tuple[str, ...]:
    if not writing:
        return ("SET default_transaction_read_only = on",)
    return (
        # A replica that is frozen in its turn to write must not hold up the others for ever.
        f"SET statement_timeout = '{_LONGEST_S}s'",
        f"SET idle_in_transaction_session_timeout = '{_LONGEST_S}s'",
        _DURABLE,
    )


# What is acknowledged is on the disk, whatever the server's default is.
_DURABLE = """
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'
"""
