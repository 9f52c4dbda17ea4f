"""A stream, and how far each partition of its topic is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Format = Literal["event", "debezium"]
Table = Literal["entities", "relationships", "claims"]
Begin = Literal["earliest", "latest"]
State = Literal["active", "paused", "stopped", "removed"]
SchemaUse = Literal["none", "registry", "pinned"]


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What an operator registers. It does not change afterwards.

    Args:
        name: unique in the installation; also the source of its facts in each of its tenants.
        tenants: whose records the topic may hold; the first is its owner, who gets the dead letters of records that
            name no tenant of the stream.
        format: `event`: a record's value is one event; `debezium`: an envelope of change capture.
        table: of `debezium`: the one whose changes the topic holds.
        begin: where a topic that is read for the first time begins.
        schema: `registry`: each record names its schema; `pinned`: records are JSON that one schema of the registry
            describes; `none`: records are JSON, and nothing but the format is asked of them.
        subject: under which the registry keeps the topic's schemas.
    """

    name: str
    tenants: tuple[str, ...]
    topic: str
    format: Format = "event"
    table: str = ""
    begin: Begin = "earliest"
    schema: SchemaUse = "none"
    subject: str = ""

    @property
    def owner(self) -> str:
        """The first tenant."""
        return self.tenants[0]


@dataclass(frozen=True, slots=True)
class Stream:
    """A registered stream.

    Args:
        state: `paused` by an operator; `stopped` by itself, until somebody decides.
        note: what that is about; of an active one, what it waits for.
        topic_id: hexadecimal, of the topic that is being read; empty before the first look.
        timeline_epoch: epoch of records that bring positions of their own. Of change capture it is for ever; of others
            it is that of the topic's first ranges, whatever new ones partitions or lost tails open later.
        looked: when the topic was seen last, seconds since 1970.
    """

    spec: StreamSpec
    state: State
    note: str
    topic_id: str
    timeline_epoch: int
    looked: float | None
    created: float


@dataclass(frozen=True, slots=True)
class StreamPartition:
    """One partition of a stream's topic.

    Args:
        epoch: of the range that is being read; 0: nothing is read yet, since the range before is not drained, or
            nobody has said where the partition begins.
        start: first offset of the range.
        offset: the next to read: everything before it is in the event log, or a dead letter.
        cut: where the range ends, once that is known.
        carried: what change capture carries along the partition: the LSN of its last initial snapshot.
        end: offset behind the topic's last record, as last seen.
        acked, dead: records since the stream began.
        record_ms: time of the last record read, ms since 1970, as its producer or broker gave it.
        leader_epoch: of the leader that appended the record before `offset`; -1: not known.
        note: why it is not read on, while the others are; empty: nothing stands against it.
        partial: whether the last update of change capture came without the row before it.
    """

    partition: int
    epoch: int
    start: int
    offset: int
    cut: int | None = None
    carried: int = 0
    end: int = 0
    acked: int = 0
    dead: int = 0
    record_ms: int = 0
    leader_epoch: int = -1
    note: str = ""
    partial: int = 0

    @property
    def lag_records(self) -> int:
        """Offsets that are there and not read."""
        return max(0, self.end - self.offset)

    def lag_s(self, now: float) -> float:
        """Age of the last record read, seconds, while there are others behind it; 0 where it is read to its end, and
        where the records say no time."""
        if not self.lag_records or self.record_ms <= 0:
            return 0.0
        return max(0.0, now - self.record_ms / 1000)

    @property
    def drained(self) -> bool:
        """Whether its range is read to the end."""
        return self.cut is not None and self.offset >= self.cut


class Look(NamedTuple):
    """A topic as it stands.

    Args:
        first, end: by partition: first offset that can be read; offset behind the last.
        reached: by partition: how far it was read before the look began; None: it is not read meanwhile.
        unseen: partitions that are there, of which nobody says where they stand: no leader answers.
        replaced: by partition: offset from which on there are other records than were read.
    """

    topic_id: str
    first: Mapping[int, int]
    end: Mapping[int, int]
    reached: Mapping[int, int] | None = None
    unseen: frozenset[int] = frozenset()
    replaced: Mapping[int, int] = {}
