"""The history of promotions: attempts, what came to serve by them, and what was rolled back."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _text(length: int) -> sa.String:
    """Text that is ordered by its code points in every database, as Python orders it."""
    by_code = sa.String(length, collation="C")
    return sa.String(length).with_variant(by_code, "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "promotions",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("learner", _text(330), nullable=False),
        sa.Column("what", _text(16), nullable=False),
        sa.Column("spec", _text(16), nullable=True),
        sa.Column("snapshot", _text(64), nullable=True),
        sa.Column("judged_until", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("promotions_learner", "promotions", ["learner", "seq"], unique=False)


def downgrade() -> None:
    """Drop the table."""
    op.drop_index("promotions_learner", table_name="promotions")
    op.drop_table("promotions")
