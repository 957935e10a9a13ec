"""The log's first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(length: int) -> sa.String:
    """Text that is ordered by its code points in every database, as Python orders it."""
    by_code = sa.String(length, collation="C")
    return sa.String(length).with_variant(by_code, "postgresql")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "activations",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("digest", _text(64), nullable=False),
        sa.Column("activated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "assignments",
        sa.Column("kind", _text(16), nullable=False),
        sa.Column("id", _text(64), nullable=False),
        sa.Column("unit", _text(258), nullable=False),
        sa.Column("variant", _text(64), nullable=False),
        sa.Column("assigned_at", sa.BigInteger(), nullable=False),
        sa.Column("decision_id", _text(36), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("factors", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", "unit", "variant"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "decisions",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("decision_id", _text(36), nullable=False),
        sa.Column("request_id", _text(256), nullable=True),
        sa.Column("request_digest", _text(32), nullable=True),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("committed_at", sa.BigInteger(), nullable=False),
        sa.Column("origin", _text(8), nullable=False),
        sa.Column("surface", _text(64), nullable=False),
        sa.Column("unit", _text(258), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("decision_id"),
        sa.UniqueConstraint("request_id"),
    )
    op.create_index("decisions_unit", "decisions", ["unit", "decided_at"], unique=False)
    op.create_table(
        "exposures",
        sa.Column("decision_id", _text(36), nullable=False),
        sa.Column("slot", _text(64), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "slot"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "learnables",
        sa.Column("learner", _text(330), nullable=False),
        sa.Column("closes_at", sa.BigInteger(), nullable=False),
        sa.Column("decision_id", _text(36), nullable=False),
        sa.Column("slot", _text(64), nullable=False),
        sa.PrimaryKeyConstraint("learner", "closes_at", "decision_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outcomes",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("outcome_id", _text(256), nullable=False),
        sa.Column("digest", _text(32), nullable=False),
        sa.Column("decision_id", _text(256), nullable=True),
        sa.Column("unit", _text(258), nullable=True),
        sa.Column("metric", _text(64), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("corrects", _text(256), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("outcome_id"),
    )
    op.create_index("outcomes_decision", "outcomes", ["decision_id"], unique=False)
    op.create_index("outcomes_unit", "outcomes", ["unit", "metric", "occurred_at"], unique=False)
    op.create_table(
        "revisions",
        sa.Column("digest", _text(64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "snapshot_data",
        sa.Column("digest", _text(64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "snapshots",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("learner", _text(330), nullable=False),
        sa.Column("spec", _text(16), nullable=False),
        sa.Column("digest", _text(64), nullable=False),
        sa.Column("parent", _text(64), nullable=True),
        sa.Column("position_closes_at", sa.BigInteger(), nullable=False),
        sa.Column("position_decision_id", _text(36), nullable=False),
        sa.Column("passed", sa.BigInteger(), nullable=False),
        sa.Column("learned", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("units", _text(64), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("snapshots_lineage", "snapshots", ["learner", "spec", "seq"], unique=False)
    op.create_table(
        "sticky_draws",
        sa.Column("key", _text(700), nullable=False),
        sa.Column("redraw", sa.Integer(), nullable=False),
        sa.Column("unit", _text(258), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("draw_id", _text(128), nullable=False),
        sa.Column("hashed", _text(700), nullable=False),
        sa.Column("uniform", sa.Float(), nullable=False),
        sa.Column("action", _text(64), nullable=False),
        sa.Column("propensity", sa.Float(), nullable=False),
        sa.Column("snapshot", _text(64), nullable=True),
        sa.Column("path", _text(129), nullable=True),
        sa.PrimaryKeyConstraint("key", "redraw"),
    )
    op.create_index("sticky_draws_hashed", "sticky_draws", ["hashed"], unique=False)
    op.create_index("sticky_draws_unit", "sticky_draws", ["unit", "expires_at"], unique=False)
    op.create_table(
        "voids",
        sa.Column("decision_id", _text(36), nullable=False),
        sa.Column("reason", _text(256), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id"),
    )


def downgrade() -> None:
    """Drop every table."""
    op.drop_table("voids")
    op.drop_index("sticky_draws_unit", table_name="sticky_draws")
    op.drop_index("sticky_draws_hashed", table_name="sticky_draws")
    op.drop_table("sticky_draws")
    op.drop_index("snapshots_lineage", table_name="snapshots")
    op.drop_table("snapshots")
    op.drop_table("snapshot_data")
    op.drop_table("revisions")
    op.drop_index("outcomes_unit", table_name="outcomes")
    op.drop_index("outcomes_decision", table_name="outcomes")
    op.drop_table("outcomes")
    op.drop_table("learnables")
    op.drop_table("exposures")
    op.drop_index("decisions_unit", table_name="decisions")
    op.drop_table("decisions")
    op.drop_table("assignments")
    op.drop_table("activations")
