"""A shard's checkpoint: a background save, waited for."""

from __future__ import annotations

import time
from typing import Any

import redis

from cluster.embedded.process import put_children_behind
from cluster.embedded.server import operator
from cluster.embedded.serverlog import failure
from cluster.embedded.spec import Checkpoint, Role, Running
from cluster.errors import Rejected, Unavailable

_POLL_FIRST_S = 0.005
_POLL_LAST_S = 0.1


def checkpoint(running: Running, deadline_s: float = 600.0) -> Checkpoint:
    """Saves a shard as it is now, beside its work, and waits until the file is durable and in its place.

    Redis writes the file aside, fsyncs it and renames it: a failed save leaves the one before. Safe to call again; a
    save that is under way is waited for first, since it began before what the caller has just written. Those that
    somebody waits for go before it.

    Raises:
        Unavailable: the save failed (disk full) or took too long. The shard goes on; what is not saved is in the log.
        Rejected: the server is no shard.
    """
    if running.spec.role is not Role.SHARD:
        raise Rejected(f"{running.spec.name} has no checkpoints: only shards have")
    began = time.monotonic()
    end = began + deadline_s
    log_bytes = running.spec.log_file.stat().st_size
    try:
        with operator(running.spec) as client:
            _wait_idle(client, running, end)
            client.bgsave()
            put_children_behind(running.pid, running.start_ticks)
            after = _wait_idle(client, running, end)
    except redis.RedisError as error:
        raise Unavailable(f"{running.spec.name} does not answer; nothing is known of its checkpoint") from error
    if after["rdb_last_bgsave_status"] != "ok":
        raise failure(running.spec, log_bytes, f"checkpoint of {running.spec.name} failed: free disk space; it goes on")
    size = running.spec.dump_file.stat().st_size
    return Checkpoint(size, time.monotonic() - began, int(after["rdb_last_save_time"]))


def last_save_failed(running: Running) -> bool:
    """Whether the newest save that has ended was a failure.

    Raises:
        Unavailable: the shard does not answer.
    """
    try:
        with operator(running.spec) as client:
            return str(client.info("persistence")["rdb_last_bgsave_status"]) != "ok"
    except redis.RedisError as error:
        raise Unavailable(f"{running.spec.name} does not answer; restart it") from error


def _wait_idle(client: redis.Redis, running: Running, end: float) -> dict[str, Any]:
    pause_s = _POLL_FIRST_S
    while True:
        info: dict[str, Any] = client.info("persistence")
        if not info["rdb_bgsave_in_progress"]:
            return info
        if time.monotonic() >= end:
            raise Unavailable(f"checkpoint of {running.spec.name} takes too long; it goes on in the background")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _POLL_LAST_S)
