"""Kafka's requests about topics that aiokafka lacks: Metadata 12, which knows their ids, DescribeLogDirs 1, and
IncrementalAlterConfigs 0, which leaves all other settings as they are."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

_TOPIC, _SET, _DELETE = 2, 0, 1

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


class AlterConfigsResponse0(Response):
    """Whether settings were changed."""

    API_KEY, API_VERSION = 44, 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "resources",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class AlterConfigsRequest0(RequestStruct):
    """See `AlterConfigs`."""

    API_KEY, API_VERSION = 44, 0
    RESPONSE_TYPE = AlterConfigsResponse0
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class AlterConfigs(Request[AlterConfigsRequest0]):
    """Changes some settings of a topic.

    Args:
        config: by name; None: as the brokers have it for all topics.
    """

    API_KEY = 44

    def __init__(self, topic: str, config: Mapping[str, str | None]) -> None:
        self._topic, self._config = topic, config

    def build(self, request_struct_class: Any) -> Any:
        """The request."""
        changes = [(name, _DELETE if value is None else _SET, value) for name, value in self._config.items()]
        return request_struct_class([(_TOPIC, self._topic, changes)], False)
