"""Kafka's requests that aiokafka lacks, in the versions that name a topic by its id.

A topic that was deleted and made again under the same name has another id, so a request by id finds out; aiokafka's own
requests name topics only. Layouts are those of Kafka's message definitions: Fetch 13, Metadata 12, DescribeLogDirs 1.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

NO_ID = bytes(16)
"""Stands for a topic that is named, not identified."""


class Uuid(AbstractType):
    """16 bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """As it is."""
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        """As it is."""
        return data.read(16)


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
    """

    API_KEY = 1

    def __init__(self, topic_id: bytes, offsets: dict[int, int], partition_bytes: int, wait_ms: int) -> None:
        self._topic_id, self._offsets = topic_id, offsets
        self._partition_bytes, self._wait_ms = partition_bytes, wait_ms

    def build(self, request_struct_class: Any) -> Any:
        """The request; without a session, so that each stands for itself."""
        most = min(self._partition_bytes * len(self._offsets), (1 << 31) - 1)
        each: Any = [(p, -1, offset, -1, -1, self._partition_bytes, {}) for p, offset in self._offsets.items()]
        return request_struct_class(-1, self._wait_ms, 1, most, 0, 0, -1, [(self._topic_id, each, {})], [], "", {})


class MetadataResponse12(Response):
    """Brokers, and topics with their ids."""

    API_KEY, API_VERSION = 3, 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class MetadataRequest12(RequestStruct):
    """See `TopicMetadata`."""

    API_KEY, API_VERSION, FLEXIBLE_VERSION = 3, 12, True
    RESPONSE_TYPE = MetadataResponse12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicMetadata(Request[MetadataRequest12]):
    """Asks for one topic, by its id or by its name; never creates it."""

    API_KEY = 3

    def __init__(self, topic_id: bytes = NO_ID, name: str | None = None) -> None:
        self._topic_id, self._name = topic_id, name

    def build(self, request_struct_class: Any) -> Any:
        """The request."""
        return request_struct_class([(self._topic_id, self._name, {})], False, False, {})


class LogDirsResponse1(Response):
    """Sizes of partitions on one broker's disks, bytes."""

    API_KEY, API_VERSION = 35, 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "dirs",
            Array(
                ("error_code", Int16),
                ("log_dir", String("utf-8")),
                (
                    "topics",
                    Array(
                        ("topic", String("utf-8")),
                        (
                            "partitions",
                            Array(("partition", Int32), ("size", Int64), ("offset_lag", Int64), ("is_future", Boolean)),
                        ),
                    ),
                ),
            ),
        ),
    )


class LogDirsRequest1(RequestStruct):
    """See `LogDirs`."""

    API_KEY, API_VERSION = 35, 1
    RESPONSE_TYPE = LogDirsResponse1
    SCHEMA = Schema(("topics", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))))


class LogDirs(Request[LogDirsRequest1]):
    """Asks one broker for the sizes of a topic's partitions that it holds."""

    API_KEY = 35

    def __init__(self, topic: str, partitions: list[int]) -> None:
        self._topic, self._partitions = topic, partitions

    def build(self, request_struct_class: Any) -> Any:
        """The request."""
        return request_struct_class([(self._topic, self._partitions)])
