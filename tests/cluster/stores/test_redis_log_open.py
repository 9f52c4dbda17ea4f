"""Opening the log while others append to it."""

from __future__ import annotations

import threading

import pytest

from cluster.config import LogSettings
from cluster.embedded import Running
from cluster.stores.log import Append
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_log import open_redis_log

pytestmark = pytest.mark.services


def test_the_log_can_be_opened_while_others_append(log_server: Running, unique: str) -> None:
    address = RedisAddress(socket=str(log_server.socket), password=log_server.password)
    settings = LogSettings(partitions=2)
    log = open_redis_log(address, settings, unique)
    stop = threading.Event()

    def append() -> None:
        while not stop.is_set():
            log.append([Append(0, b"x", 1), Append(1, b"x", 1)])

    thread = threading.Thread(target=append)
    thread.start()
    try:
        for _ in range(100):
            open_redis_log(address, settings, unique).close()
    finally:
        stop.set()
        thread.join()
        log.close()
