"""The control store's tables: SQL that SQLite and PostgreSQL both take. The migrations create the same ones.

Times are seconds since 1970 as the caller's clock gives them. JSON is kept as text, so that both databases store what
they were given.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
)

from cluster.stores.control_text import AnyText

metadata = MetaData()

_Serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up INTEGER primary keys only


def _text(name: str, default: str | None = None) -> Column[str]:
    return Column(name, AnyText, nullable=False, server_default=default)


def _whole(name: str, default: int | None = None) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=None if default is None else str(default))


def _seconds(name: str, nullable: bool = False) -> Column[float]:
    return Column(name, Float(53), nullable=nullable)


shards = Table(
    "shards", metadata,
    Column("id", AnyText, primary_key=True),
    _text("uri"), _text("role"), Column("of", AnyText, ForeignKey("shards.id")), _text("region", ""), _text("state"),
    Column("weight", Float(53), nullable=False), _whole("epoch", 0),
    Column("lag_records", BigInteger), _seconds("lag_seconds", nullable=True), _seconds("updated"),
)  # fmt: skip

shard_maps = Table(
    "shard_maps", metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    _text("map"), _seconds("made_at"), _text("made_by"),
)  # fmt: skip

sources = Table(
    "sources", metadata,
    Column("tenant", AnyText, primary_key=True), Column("name", AnyText, primary_key=True),
    _text("owner"), _text("transport"), _text("licence"), Column("positions", AnyText), _whole("priority"),
    _text("state", "active"), _whole("next_epoch", 1), _whole("next_position", 1),
    Column("assigned_epoch", BigInteger), _seconds("created"),
)  # fmt: skip

epochs = Table(
    "epochs", metadata,
    Column("tenant", AnyText, primary_key=True), Column("source", AnyText, primary_key=True),
    Column("digest", AnyText, primary_key=True), _whole("epoch"), _seconds("created"),
    UniqueConstraint("tenant", "source", "epoch"),
)  # fmt: skip

loads = Table(
    "loads", metadata,
    Column("id", AnyText, primary_key=True), _text("tenant"), _text("source"), _whole("epoch"), _text("digest"),
    _text("label"), _text("mapping"), _text("state"),
    _whole("acked", 0), _whole("applied", 0), _whole("duplicate", 0), _whole("stale", 0), _whole("dead", 0),
    _seconds("started"), _seconds("ended", nullable=True),
    Index("loads_by_digest", "tenant", "source", "digest"),
)  # fmt: skip

load_ranges = Table(
    "load_ranges", metadata,
    Column("load", AnyText, ForeignKey("loads.id"), primary_key=True),
    Column("range", BigInteger, primary_key=True, autoincrement=False), _whole("position"),
    _whole("acked", 0), _whole("dead", 0),  # up to the position; what a load's own row says comes on top
)  # fmt: skip

acceptances = Table(
    "acceptances", metadata,
    Column("tenant", AnyText, primary_key=True), Column("source", AnyText, primary_key=True),
    Column("key", AnyText, primary_key=True), _text("body_hash"), _whole("epoch"), _whole("first_position"),
    _whole("count"), _seconds("created"),
    Index("acceptances_by_age", "tenant", "created"),
)  # fmt: skip

pushes = Table(
    "pushes", metadata,
    Column("tenant", AnyText, primary_key=True), Column("key", AnyText, primary_key=True),
    _text("body_hash"), _text("holder"), _seconds("held_until"), Column("answer", AnyText), _seconds("created"),
    Index("pushes_by_age", "created"),
)  # fmt: skip

dead_letters = Table(
    "dead_letters", metadata,
    Column("sequence", _Serial, primary_key=True, autoincrement=True),
    Column("id", AnyText, nullable=False, unique=True),
    _text("tenant"), _text("source"), _text("partition", ""), _text("version"), _text("type", ""),
    _text("error_class"), _text("reason"), Column("payload", LargeBinary, nullable=False),
    _whole("payload_bytes"), _text("payload_sha256"), _text("headers"), _whole("attempts", 0), _text("state"),
    _seconds("first_seen"), _seconds("last_attempt", nullable=True),
    UniqueConstraint("tenant", "source", "partition", "version"),
    Index("dead_letters_by_state", "tenant", "state", "sequence"),
)  # fmt: skip

tallies = Table(
    "tallies", metadata,
    Column("what", AnyText, primary_key=True), Column("label", AnyText, primary_key=True), _whole("count"),
)  # fmt: skip

registered_names = Table(
    "registered_names", metadata,
    Column("tenant", AnyText, primary_key=True), Column("space", AnyText, primary_key=True),
    Column("name", AnyText, primary_key=True),
)  # fmt: skip

runs = Table(
    "runs", metadata,
    Column("tenant", AnyText, primary_key=True), Column("overlay", AnyText, primary_key=True),
    Column("run", BigInteger, primary_key=True, autoincrement=False), _text("snapshot"), _text("state"),
    Column("gate", AnyText), _seconds("started"), _seconds("ended", nullable=True),
)  # fmt: skip

pointers = Table(
    "pointers", metadata,
    Column("name", AnyText, primary_key=True), _whole("sequence"), _text("manifest"), _seconds("updated"),
)  # fmt: skip

leases = Table(
    "leases", metadata,
    Column("name", AnyText, primary_key=True), _text("holder"), _whole("token"), _seconds("expires"),
)  # fmt: skip

audit = Table(
    "audit", metadata,
    Column("sequence", _Serial, primary_key=True, autoincrement=True), _seconds("at"), _text("tenant"), _text("actor"),
    _text("action"), _text("subject"), _text("detail"),
    Index("audit_by_tenant", "tenant", "sequence"),
)  # fmt: skip

consumer_positions = Table(
    "consumer_positions", metadata,
    Column("consumer", AnyText, primary_key=True),
    Column("partition", BigInteger, primary_key=True, autoincrement=False), _whole("number"), _seconds("at"),
)  # fmt: skip

streams = Table(
    "streams", metadata,
    Column("name", AnyText, primary_key=True), _text("tenants"), _text("topic"), _text("format"), _text("table", ""),
    _text("begin"), _text("state"), _text("note", ""), _text("topic_id", ""),
    _whole("timeline_epoch", 0), _seconds("looked", nullable=True), _seconds("created"),
    _text("schema", "none"), _text("subject", ""),
)  # fmt: skip

stream_partitions = Table(
    "stream_partitions", metadata,
    Column("stream", AnyText, ForeignKey("streams.name"), primary_key=True),
    Column("partition", BigInteger, primary_key=True, autoincrement=False),
    _whole("epoch"), _whole("start"), _whole("offset"), Column("cut", BigInteger), _whole("carried", 0),
    _whole("end", 0), _whole("acked", 0), _whole("dead", 0), _whole("record_ms", 0), _whole("leader_epoch", -1),
    _text("note", ""), _whole("partial", 0),
)  # fmt: skip

stream_schemas = Table(
    "stream_schemas", metadata,
    Column("stream", AnyText, ForeignKey("streams.name"), primary_key=True), Column("key", AnyText, primary_key=True),
    _text("name"), _whole("schema_id"), _text("subject"), _whole("version"), _text("state"), _text("note"),
    _whole("partition"), _whole("offset"), _seconds("seen"),
)  # fmt: skip

logs = Table(
    "logs", metadata,
    Column("generation", BigInteger, primary_key=True, autoincrement=False), _text("name"), _whole("partitions"),
)  # fmt: skip

control_log = Table(
    "control_log", metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    _text("name"), _whole("number"), _whole("serving"), _whole("bytes"),
)  # fmt: skip

control_touched = Table(
    "control_touched", metadata,
    Column("of", AnyText, primary_key=True), Column("key", AnyText, primary_key=True),
)  # fmt: skip
