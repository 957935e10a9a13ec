"""Where keys are kept: a table of PostgreSQL, or one in a small SQLite file beside the database.

A SQLite log has one writing process. Keys are written by the command line while that process
serves, each in one short transaction, so they do not stand in the log's file: no commit of a
decision ever waits for them, and a restored backup of the log brings no revoked key back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    inspect,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from engine.errors import StoreError
from engine.keys import Key, Scope
from engine.store.backend import said
from engine.store.beside import engine_beside

T = TypeVar("T")

_metadata = MetaData()
_keys = Table(
    "keys",
    _metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)


class KeyStore:
    """The keys of one database; every method raises StoreError where it refuses.

    Each call opens the database anew, so that one value may be used from any thread, and a file
    that was put in its place is seen.
    """

    def __init__(self, url: str) -> None:
        """The keys of the log at ``url``; touches nothing yet.

        Raises
        ------
        StoreError
            If the address is none of ours.
        """
        self._engine, self.name, self.path = engine_beside(url, "keys", wait_s=10)

    def add(self, key: Key) -> None:
        """Store a key, durably."""
        row = {
            "id": key.id,
            "name": key.name,
            "scopes": " ".join(sorted(key.scopes)),
            "digest": key.digest,
            "created_at": key.created_at,
            "revoked_at": key.revoked_at,
        }
        self._make()
        self._run(lambda c: c.execute(_keys.insert(), row))

    def revoke(self, id_: str, now_us: int) -> bool:
        """Put a key out of force, durably; whether there is one of that id in force."""
        # Looked at first, since SQLite would make the file that it is asked to open.
        if self.path is not None and not self.path.exists():
            return False
        in_force = _keys.c.id == id_, _keys.c.revoked_at.is_(None)
        changed = _keys.update().where(*in_force).values(revoked_at=now_us)
        return self._run(lambda c: _made(c) and c.execute(changed).rowcount > 0)

    def all(self) -> list[Key]:
        """Every key, revoked ones too, in the order of creation."""
        if self.path is not None and not self.path.exists():
            return []
        return self._run(_all)

    def _make(self) -> None:
        """Make the table, and its file, unless they are there; only its owner may read the file."""
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise StoreError(
                    f"{self.name} cannot be written: {error.strerror}; "
                    "run this as the user who serves"
                ) from error
        self._run(_metadata.create_all)

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except (SQLAlchemyError, ValueError) as error:
            # The latter at a scope of a later version.
            raise StoreError(
                f"{self.name} holds no keys that can be used: {said(error)}"
            ) from error


def _made(connection: Connection) -> bool:
    """Whether any key was ever stored."""
    return inspect(connection).has_table(_keys.name)


def _all(connection: Connection) -> list[Key]:
    if not _made(connection):
        return []
    ordered = select(_keys).order_by(_keys.c.created_at, _keys.c.id)
    return [_key_of(row) for row in connection.execute(ordered)]


def _key_of(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        scopes=frozenset(map(Scope, row.scopes.split())),
        digest=row.digest,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
