"""One writing process per database file, held by an operating-system lock that kill −9 frees."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from engine.errors import StoreError


class WriterLock:
    """An exclusive lock on the file beside a database; it says who holds it."""

    def __init__(self, database: Path, holder: str) -> None:
        """Take the lock for ``holder``, a few words such as ``evenhand serve``.

        Raises
        ------
        StoreError
            If another process holds it; the message says which.
        """
        self._path = database.with_name(database.name + ".lock")
        self._file: IO[str] = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            said = _holder(self._path)
            self._file.close()
            raise StoreError(
                f"{database} is being written by {said}; stop it, or let it do this work"
            ) from error
        self._file.truncate(0)
        self._file.write(msgspec.json.encode({"pid": os.getpid(), "holder": holder}).decode())
        self._file.flush()

    def release(self) -> None:
        """Free the lock; the file stays, since removing it would race with the next holder."""
        with suppress(ValueError):
            self._file.truncate(0)
        self._file.close()


def _holder(path: Path) -> str:
    try:
        held = msgspec.json.decode(path.read_bytes())
        return f'"{held["holder"]}" (process {held["pid"]})'
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return "another process"
