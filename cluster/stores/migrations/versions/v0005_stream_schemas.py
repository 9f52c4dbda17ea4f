"""Schemas: how a stream uses them, and which it has met."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _text(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=default)


def upgrade() -> None:
    """Streams that are there use none."""
    op.add_column("streams", _text("schema", "none"))
    op.add_column("streams", _text("subject", ""))
    op.create_table(
        "stream_schemas",
        _text("stream"), _text("key"), _text("name"), _whole("schema_id"), _text("subject"), _whole("version"),
        _text("state"), _text("note"), _whole("partition"), _whole("offset"),
        sa.Column("seen", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["stream"], ["streams.name"]), sa.PrimaryKeyConstraint("stream", "key"),
    )  # fmt: skip
