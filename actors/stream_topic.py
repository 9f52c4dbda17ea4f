"""What a stream's reader needs of the broker's side: `cluster.stores.kafka_stream.KafkaStream`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from actors.connectors.topic import TimedRecord
from cluster.errors import IntelGraphError


class PartitionRead(Protocol):
    """What was read of a partition."""

    @property
    def records(self) -> Sequence[TimedRecord]:
        """In the order of their offsets."""

    @property
    def next(self) -> int:
        """Offset to go on at."""

    @property
    def end(self) -> int:
        """Offset behind the last record that is there; -1: it was not told."""

    @property
    def leader_epoch(self) -> int:
        """Of the leader that appended the record before `next`; -1: not known."""

    @property
    def failed(self) -> IntelGraphError | None:
        """Why nobody can read on at `next`."""


class TopicReader(Protocol):
    """Reads topics."""

    def read(
        self, topic_id: str, offsets: Mapping[int, int], limit_records: int, limit_bytes: int, block_ms: int,
        epochs: Mapping[int, int],
    ) -> Mapping[int, PartitionRead]:  # fmt: skip
        """Records of partitions from some offsets on; waits up to `block_ms` for a first one."""
