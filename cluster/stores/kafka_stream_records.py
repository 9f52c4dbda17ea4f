"""What a reader of topics gives and raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.errors import Corrupt, IntelGraphError, NotFound


class TopicLook(NamedTuple):
    """A topic as it stands now.

    Args:
        id: hex, drawn by the cluster when the topic was made: one made again under the name has another.
        first: first offset that can be read, by partition.
        end: offset behind the last record that a reader may see, by partition: an open transaction holds back all
            that follows it.
        unseen: partitions that nobody leads, or whose leader does not answer: nothing is known of their offsets.
        replaced: partitions that were read further than the brokers still have what was read, though there may be
            other records now: the offset from which on they are others.
    """

    name: str
    id: str
    first: Mapping[int, int]
    end: Mapping[int, int]
    unseen: frozenset[int] = frozenset()
    replaced: Mapping[int, int] = {}


class StreamRecord(NamedTuple):
    """A record of a topic.

    Args:
        timestamp_ms: ms since 1970, by its producer's clock or the broker's, as the topic says; -1 for none.
        value: None for a tombstone.
        headers: in the order of the record; a name may come twice, and a value that is none is empty.
        bad: why it is no record that can be read: one by itself, the others of its batch are sound. Its value is then
            what can be told of it, or all of its bytes. Empty: it is one.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    bad: str = ""


class StreamRead(NamedTuple):
    """What was read of one partition.

    Args:
        records: in order; offsets may have gaps. None, where there is nothing but what readers do not see.
        next: offset to go on at, behind all that was looked at: records, aborted ones, the marks of transactions.
        end: as `TopicLook.end`, when the leader was last asked; -1: it has not told.
        leader_epoch: of the batch before `next`; -1: nothing was read, or it has none.
        failed: why nobody can read on at `next`; None: nothing is known against it.
    """

    records: list[StreamRecord]
    next: int
    end: int
    leader_epoch: int = -1
    failed: IntelGraphError | None = None


class Reached(NamedTuple):
    """How far a partition was read.

    Args:
        leader_epoch: of the record before `offset`; -1: not known.
    """

    offset: int
    leader_epoch: int = -1


class StreamGone(NotFound):
    """The brokers do not know the topic's id: it was deleted, and one of the same name would be another topic."""

    def __init__(self, topic_id: str) -> None:
        super().__init__(
            f"the topic of id {topic_id} was deleted, and one that was made again under its name is another: look the"
            " name up again"
        )
        self.topic_id = topic_id

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.topic_id,)


class OffsetLost(Corrupt):
    """A partition lacks the offset that was asked for: retention removed it, or the brokers lost its end.

    Args:
        asked: the offset.
        first, end: what the partition has: from `first` on, below `end`.
        replaced: it has other records now than were read, from this offset on; None: it has none there.
    """

    def __init__(self, partition: int, asked: int, first: int, end: int, replaced: int | None = None) -> None:
        if replaced is not None:
            super().__init__(
                f"partition {partition} was read to offset {asked}, and has other records now from {replaced} on: the"
                " brokers have lost its end, and it has grown again"
            )
        else:
            why = "its first ones were removed (retention)" if asked < first else "the brokers have lost its end"
            super().__init__(
                f"partition {partition} has the offsets {first} to {end}, and {asked} was asked for: {why}"
            )
        self.partition, self.asked, self.first, self.end, self.replaced = partition, asked, first, end, replaced

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.partition, self.asked, self.first, self.end, self.replaced)
