"""Creating and checking the log's server and streams, at opening: see `cluster.stores.redis_log`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from cluster.errors import Corrupt, Rejected, Unavailable
from cluster.stores.log import LogIdentity
from cluster.stores.redis_errors import command

WHAT = "the event log"

_FIRST_GENERATION = 1
_VERSION_LEAST = (7, 2)
_PROBES = 4
_PROBES_WITHIN_S = 0.9
"""A server that syncs once a second cannot confirm four writes, one after the other, in less than this."""

_LAST_ID = """
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then return info[i + 1] end
end
"""


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The names of a log's keys.

    Args:
        namespace: what they begin with; logs of different namespaces on one server are apart.
    """

    namespace: str = "log"

    @property
    def meta(self) -> str:
        """Hash: name, generation, partitions; `unfinished` while the generation is being filled, and more."""
        return f"{self.namespace}:meta"

    @property
    def generations(self) -> str:
        """Hash: generation → its seams; of those after the first."""
        return f"{self.namespace}:generations"

    @property
    def begins(self) -> str:
        """Hash: partition → number of its first entry."""
        return f"{self.namespace}:begins"

    @property
    def counts(self) -> str:
        """Hash: partition → records ever appended. For display: a broken connection can leave it off by an append."""
        return f"{self.namespace}:counts"

    def stream(self, partition: int) -> str:
        """A partition's stream."""
        return f"{self.namespace}:p:{partition}"


def ranges(client: redis.Redis, keys: LogKeys, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """(begin, end) by partition, all of one moment. Raises the client's errors.

    Raises:
        Corrupt: a partition's begin is missing.
    """
    pipeline = client.pipeline(transaction=True)
    pipeline.hmget(keys.begins, [str(partition) for partition in partitions])
    for partition in partitions:
        pipeline.xlen(keys.stream(partition))
    begins, *lengths = pipeline.execute()
    if None in begins:
        raise Corrupt(f"{WHAT} has lost its own counts ({keys.begins}); restore the log's files")
    return {
        partition: (int(begin), int(begin) + length - 1)
        for partition, begin, length in zip(partitions, begins, lengths, strict=True)
    }


def check_server(client: redis.Redis) -> None:
    """Nothing if the server can be a log: new enough, append-only, evicting nothing. Raises the client's errors.

    Raises:
        Rejected: it cannot; the message says which setting to change.
        Unavailable: its last write to disk failed.
    """
    info: dict[str, Any] = {**client.info("server"), **client.info("persistence"), **client.info("memory")}
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < _VERSION_LEAST:
        raise Rejected(f"{WHAT} needs Redis 7.2 or newer, this is {info['redis_version']}")
    if not info["aof_enabled"]:
        raise Rejected(f"{WHAT}'s Redis has no append-only file: set `appendonly yes` and `appendfsync always`")
    if info["maxmemory_policy"] != "noeviction":
        raise Rejected(f"{WHAT}'s Redis may evict data: set `maxmemory-policy noeviction`")
    if info["aof_last_write_status"] != "ok":
        raise Unavailable(f"{WHAT}'s Redis cannot write to its disk: free space, then try again", 5.0)


def create_or_open(client: redis.Redis, keys: LogKeys, partitions: int) -> LogIdentity:
    """The log's identity; creates it where there is none, with so many partitions. Raises the client's errors.

    Raises:
        Corrupt: what identifies it is incomplete.
    """
    raw = cast(dict[bytes, bytes], client.hgetall(keys.meta))
    if not raw:
        _create(client, keys, partitions)
        raw = cast(dict[bytes, bytes], client.hgetall(keys.meta))
    try:
        return LogIdentity(raw[b"name"].decode(), int(raw[b"generation"]), int(raw[b"partitions"]))
    except (KeyError, ValueError) as error:
        raise Corrupt(f"{WHAT}: {keys.meta} is not readable; restore the log's files") from error


def _create(client: redis.Redis, keys: LogKeys, partitions: int) -> None:
    with client.pipeline(transaction=True) as pipeline:
        try:
            pipeline.watch(keys.meta)  # type: ignore[no-untyped-call]
            if pipeline.exists(keys.meta):
                return
            pipeline.multi()
            for partition in range(partitions):
                command(pipeline, "XADD", keys.stream(partition), f"{_FIRST_GENERATION}-0", "d", "")
                command(pipeline, "XTRIM", keys.stream(partition), "MAXLEN", 0)
                pipeline.hset(keys.begins, str(partition), "1")
            name = secrets.token_hex(16)
            pipeline.hset(keys.meta, mapping={"name": name, "generation": _FIRST_GENERATION, "partitions": partitions})
            pipeline.execute()
        except redis.WatchError:
            return  # another process has created it meanwhile


def check_streams(client: redis.Redis, keys: LogKeys, identity: LogIdentity, count: int) -> None:
    """Nothing if the last id of each of so many streams is what its begin and length say. Raises the client's errors.

    Raises:
        Corrupt: a stream is missing, or entries in its midst are.
    """
    last_id = client.register_script(_LAST_ID)
    partitions = range(count)
    before = ranges(client, keys, partitions)
    last: dict[int, str] = {}
    for partition in partitions:
        try:
            last[partition] = last_id(keys=[keys.stream(partition)]).decode()
        except redis.ResponseError as error:
            raise Corrupt(f"log partition {partition} is missing; restore the log's files") from error
    after = ranges(client, keys, partitions)  # others may append meanwhile: a last id lies between the two counts
    for partition in partitions:
        generation, _, number = last[partition].partition("-")
        least, most = before[partition][1], after[partition][1]
        if generation != str(identity.generation) or not least <= int(number) <= most:
            raise Corrupt(
                f"log partition {partition} counts {most} entries, ends at {last[partition]}; restore its files"
            )


def answers_are_synced(client: redis.Redis, keys: LogKeys, timeout_s: float) -> bool:
    """Whether an answer of this server means that the write is on disk (`appendfsync always`).

    Raises:
        Rejected: it does not sync its append-only file within 0.8 × `timeout_s`.
    """
    return any(_answers_quickly(client, keys, timeout_s) for _ in range(2))


def _answers_quickly(client: redis.Redis, keys: LogKeys, timeout_s: float) -> bool:
    began_s = time.monotonic()
    for _ in range(_PROBES):
        pipeline = client.pipeline(transaction=False)
        pipeline.hincrby(keys.meta, "opened", 1)
        command(pipeline, "WAITAOF", 1, 0, int(timeout_s * 800))
        if pipeline.execute()[1][0] < 1:
            raise Rejected(f"{WHAT}'s Redis does not sync its append-only file: set `appendfsync always`")
        if time.monotonic() - began_s >= _PROBES_WITHIN_S:
            return False
    return True
