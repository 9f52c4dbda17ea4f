"""Counts that are kept in the transaction of what they count; Idempotency-Keys are looked at by tenant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Counts what is there. Which class a replayed letter came with is not known any more: its last one counts."""
    op.create_table(
        "tallies",
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("what", "label"),
    )
    op.execute(
        "INSERT INTO tallies (what, label, count)"
        " SELECT 'letters in', error_class, COUNT(*) FROM dead_letters GROUP BY error_class"
    )
    op.execute(
        "INSERT INTO tallies (what, label, count) SELECT 'letters out', state, COUNT(*) FROM dead_letters"
        " WHERE state IN ('replayed', 'quarantined') GROUP BY state"
    )
    op.execute(
        "INSERT INTO tallies (what, label, count)"
        " SELECT 'acceptances', tenant, COUNT(*) FROM acceptances GROUP BY tenant"
    )
    op.drop_index("acceptances_by_age", "acceptances")
    op.create_index("acceptances_by_age", "acceptances", ["tenant", "created"], unique=False)
