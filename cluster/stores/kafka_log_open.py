"""Opens the event log on Kafka: connect, find or make the topics, check them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka.errors import NotLeaderForPartitionError

from cluster.config import LogSettings
from cluster.stores.kafka_client import KafkaClient, connection_options
from cluster.stores.kafka_errors import CAUGHT, translate
from cluster.stores.kafka_log import KafkaEventLog
from cluster.stores.kafka_log_setup import Opened, open_topics
from cluster.stores.kafka_loop import LoopThread

_POLL_S = 0.1
_REQUEST_SHARE, _OPEN_TIMES = 0.75, 3.0
"""Of `timeout_s`: one request, so that a connection that died unnoticed leaves time for another; an opening."""


def open_kafka_log(
    settings: LogSettings, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, mending: bool = False
) -> KafkaEventLog:
    """Opens the log that `settings.kafka` names, creating it where there is none; safe to call from several processes.

    Args:
        clock_ms: the time that entries are stamped with, ms since 1970.
        mending: by who opens a new generation, and fills it; `log.max_bytes` does not bound that.

    Raises:
        Rejected: the brokers or the topic are not fit, or the log has another number of partitions.
        Corrupt: the log's topic is gone.
        Unavailable: the brokers do not answer, or refuse the password.
    """
    options = connection_options(settings.kafka, settings.timeout_s * _REQUEST_SHARE)
    thread = LoopThread("kafka-log")
    try:
        opening = _opened(thread, options, settings, clock_ms, mending)
        return thread.run_within(opening, settings.timeout_s * _OPEN_TIMES)
    except BaseException as error:
        thread.stop()
        if isinstance(error, CAUGHT):
            raise translate(error) from error
        raise


async def _led(client: KafkaClient, settings: LogSettings, mending: bool) -> Opened:
    """The log's topics; brokers that have just started are named as leaders a moment before they are."""
    while True:
        try:
            return await open_topics(client, settings, mending)
        except NotLeaderForPartitionError:
            await asyncio.sleep(_POLL_S)


async def _opened(
    thread: LoopThread, options: Mapping[str, Any], settings: LogSettings, clock_ms: Callable[[], int], mending: bool
) -> KafkaEventLog:
    client = KafkaClient(settings.kafka.bootstrap, options)
    try:
        await client.start()
        opened = await _led(client, settings, mending)
        await client.disk_bytes(opened.topic)  # what may not be asked is better known now
    except BaseException:
        await client.close()
        raise
    return KafkaEventLog(thread, client, settings, opened, clock_ms, mending)
