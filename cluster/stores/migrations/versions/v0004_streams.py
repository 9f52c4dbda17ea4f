"""Streams: topics that are read without end, and how far each partition is read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _whole(name: str, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=default)


def _text(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=default)


def upgrade() -> None:
    """Two tables; nothing that is there changes."""
    op.create_table(
        "streams",
        _text("name"), _text("tenants"), _text("topic"), _text("format"), _text("table", ""),
        _text("begin"), _text("state"), _text("note", ""), _text("topic_id", ""), _whole("timeline_epoch", "0"),
        sa.Column("looked", sa.Float(53), nullable=True), sa.Column("created", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )  # fmt: skip
    op.create_table(
        "stream_partitions",
        _text("stream"), sa.Column("partition", sa.BigInteger(), autoincrement=False, nullable=False),
        _whole("epoch"), _whole("start"), _whole("offset"), sa.Column("cut", sa.BigInteger(), nullable=True),
        _whole("carried", "0"), _whole("end", "0"), _whole("acked", "0"), _whole("dead", "0"),
        _whole("record_ms", "0"),
        sa.ForeignKeyConstraint(["stream"], ["streams.name"]), sa.PrimaryKeyConstraint("stream", "partition"),
    )  # fmt: skip
