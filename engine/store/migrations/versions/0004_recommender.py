"""Items, what units did with them, and the items that outcomes are about."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _text(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables, and the outcomes' column."""
    op.create_table(
        "items",
        sa.Column("item_id", _text(256), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("item_id"),
    )
    op.create_index("items_change", "items", ["change"])
    op.create_table(
        "interactions",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("interaction_id", _text(258), nullable=False),
        sa.Column("unit", _text(258), nullable=True),
        sa.Column("decision_id", _text(256), nullable=True),
        sa.Column("item_id", _text(256), nullable=False),
        sa.Column("kind", _text(64), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("corrects", _text(258), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("interaction_id"),
    )
    op.create_index("interactions_unit", "interactions", ["unit", "occurred_at"])
    op.add_column("outcomes", sa.Column("item_id", _text(256), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("outcomes", "item_id")
    op.drop_index("interactions_unit", table_name="interactions")
    op.drop_table("interactions")
    op.drop_index("items_change", table_name="items")
    op.drop_table("items")
