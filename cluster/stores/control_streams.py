"""Streams: which topics are read without end, how far each partition is, and under which epoch.

A partition's offset moves in one transaction with the check of its reader's lease, of the range's epoch and of the
offset until now; so of two readers one is refused, and what a late one read is read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from cluster.errors import Conflict, Fenced, NotFound, Rejected
from cluster.stores.control_database import ControlDatabase, upsert
from cluster.stores.control_epochs import epoch_of, newest_epoch
from cluster.stores.control_leases import require
from cluster.stores.control_sources import live_source_in
from cluster.stores.control_tables import stream_partitions, stream_schemas, streams
from cluster.streams.follow import Followed, follow, skipped
from cluster.streams.model import Look, State, Stream, StreamPartition, StreamSpec


def partition_lease(stream: str, partition: int) -> str:
    """The name of the lease that a partition's reader holds."""
    return f"stream/{stream}/{partition}"


@dataclass(frozen=True, slots=True)
class Read:
    """What a reader has brought to an end.

    Args:
        token: of its lease.
        epoch, before: of the range, and the offset where it began.
        offset: the next to read.
        carried, record_ms: as in `StreamPartition`.
        acked, dead: records in between.
        leader_epoch: as in `StreamPartition`, of the new offset.
        partial: as in `StreamPartition`; None: there was no update in between.
    """

    partition: int
    token: int
    epoch: int
    before: int
    offset: int
    carried: int = 0
    record_ms: int = 0
    acked: int = 0
    dead: int = 0
    leader_epoch: int = -1
    partial: bool | None = None


