"""The tables. Times are integer microseconds since 1970-01-01 UTC; the log is append-only.

Rows of the log are never updated, but for a person's erasure (:mod:`engine.store.erase`). What
changes a decision's meaning later (an exposure, an outcome, a void) stands in a table of its own
and is joined when read. Items are no part of the log: their rows say what holds now.
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


def _text(length: int) -> String:
    """Text that is ordered by its code points in every database, as Python orders it."""
    by_code = String(length, collation="C")
    return String(length).with_variant(by_code, "postgresql")


revisions = Table(
    "revisions",
    metadata,
    Column("digest", _text(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

activations = Table(
    "activations",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("digest", _text(64), nullable=False),
    Column("activated_at", BigInteger, nullable=False),
)

snapshot_data = Table(
    "snapshot_data",
    metadata,
    Column("digest", _text(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("learner", _text(330), nullable=False),
    Column("spec", _text(16), nullable=False),
    Column("digest", _text(64), nullable=False),
    Column("parent", _text(64)),
    Column("position_closes_at", BigInteger, nullable=False),
    Column("position_decision_id", _text(36), nullable=False),
    Column("passed", BigInteger, nullable=False),
    Column("learned", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("units", _text(64)),
    Index("snapshots_lineage", "learner", "spec", "seq"),
)

promotions = Table(
    "promotions",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("learner", _text(330), nullable=False),
    Column("what", _text(16), nullable=False),
    Column("spec", _text(16)),
    Column("snapshot", _text(64)),
    Column("judged_until", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("report", Text, nullable=False),
    Index("promotions_learner", "learner", "seq"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("decision_id", _text(36), nullable=False, unique=True),
    Column("request_id", _text(256), unique=True),
    Column("request_digest", _text(32)),
    Column("decided_at", BigInteger, nullable=False),
    Column("committed_at", BigInteger, nullable=False),
    Column("origin", _text(8), nullable=False),
    Column("surface", _text(64), nullable=False),
    Column("unit", _text(258), nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("decisions_unit", "unit", "decided_at"),
)

learnables = Table(
    "learnables",
    metadata,
    Column("learner", _text(330), nullable=False),
    Column("closes_at", BigInteger, nullable=False),
    Column("decision_id", _text(36), nullable=False),
    Column("slot", _text(64), nullable=False),
    PrimaryKeyConstraint("learner", "closes_at", "decision_id"),
    sqlite_with_rowid=False,
)

sticky_draws = Table(
    "sticky_draws",
    metadata,
    Column("key", _text(700), nullable=False),
    Column("redraw", Integer, nullable=False),
    Column("unit", _text(258), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("draw_id", _text(128), nullable=False),
    Column("hashed", _text(700), nullable=False),
    Column("uniform", Float, nullable=False),
    Column("action", _text(64), nullable=False),
    Column("propensity", Float, nullable=False),
    Column("snapshot", _text(64)),
    Column("path", _text(129)),
    PrimaryKeyConstraint("key", "redraw"),
    Index("sticky_draws_unit", "unit", "expires_at"),
    Index("sticky_draws_hashed", "hashed"),
)

assignments = Table(
    "assignments",
    metadata,
    Column("kind", _text(16), nullable=False),
    Column("id", _text(64), nullable=False),
    Column("unit", _text(258), nullable=False),
    Column("variant", _text(64), nullable=False),
    Column("assigned_at", BigInteger, nullable=False),
    Column("decision_id", _text(36), nullable=False),
    Column("probability", Float, nullable=False),
    Column("factors", Text, nullable=False),
    PrimaryKeyConstraint("kind", "id", "unit", "variant"),
    Index("assignments_unit", "unit"),
    sqlite_with_rowid=False,
)

exposures = Table(
    "exposures",
    metadata,
    Column("decision_id", _text(36), nullable=False),
    Column("slot", _text(64), nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("decision_id", "slot"),
    sqlite_with_rowid=False,
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("outcome_id", _text(256), nullable=False, unique=True),
    Column("digest", _text(32), nullable=False),
    Column("decision_id", _text(256)),
    Column("unit", _text(258)),
    Column("metric", _text(64), nullable=False),
    Column("value", Float, nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("corrects", _text(256)),
    Column("item_id", _text(256)),
    Index("outcomes_decision", "decision_id"),
    Index("outcomes_unit", "unit", "metric", "occurred_at"),
)

items = Table(
    "items",
    metadata,
    Column("item_id", _text(256), primary_key=True),
    Column("change", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Index("items_change", "change"),
)
"""What holds of each item now. ``change`` counts the entries that told of items."""

interactions = Table(
    "interactions",
    metadata,
    Column("seq", _Position, primary_key=True, autoincrement=True),
    Column("interaction_id", _text(258), nullable=False, unique=True),
    Column("unit", _text(258)),
    Column("decision_id", _text(256)),
    Column("item_id", _text(256), nullable=False),
    Column("kind", _text(64), nullable=False),
    Column("value", Float, nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("corrects", _text(258)),
    Index("interactions_unit", "unit", "occurred_at"),
)

allowances = Table(
    "allowances",
    metadata,
    Column("key", _text(500), primary_key=True),
    Column("spent", BigInteger, nullable=False),
)

voids = Table(
    "voids",
    metadata,
    Column("decision_id", _text(36), primary_key=True),
    Column("reason", _text(256), nullable=False),
    Column("at", BigInteger, nullable=False),
)

settled = Table("settled", metadata, Column("until_us", BigInteger, nullable=False))
"""One row: the time up to which learning takes all that is stamped as stored.

Where several processes write, its lock is also their turn to write.
"""
