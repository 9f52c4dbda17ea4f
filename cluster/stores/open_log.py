"""Opens the event log that the configuration names."""

from __future__ import annotations

from cluster.config import LogSettings
from cluster.stores.log import EventLog
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_log import open_redis_log

_CONTROL = "-control"
CONTROL_NAMESPACE = f"log{_CONTROL}"
"""Of the keys of the control partition beside the log of the usual namespace."""
_CONTROL_TIMEOUT_S = 5.0
"""The control store is locked for so long at most while the log does not answer: less than others wait for the lock."""


def open_log(settings: LogSettings, redis: RedisAddress, namespace: str = "log", *, mending: bool = False) -> EventLog:
    """A connection of its own to the log of `settings.kind`; creates the log where there is none.

    Args:
        redis: where the log's Redis is, for that kind.
        namespace: of the log's keys there.
        mending: by who opens a new generation, and fills it.

    Raises:
        Rejected: the server is not fit, or the log has another number of partitions.
        Corrupt: the log contradicts itself.
        Unavailable: the server does not answer, or a new generation is being filled.
    """
    if settings.kind == "kafka":
        from cluster.stores.kafka_log_open import open_kafka_log  # its library takes a while to import

        return open_kafka_log(settings, mending=mending)
    return open_redis_log(redis, settings, namespace, mending=mending)


def open_control_log(settings: LogSettings, redis: RedisAddress, namespace: str = "log") -> EventLog:
    """A connection of its own to the control partition of a log; creates it where there is none.

    It is a log with one partition, beside the other: `<namespace>-control`, on Kafka `<topic_prefix>.control`. It takes
    entries when the log is full, too: what empties the log writes to the control store.

    Args:
        settings, redis, namespace: of the log that it belongs to.

    Raises:
        as `open_log`.
    """
    kafka = settings.kafka.model_copy(update={"topic_prefix": f"{settings.kafka.topic_prefix}.control"})
    changes = {
        "partitions": 1, "kafka": kafka, "max_bytes": settings.control_bytes,
        "timeout_s": min(settings.timeout_s, _CONTROL_TIMEOUT_S),
    }  # fmt: skip
    return open_log(settings.model_copy(update=changes), redis, namespace + _CONTROL, mending=True)
