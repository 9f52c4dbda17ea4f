"""Kafka's requests for entries that aiokafka lacks, in the versions that name a topic by its id.

A topic that was deleted and made again under the same name has another id, so a request by id finds out; aiokafka's own
requests name topics only. Layouts are those of Kafka's message definitions of Produce 13 and Fetch 13.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.produce import ProduceRequest_v8
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from cluster.stores.kafka_wire_topics import Uuid

_ALL_REPLICAS = -1
_DIVERGING, _EPOCH_AND_END = 0, struct.Struct(">iq")


class ProduceResponse13(Response):
    """Offsets of what was appended, by topic id."""

    API_KEY, API_VERSION = 0, 13
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("offset", Int64),
                        ("timestamp", Int64),
                        ("log_start_offset", Int64),
                        (
                            "record_errors",
                            CompactArray(
                                ("batch_index", Int32), ("message", CompactString("utf-8")), ("tags", TaggedFields)
                            ),
                        ),
                        ("error_message", CompactString("utf-8")),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class ProduceRequest13(RequestStruct):
    """See `Produce`."""

    API_KEY, API_VERSION, FLEXIBLE_VERSION = 0, 13, True
    RESPONSE_TYPE = ProduceResponse13
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("required_acks", Int16),
        ("timeout_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(("partition", Int32), ("records", CompactBytes), ("tags", TaggedFields)),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class Produce(Request[ProduceRequest_v8 | ProduceRequest13]):
    """Appends one batch; acknowledged by as many replicas as the topic demands.

    Brokers older than Kafka 4.1 take no topic ids here. They get the name, and a topic made again under it takes the
    batch.

    Args:
        timeout_ms: how long the broker waits for the other replicas.
    """

    API_KEY = 0

    def __init__(self, name: str, topic_id: bytes, partition: int, batch: bytes, timeout_ms: int) -> None:
        self._name, self._topic_id, self._partition = name, topic_id, partition
        self._batch, self._timeout_ms = batch, timeout_ms

    def build(self, request_struct_class: Any) -> Any:
        """The request."""
        if request_struct_class is ProduceRequest13:
            topics: Any = [(self._topic_id, [(self._partition, self._batch, {})], {})]
            return request_struct_class(None, _ALL_REPLICAS, self._timeout_ms, topics, {})
        return request_struct_class(
            None, _ALL_REPLICAS, self._timeout_ms, [(self._name, [(self._partition, self._batch)])]
        )


class FetchResponse13(Response):
    """Entries of partitions, by topic id."""

    API_KEY, API_VERSION = 1, 13
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("high_watermark", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        (
                            "aborted_transactions",
                            CompactArray(("producer_id", Int64), ("first_offset", Int64), ("tags", TaggedFields)),
                        ),
                        ("preferred_read_replica", Int32),
                        ("records", CompactBytes),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class FetchRequest13(RequestStruct):
    """See `FetchById`."""

    API_KEY, API_VERSION, FLEXIBLE_VERSION = 1, 13, True
    RESPONSE_TYPE = FetchResponse13
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_ms", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("fetch_offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("partition_max_bytes", Int32),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        (
            "forgotten",
            CompactArray(("topic_id", Uuid), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("rack_id", CompactString("utf-8")),
        ("tags", TaggedFields),
    )


class FetchById(Request[FetchRequest13]):
    """Asks for the entries from some offsets on.

    Args:
        offsets: the first offset wanted, by partition.
        partition_bytes: of each partition at most, except that the first one answers with one batch at least.
        wait_ms: how long the broker may wait for the first byte.
        committed: nothing from the first open transaction on, and the answer names the aborted ones.
        epochs: of the leader of the entry before each offset, by partition; where one is named, a broker that has
            other entries there says so (`diverged`) and gives none.
    """

    API_KEY = 1

    def __init__(
        self, topic_id: bytes, offsets: dict[int, int], partition_bytes: int, wait_ms: int, committed: bool = False,
        epochs: Mapping[int, int] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self._topic_id, self._offsets, self._isolation = topic_id, offsets, int(committed)
        self._partition_bytes, self._wait_ms, self._epochs = partition_bytes, wait_ms, epochs

    def build(self, request_struct_class: Any) -> Any:
        """The request; without a session, so that each stands for itself."""
        most = min(self._partition_bytes * len(self._offsets), (1 << 31) - 1)
        each: Any = [
            (p, -1, offset, self._epochs.get(p, -1), -1, self._partition_bytes, {})
            for p, offset in self._offsets.items()
        ]
        topics: Any = [(self._topic_id, each, {})]
        return request_struct_class(-1, self._wait_ms, 1, most, self._isolation, 0, -1, topics, [], "", {})


def diverged(tags: Mapping[int, bytes]) -> tuple[int, int] | None:
    """Of a partition in the answer to a fetch: the newest leader epoch up to the one that was named that the broker
    has, and the offset behind it; None where the entry before the offset is still the same."""
    said = tags.get(_DIVERGING)
    return None if said is None else _EPOCH_AND_END.unpack_from(said)