class Streams:
    """The registered streams."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def add(self, spec: StreamSpec, now: float) -> Stream:
        """Registers a stream; its source is registered in each of its tenants. Safe to call twice.

        Raises:
            Rejected: there is one of this name that reads something else, or it names no tenant or table.
            NotFound, Forbidden: a tenant has no source of that name, or it is killed.
        """
        with self._database.write() as connection:
            known = _fitting(connection, spec)
            digest = _digest(spec, "timeline", 1)
            epoch = epoch_of(connection, spec.tenants, spec.name, digest, now)
            if known is None:
                row = {**asdict(spec), "tenants": json.dumps(spec.tenants), "state": "active", "created": now}
                connection.execute(insert(streams).values(**row, timeline_epoch=epoch))
            return _get(connection, spec.name)

    def check(self, spec: StreamSpec) -> None:
        """Nothing, if `add` would take it but for its source. Raises Rejected as `add` does."""
        with self._database.read() as connection:
            _fitting(connection, spec)

    def get(self, name: str) -> Stream:
        """One stream. Raises NotFound."""
        with self._database.read() as connection:
            return _get(connection, name)

    def list(self) -> list[Stream]:
        """All streams by name."""
        with self._database.read() as connection:
            return [_stream(row) for row in connection.execute(select(streams).order_by(streams.c.name))]

    def partitions(self, name: str) -> Sequence[StreamPartition]:
        """A stream's partitions, in their order. Raises NotFound."""
        with self._database.read() as connection:
            _get(connection, name)
            return _partitions(connection, name)

    def set_state(self, name: str, state: State, note: str = "") -> Stream:
        """Pauses a stream, stops it or lets it go on: then its partitions are tried again, too. Safe to call twice.
        Raises NotFound."""
        with self._database.write() as connection:
            _get(connection, name)
            if state == "active":
                connection.execute(update(stream_partitions).where(stream_partitions.c.stream == name).values(note=""))
            connection.execute(update(streams).where(streams.c.name == name).values(state=state, note=note))
            return _get(connection, name)

    def tell(self, name: str, note: str) -> None:
        """Says what an active stream waits for; empty: nothing. One that is not active keeps its own note."""
        mine = (streams.c.name == name, streams.c.state == "active")
        with self._database.write(later=True) as connection:
            connection.execute(update(streams).where(*mine).values(note=note))

    def tell_partition(self, name: str, partition: int, token: int, note: str) -> None:
        """Says why a partition is not read on, under its lease; empty: it is. Raises Fenced."""
        column = stream_partitions.c
        with self._database.write(later=True) as connection:
            require(connection, partition_lease(name, partition), token)
            here = (column.stream == name, column.partition == partition)
            connection.execute(update(stream_partitions).where(*here).values(note=note))

    def remove(self, name: str) -> None:
        """Forgets a stream and its offsets; its facts and its source stay. Raises NotFound."""
        with self._database.write() as connection:
            _get(connection, name)
            for table in (stream_partitions, stream_schemas):
                connection.execute(delete(table).where(table.c.stream == name))
            connection.execute(delete(streams).where(streams.c.name == name))

    def looked(self, name: str, look: Look, now: float) -> Sequence[str]:
        """Keeps what the topic is now, and what follows from it; returns what operators should know of that, once.

        Raises:
            NotFound, Forbidden: its source is killed, or the stream was removed meanwhile.
        """
        with self._database.write() as connection:
            stream = _get(connection, name)
            if stream.state == "stopped":
                return ()
            known = _partitions(connection, name)
            found = follow(stream.topic_id, known, look, stream.spec.begin)
            values: dict[str, Any] = {"looked": now, "topic_id": look.topic_id}
            if found.stop:
                values = {"looked": now, "state": "stopped", "note": found.stop}
            connection.execute(update(streams).where(streams.c.name == name).values(**values))
            self._keep(connection, stream, look, known, found, now)
            return (found.stop, *found.notes) if found.stop else found.notes

    def _keep(
        self, connection: Connection, stream: Stream, look: Look, known: Sequence[StreamPartition], found: Followed,
        now: float,
    ) -> None:  # fmt: skip
        parts = found.partitions
        if found.fresh:
            begins = {str(part.partition): part.start for part in parts if part.partition in found.fresh}
            last = max((part.epoch for part in known), default=0)
            epoch = _range_epoch(connection, stream.spec, now, look.topic_id, begins, last)
            parts = tuple(replace(part, epoch=epoch) if part.partition in found.fresh else part for part in parts)
            if stream.topic_id != look.topic_id and stream.spec.format != "debezium":
                mine = streams.c.name == stream.spec.name
                connection.execute(update(streams).where(mine).values(timeline_epoch=epoch))
        if stream.topic_id != look.topic_id:
            gone = stream_partitions.c.stream == stream.spec.name
            connection.execute(delete(stream_partitions).where(gone))
            known = ()
        _write(connection, stream.spec.name, [part for part in parts if part not in known])

    def skip_removed(self, name: str, look: Look) -> Stream:
        """Lets a stopped stream go on behind what was removed unread: those records are given up. Raises NotFound."""
        with self._database.write() as connection:
            _get(connection, name)
            _write(connection, name, skipped(_partitions(connection, name), look))
            connection.execute(update(streams).where(streams.c.name == name).values(state="active", note=""))
            return _get(connection, name)

    def skip_to(self, name: str, partition: int, offset: int) -> None:
        """Lets a partition that has stopped go on at a later offset: what it has before that is given up.

        Raises:
            NotFound: there is no such partition.
            Rejected: it has not stopped, or the offset is not one of those behind the one at which it stands.
        """
        with self._database.write() as connection:
            part = next((one for one in _partitions(connection, name) if one.partition == partition), None)
            if part is None:
                raise NotFound(f"stream {name!r} has no partition {partition}; see `intelgraph streams show {name}`")
            if not part.note:
                raise Rejected(f"stream {name!r}, partition {partition} has not stopped: nothing is to be given up")
            if not part.offset < offset <= part.end:
                raise Rejected(
                    f"stream {name!r}, partition {partition} stands at offset {part.offset}, and the topic ends at"
                    f" {part.end}: {offset} is not between them"
                )
            _write(connection, name, [replace(part, offset=offset, leader_epoch=-1, note="")])

    def commit(self, name: str, read: Read) -> None:
        """Moves a partition forward: everything before `offset` is in the event log or a dead letter.

        Raises:
            Fenced: another holds the lease, or another range is being read now.
            Conflict: the partition stands elsewhere: this call has succeeded before, or look where to go on.
            Forbidden: the source is killed in one of its tenants.
            NotFound: the stream was removed.
        """
        with self._database.write(later=True) as connection:
            require(connection, partition_lease(name, read.partition), read.token)
            stream = _get(connection, name)
            for tenant in stream.spec.tenants:
                live_source_in(connection, tenant, name)
            column = stream_partitions.c
            here = (column.stream == name, column.partition == read.partition)
            stands = connection.execute(select(column.epoch, column.offset).where(*here)).one_or_none()
            if stands is None or stands.epoch != read.epoch:
                raise Fenced(f"stream {name}, partition {read.partition}: another range is being read now")
            if stands.offset != read.before:
                raise Conflict(
                    f"stream {name}, partition {read.partition}: it stands at {stands.offset}, not {read.before}", 0.1
                )
            values = {"offset": read.offset, "carried": read.carried, "acked": column.acked + read.acked,
                      "dead": column.dead + read.dead, "leader_epoch": read.leader_epoch}  # fmt: skip
            if read.record_ms:
                values["record_ms"] = read.record_ms
            if read.partial is not None:
                values["partial"] = int(read.partial)
            connection.execute(update(stream_partitions).where(*here).values(**values))


