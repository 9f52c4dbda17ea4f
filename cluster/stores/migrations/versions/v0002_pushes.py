"""Idempotency-Keys of pushes get a table of their own, with who is at work on one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Moves the keys and their answers."""
    op.create_table(
        "pushes",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("held_until", sa.Float(precision=53), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key"),
    )
    op.create_index("pushes_by_age", "pushes", ["created"], unique=False)
    op.execute(
        "INSERT INTO pushes (tenant, key, body_hash, holder, held_until, answer, created)"
        " SELECT tenant, key, body_hash, '', 0, answer, created FROM acceptances WHERE source = 'system/push'"
    )
    op.execute("DELETE FROM acceptances WHERE source = 'system/push'")
    op.execute("DELETE FROM epochs WHERE source = 'system/push'")
    op.execute("DELETE FROM sources WHERE name = 'system/push'")
    op.drop_column("acceptances", "answer")
