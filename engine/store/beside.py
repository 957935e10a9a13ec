"""Where things stand that commands write while a server holds the log: beside it, not in its file.

In PostgreSQL, which has room for several writers, that is the log's database; beside a SQLite log
it is a SQLite file.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from engine.store.backend import parse_address, shown
from engine.store.postgres import engine_of


def engine_beside(url: str, kind: str, wait_s: float) -> tuple[Engine, str, Path | None]:
    """An engine for what stands beside the log at ``url``, its name, and its file if it is one.

    Every connection is new, so that one engine may be used from any thread, and a file that was put
    in its place is seen. ``kind`` is the end of the file's name; ``wait_s`` is for how long another
    writer of it is waited for. Nothing is touched yet.

    Raises
    ------
    StoreError
        If the address is none of ours.
    """
    address = parse_address(url)
    if address.drivername != "sqlite":
        return engine_of(address, f"evenhand {kind}", poolclass=NullPool), shown(address), None
    log = Path(str(address.database))
    path = log.with_name(f"{log.name}.{kind}")
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": wait_s},
        poolclass=NullPool,
    )
    return engine, str(path), path
