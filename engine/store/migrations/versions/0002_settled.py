"""The time up to which the log is settled for learning."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table with its one row."""
    settled = op.create_table("settled", sa.Column("until_us", sa.BigInteger(), nullable=False))
    op.bulk_insert(settled, [{"until_us": 0}])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("settled")
