"""The settled time, assignments found by unit, records that are compressed quickly."""

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
    op.create_index("assignments_unit", "assignments", ["unit"])
    if op.get_bind().dialect.name == "postgresql":
        # Its default method takes longer to compress a record than all else takes to store it. A
        # server that was built without this one keeps the default.
        op.execute("""
            DO $$ BEGIN
                ALTER TABLE decisions ALTER COLUMN record SET COMPRESSION lz4;
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END $$
        """)


def downgrade() -> None:
    """Drop the table."""
    op.drop_index("assignments_unit", table_name="assignments")
    op.drop_table("settled")
