"""Opens the event log that the configuration names."""

from __future__ import annotations

from cluster.config import LogSettings
from cluster.stores.kafka_log_open import open_kafka_log
from cluster.stores.log import EventLog
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_log import open_redis_log


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
        return open_kafka_log(settings, mending=mending)
    return open_redis_log(redis, settings, namespace, mending=mending)
