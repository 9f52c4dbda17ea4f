"""Kafka's request for where leader epochs end, which aiokafka lacks: OffsetForLeaderEpoch 4 (KIP-320).

A leader numbers the batches that it appends with its epoch, which grows with each election. So where an epoch ends
tells whether a record that was read under it is still the one that was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

_CONSUMER, _ANY = -1, -1


class EpochEndsResponse4(Response):
    """Where epochs end, by topic."""

    API_KEY, API_VERSION = 23, 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader_epoch", Int32),
                        ("end_offset", Int64),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class EpochEndsRequest4(RequestStruct):
    """See `EpochEnds`."""

    API_KEY, API_VERSION, FLEXIBLE_VERSION = 23, 4, True
    RESPONSE_TYPE = EpochEndsResponse4
    SCHEMA = Schema(
        ("replica_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("leader_epoch", Int32),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class EpochEnds(Request[EpochEndsRequest4]):
    """Asks a topic's leaders for the newest epoch that they have, up to one that is named, and the offset behind it;
    -1 and -1 where they have had none of that number yet.

    Args:
        epochs: by partition.
    """

    API_KEY = 23

    def __init__(self, topic: str, epochs: Mapping[int, int]) -> None:
        self._topic, self._epochs = topic, epochs

    def build(self, request_struct_class: Any) -> Any:
        """The request."""
        each: Any = [(partition, _ANY, epoch, {}) for partition, epoch in self._epochs.items()]
        return request_struct_class(_CONSUMER, [(self._topic, each, {})], {})
