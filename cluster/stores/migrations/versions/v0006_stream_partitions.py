"""What stands against one partition of a stream, and which leader appended the record before its offset."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Three columns. Events with positions of their own had the epochs of their ranges: the newest of those is theirs
    from now on, so that what comes next is no older than what is there."""
    for column in (
        sa.Column("leader_epoch", sa.BigInteger(), nullable=False, server_default="-1"),
        sa.Column("note", sa.Text(), nullable=False, server_default=""),
        sa.Column("partial", sa.BigInteger(), nullable=False, server_default="0"),
    ):
        op.add_column("stream_partitions", column)
    streams, parts = (
        sa.table("streams", *_columns("name", "format", "timeline_epoch")),
        sa.table("stream_partitions", *_columns("stream", "epoch")),
    )
    newest = sa.select(sa.func.max(parts.c.epoch)).where(parts.c.stream == streams.c.name).scalar_subquery()
    op.execute(
        sa.update(streams)
        .where(streams.c.format != "debezium", newest > streams.c.timeline_epoch)
        .values(timeline_epoch=newest)
    )


def _columns(*names: str) -> list[sa.ColumnClause[object]]:
    return [sa.column(name) for name in names]
