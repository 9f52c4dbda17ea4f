"""What was read of a load is counted beside how far it is read, range by range: one row, so both are of one moment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns. What loads have counted so far stays where it is, and what their ranges count comes on top."""
    for name in ("acked", "dead"):
        op.add_column("load_ranges", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
