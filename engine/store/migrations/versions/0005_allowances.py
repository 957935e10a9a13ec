"""What was spent of budgets and of conservative guarantees, counted as decisions are stored."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _text(length: int) -> sa.String:
    """Text that is ordered by its code points in every database, as Python orders it."""
    by_code = sa.String(length, collation="C")
    return sa.String(length).with_variant(by_code, "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "allowances",
        sa.Column("key", _text(500), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("allowances")