def _fitting(connection: Connection, spec: StreamSpec) -> Row[Any] | None:
    """The row of the stream that this is, if it is registered. Raises Rejected."""
    if not spec.tenants or len(set(spec.tenants)) != len(spec.tenants):
        raise Rejected(f"stream {spec.name!r}: name each of its tenants once")
    if not spec.topic:
        raise Rejected(f"stream {spec.name!r}: name its topic")
    if (spec.format == "debezium") != bool(spec.table):
        raise Rejected(f"stream {spec.name!r}: a table belongs to format debezium, and that to a table")
    if (spec.schema != "none") != bool(spec.subject):
        raise Rejected(f"stream {spec.name!r}: a subject belongs to a use of schemas, and that to a subject")
    if spec.schema == "pinned" and spec.format != "event":
        raise Rejected(f"stream {spec.name!r}: envelopes name their schemas (registry), or have none")
    known = _row(connection, spec.name)
    if known is not None and _stream(known).spec != spec:
        raise Rejected(f"stream {spec.name!r} is there and reads something else: give this one another name")
    return known


def _range_epoch(connection: Connection, spec: StreamSpec, now: float, *range: object) -> int:
    """The epoch of a range that begins now. A stream that is added again gets the one that it had, unless others have
    begun since: what its topic says from now on is newer than what those said."""
    epoch = epoch_of(connection, spec.tenants, spec.name, _digest(spec, *range), now)
    newest = newest_epoch(connection, spec.tenants, spec.name)
    if epoch == newest:
        return epoch
    return epoch_of(connection, spec.tenants, spec.name, _digest(spec, *range, newest), now)


def _digest(spec: StreamSpec, *range: object) -> str:
    text = json.dumps(["stream", sorted(spec.tenants), spec.topic, *range], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write(connection: Connection, name: str, parts: Sequence[StreamPartition]) -> None:
    for part in parts:
        upsert(connection, stream_partitions, {"stream": name, **asdict(part)})


def _partitions(connection: Connection, name: str) -> list[StreamPartition]:
    column = stream_partitions.c
    query = select(stream_partitions).where(column.stream == name).order_by(column.partition)
    rows = [dict(row._mapping) for row in connection.execute(query)]
    return [StreamPartition(**{key: value for key, value in row.items() if key != "stream"}) for row in rows]


def _row(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(streams).where(streams.c.name == name)).one_or_none()


def _get(connection: Connection, name: str) -> Stream:
    row = _row(connection, name)
    if row is None:
        raise NotFound(f"there is no stream {name!r}; see `intelgraph streams list`")
    return _stream(row)


def _stream(row: Row[Any]) -> Stream:
    found = row._mapping
    spec = StreamSpec(
        found["name"], tuple(json.loads(found["tenants"])), found["topic"], found["format"], found["table"],
        found["begin"], found["schema"], found["subject"],
    )  # fmt: skip
    own = ("state", "note", "topic_id", "timeline_epoch", "looked", "created")
    return Stream(spec, **{name: found[name] for name in own})
