"""Where recommenders' models are kept: a table of PostgreSQL, or one in a file beside the log.

A SQLite log has one writing process. Models are trained by the command line while that process
serves, and are large, so they do not stand in the log's file: no commit of a decision ever waits
for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    func,
    inspect,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from engine.errors import StoreError
from engine.store.backend import said
from engine.store.beside import engine_beside

MOST_KEPT = 5
"""How many models of a recommender are kept: replays need none, an operator may want the last."""

T = TypeVar("T")

_metadata = MetaData()
_models = Table(
    "recommender_models",
    _metadata,
    Column("seq", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    Column("recommender", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("interactions", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A trained model: of which recommender, and the last interaction of the log that it knows.

    ``interactions`` counts what it was trained on; ``created_at`` is in microseconds.
    """

    seq: int
    recommender: str
    digest: str
    position: int
    interactions: int
    created_at: int


class ModelStore:
    """The models of one database; every method raises StoreError where it refuses.

    Each call opens the database anew, so that one value may be used from any thread.
    """

    def __init__(self, url: str) -> None:
        """The models beside the log at ``url``; touches nothing yet.

        Raises
        ------
        StoreError
            If the address is none of ours.
        """
        self._engine, self.name, self._path = engine_beside(url, "models", wait_s=30)

    def add(
        self,
        recommender: str,
        digest: str,
        data: bytes,
        *,
        position: int,
        interactions: int,
        created_at: int,
    ) -> None:
        """Store a model, durably, as the newest of its recommender; the oldest ones go."""
        row = {
            "recommender": recommender,
            "digest": digest,
            "position": position,
            "interactions": interactions,
            "created_at": created_at,
            "data": data,
        }

        def write(connection: Connection) -> None:
            connection.execute(_models.insert(), row)
            of = _models.c.recommender == recommender
            kept = select(_models.c.seq).where(of).order_by(_models.c.seq.desc()).limit(MOST_KEPT)
            oldest = min(connection.scalars(kept))
            connection.execute(delete(_models).where(of, _models.c.seq < oldest))

        self._run(_metadata.create_all)
        self._run(write)

    def newest(self) -> dict[str, ModelRow]:
        """The newest model of each recommender that has one."""
        # Looked at first, since SQLite would make the file that it is asked to open.
        if self._path is not None and not self._path.exists():
            return {}
        return self._run(_newest)

    def data(self, row: ModelRow) -> bytes:
        """A model's bytes, not yet verified.

        Raises
        ------
        StoreError
            If they are gone by now.
        """
        found: bytes | None = self._run(
            lambda c: c.scalar(select(_models.c.data).where(_models.c.seq == row.seq))
        )
        if found is None:
            raise StoreError(f"model {row.digest} is no longer in {self.name}")
        return found

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except (SQLAlchemyError, ValueError) as error:
            raise StoreError(
                f"{self.name} holds no models that can be used: {said(error)}"
            ) from error


def _newest(connection: Connection) -> dict[str, ModelRow]:
    if not inspect(connection).has_table(_models.name):
        return {}
    m = _models.c
    last = select(func.max(m.seq)).group_by(m.recommender)
    columns = (m.seq, m.recommender, m.digest, m.position, m.interactions, m.created_at)
    rows = connection.execute(select(*columns).where(m.seq.in_(last)))
    return {row.recommender: ModelRow(*row) for row in rows}
