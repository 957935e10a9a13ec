"""The tables. Times are integer microseconds since 1970-01-01 UTC; the log is append-only.

Rows of the log are never updated. What changes a decision's meaning later (an exposure, an
outcome, a void) stands in a table of its own and is joined when read.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

metadata = MetaData()

# SQLite makes an alias of its row id, and so a dense log position, only of this very type.
_Position = BigInteger().with_variant(Integer(), "sqlite")

revisions = Table(
    "revisions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

activations = Table(
    "activations",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False),
    Column("activated_at", BigInteger, nullable=False),
)

snapshot_data = Table(
    "snapshot_data",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("learner", String(256), nullable=False),
    Column("spec", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("parent", String(64)),
    Column("position_closes_at", BigInteger, nullable=False),
    Column("position_decision_id", String(36), nullable=False),
    Column("passed", BigInteger, nullable=False),
    Column("learned", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("units", String(64)),
    Index("snapshots_lineage", "learner", "spec", "seq"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("decision_id", String(36), nullable=False, unique=True),
    Column("request_id", String(256), unique=True),
    Column("request_digest", String(32)),
    Column("decided_at", BigInteger, nullable=False),
    Column("committed_at", BigInteger, nullable=False),
    Column("origin", String(8), nullable=False),
    Column("surface", String(64), nullable=False),
    Column("unit", String(258), nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("decisions_unit", "unit", "decided_at"),
)

learnables = Table(
    "learnables",
    metadata,
    Column("learner", String(256), nullable=False),
    Column("closes_at", BigInteger, nullable=False),
    Column("decision_id", String(36), nullable=False),
    Column("slot", String(64), nullable=False),
    PrimaryKeyConstraint("learner", "closes_at", "decision_id"),
    sqlite_with_rowid=False,
)

sticky_draws = Table(
    "sticky_draws",
    metadata,
    Column("key", String(700), nullable=False),
    Column("redraw", Integer, nullable=False),
    Column("unit", String(258), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("draw_id", String(128), nullable=False),
    Column("hashed", String(700), nullable=False),
    Column("uniform", Float, nullable=False),
    Column("action", String(64), nullable=False),
    Column("propensity", Float, nullable=False),
    Column("snapshot", String(64)),
    Column("path", String(129)),
    PrimaryKeyConstraint("key", "redraw"),
    Index("sticky_draws_unit", "unit", "expires_at"),
    Index("sticky_draws_hashed", "hashed"),
)

assignments = Table(
    "assignments",
    metadata,
    Column("kind", String(16), nullable=False),
    Column("id", String(64), nullable=False),
    Column("unit", String(258), nullable=False),
    Column("variant", String(64), nullable=False),
    Column("assigned_at", BigInteger, nullable=False),
    Column("decision_id", String(36), nullable=False),
    Column("probability", Float, nullable=False),
    Column("factors", Text, nullable=False),
    PrimaryKeyConstraint("kind", "id", "unit", "variant"),
    sqlite_with_rowid=False,
)

exposures = Table(
    "exposures",
    metadata,
    Column("decision_id", String(36), nullable=False),
    Column("slot", String(64), nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("decision_id", "slot"),
    sqlite_with_rowid=False,
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("outcome_id", String(256), nullable=False, unique=True),
    Column("digest", String(32), nullable=False),
    Column("decision_id", String(36)),
    Column("unit", String(258)),
    Column("metric", String(64), nullable=False),
    Column("value", Float, nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("corrects", String(256)),
    Index("outcomes_decision", "decision_id"),
    Index("outcomes_unit", "unit", "metric", "occurred_at"),
)

voids = Table(
    "voids",
    metadata,
    Column("decision_id", String(36), primary_key=True),
    Column("reason", String(256), nullable=False),
    Column("at", BigInteger, nullable=False),
)
