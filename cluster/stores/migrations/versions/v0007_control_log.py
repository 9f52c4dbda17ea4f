"""Up to which entry of the log's control partition the store is complete, and which rows are not in it yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two tables; both are empty until a start binds the store to a log."""
    op.create_table(
        "control_log",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("serving", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "control_touched",
        sa.Column("of", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
    )
