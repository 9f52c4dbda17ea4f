"""The event log on Redis Streams: one stream a partition, one Redis process of its own.

    <ns>:meta     hash: name, generation, partitions (redis_log_generations.py has more)
    <ns>:begins   hash: partition → number of its first entry
    <ns>:p:<n>    stream: id <generation>-<number>, fields d (data), n (records), t (appended, ms),
                  and p (polled, ms) where it was said

Redis counts the number itself (`XADD key <generation>-*`), and keeps counting after a trim or a restart; the stream
starts from a removed entry 0, so the first is 1. The last number is begin + length - 1: there are no gaps.

**Durable** means fsynced by the log's server. At connecting, several writes are each waited for (`WAITAOF`); if they
come back faster than a server that syncs once a second could do it, it runs with `appendfsync always` and its answers
mean durability. Otherwise every append waits for the sync itself, which costs up to a second.

Threads may share an instance. A child process has to open its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from cluster.config import LogSettings
from cluster.errors import Corrupt, OutcomeUnknown, Overloaded, Rejected, Unavailable
from cluster.stores import redis_log_generations
from cluster.stores import redis_log_setup as setup
from cluster.stores.log import (
    Append,
    Entry,
    Generation,
    LogIdentity,
    all_partitions,
    check_continuity,
    check_number,
    check_range,
    entry_as_read,
    generation_at,
)
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_errors import command, translate, translated
from cluster.stores.redis_log_setup import WHAT, LogKeys

_USED_FOR_S = 1.0
"""How long a reading of the memory used is believed; what is appended meanwhile is added to it."""

_TRIM = """
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[1])
if removed > 0 then redis.call('HINCRBY', KEYS[2], ARGV[2], removed) end
return removed
"""


class RedisEventLog:
    """`EventLog` on Redis Streams; made by `open_redis_log`."""

    def __init__(
        self,
        client: redis.Redis,
        keys: LogKeys,
        settings: LogSettings,
        identity: LogIdentity,
        generations: Sequence[Generation],
        synced_answers: bool,
        clock_ms: Callable[[], int],
        mending: bool,
    ) -> None:
        self._client, self._keys, self._settings, self._identity = client, keys, settings, identity
        self._generations, self._mending, self._synced_answers = tuple(generations), mending, synced_answers
        self._all, self._clock_ms = all_partitions(identity, generations), clock_ms
        self._trim = client.register_script(_TRIM)
        self._used_bytes, self._used_until_s = 0, 0.0
        self._entry_bytes = settings.entry_bytes // 16  # of entries seen lately: how many are worth asking for at once

    @property
    def identity(self) -> LogIdentity:
        """Which log this is; a consumer that knew another one must not go on."""
        return self._identity

    @property
    def generations(self) -> tuple[Generation, ...]:
        """See `EventLog.generations`."""
        return self._generations

    @property
    def all_partitions(self) -> int:
        """See `EventLog.all_partitions`."""
        return self._all

    @property
    def is_unfinished(self) -> bool:
        """See `EventLog.is_unfinished`."""
        with translated(WHAT):
            return redis_log_generations.is_unfinished(self._client, self._keys)

    def begin_generation(self, new: Generation) -> None:
        """See `EventLog.begin_generation`."""
        if not self._mending:
            raise ValueError("this log was not opened for mending")
        new = new._replace(partitions=new.partitions or self._identity.partitions)
        with translated(WHAT, sent=True):
            redis_log_generations.begin(self._client, self._keys, self._identity, new, self._settings.timeout_s)
        self._identity = self._identity._replace(generation=new.number, partitions=new.partitions)
        self._generations, self._all = (*self._generations, new), len(new.seams)

    def finish_generation(self) -> None:
        """See `EventLog.finish_generation`."""
        with translated(WHAT, sent=True):
            redis_log_generations.finish(self._client, self._keys, self._settings.timeout_s)

    def append(self, entries: Sequence[Append]) -> list[int]:
        """See `EventLog.append`; one round trip, and in one go: who waits for entries is woken once."""
        if not entries:
            return []
        size = self._admit(entries)
        newest = f"{self._identity.generation}-*"
        pipeline = self._client.pipeline(transaction=False)
        at_ms = self._clock_ms()
        command(pipeline, "MULTI")
        for entry in entries:
            stream = self._keys.stream(entry.partition)
            polled = ("p", entry.polled_ms) if entry.polled_ms else ()
            fields = ("d", entry.data, "n", entry.records, "t", at_ms, *polled)
            command(pipeline, "XADD", stream, "NOMKSTREAM", newest, *fields)
            command(pipeline, "HINCRBY", self._keys.counts, entry.partition, entry.records)
        command(pipeline, "EXEC")
        if not self._synced_answers:
            command(pipeline, "WAITAOF", 1, 0, int(self._settings.timeout_s * 800))
        answers = self._send(pipeline)
        if not self._synced_answers and answers.pop()[0] < 1:
            raise OutcomeUnknown(f"{WHAT} did not confirm that it is on disk in time; append the same again", 1.0)
        self._used_bytes += size
        done = self._checked(answers[-1])
        return [self._appended(entry.partition, answer) for entry, answer in zip(entries, done[::2], strict=True)]

    def read(self, partition: int, after: int, limit_entries: int, limit_bytes: int, block_ms: int = 0) -> list[Entry]:
        """See `EventLog.read`."""
        return self.read_many({partition: after}, limit_entries, limit_bytes, block_ms).get(partition, [])

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        """See `EventLog.read_many`; one round trip, and one more for the partitions that had nothing."""
        if not after:
            return {}
        count = max(1, min(limit_entries, limit_bytes // max(1, self._entry_bytes)))
        found: dict[int, list[Entry]] = {}
        for stream, raw in self._xread(after, count, block_ms):
            partition = int(stream.rpartition(b":")[2])
            entries = [self._entry(partition, stream_id, fields) for stream_id, fields in raw]
            check_continuity(partition, after[partition], [entry.number for entry in entries])
            found[partition] = _within(entries, limit_bytes)
        self._remember_sizes(found)
        self._check_silent({partition: at for partition, at in after.items() if partition not in found})
        return found

    def wait_for(self, partition: int, number: int, timeout_ms: int) -> bool:
        """See `EventLog.wait_for`."""
        until = time.monotonic() + timeout_ms / 1000
        while self.ends()[partition] < number:
            left_ms = int((until - time.monotonic()) * 1000)
            if left_ms <= 0:
                return False
            last = self.ends()[partition]
            if last < number:
                self._xread({partition: last}, 1, min(left_ms, self._settings.block_ms))
        return True

    def ends(self) -> dict[int, int]:
        """See `EventLog.ends`."""
        return {partition: end for partition, (_, end) in self._ranges(range(self._all)).items()}

    def begins(self) -> dict[int, int]:
        """See `EventLog.begins`."""
        return {partition: begin for partition, (begin, _) in self._ranges(range(self._all)).items()}

    def records(self) -> dict[int, int]:
        """See `EventLog.records`."""
        with translated(WHAT):
            found = command(self._client, "HGETALL", self._keys.counts)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {int(partition): int(count) for partition, count in pairs}

    def bytes_used(self) -> int:
        """Memory of the server's data set, bytes: the log's server holds nothing else."""
        with translated(WHAT):
            return int(self._client.info("memory")["used_memory_dataset"])

    def trim(self, partition: int, below: int) -> int:
        """See `EventLog.trim`."""
        self._check_partition(partition)
        with translated(WHAT):
            least = self._id(partition, max(below, 1) - 1, max(below, 1))
            return int(self._trim(keys=[self._keys.stream(partition), self._keys.begins], args=[least, partition]))

    def close(self) -> None:
        """See `EventLog.close`."""
        self._client.close()

    def _admit(self, entries: Sequence[Append]) -> int:
        for entry in entries:
            self._check_partition(entry.partition, self._all if self._mending else self._identity.partitions)
            if len(entry.data) > self._settings.entry_bytes:
                raise Rejected(
                    f"a log entry of {len(entry.data)} bytes is over log.entry_bytes ({self._settings.entry_bytes});"
                    " send smaller batches"
                )
        now_s = time.monotonic()
        if self._mending:  # what was there before has room, and nobody trims it meanwhile
            return 0
        if now_s >= self._used_until_s:
            self._used_bytes, self._used_until_s = self.bytes_used(), now_s + _USED_FOR_S
        if self._used_bytes >= self._settings.max_bytes:
            raise Overloaded(
                f"{WHAT} is full ({self._used_bytes} of log.max_bytes = {self._settings.max_bytes}); it empties as the"
                " shards and the lake catch up",
                _USED_FOR_S,
            )
        return sum(len(entry.data) for entry in entries)

    def _send(self, pipeline: redis.client.Pipeline) -> list[Any]:
        with translated(WHAT):  # a connection that is known to stand: what fails before it was certainly not sent
            pool = self._client.connection_pool
            pool.release(pool.get_connection())
        with translated(WHAT, sent=True):
            return self._checked(pipeline.execute(raise_on_error=False))

    def _checked(self, answers: list[Any]) -> list[Any]:
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise translate(answer, WHAT, sent=True) from answer
        return answers

    def _appended(self, partition: int, answer: bytes | None) -> int:
        if answer is None:
            raise Corrupt(f"log partition {partition} has lost its stream while in use; restore the log's files")
        return self._number(partition, answer)

    def _xread(self, after: Mapping[int, int], count: int, block_ms: int) -> list[tuple[bytes, list[Any]]]:
        for partition in after:
            self._check_partition(partition)
        if block_ms > self._settings.timeout_s * 500:
            raise ValueError(f"block_ms={block_ms} has to stay below half of log.timeout_s")
        block = ["BLOCK", block_ms] if block_ms > 0 else []
        streams = [self._keys.stream(partition) for partition in after]
        ids = [self._id(partition, number, number) for partition, number in after.items()]
        with translated(WHAT):
            answer = command(self._client, "XREAD", "COUNT", count, *block, "STREAMS", *streams, *ids)
        return list(answer.items()) if isinstance(answer, dict) else list(answer or [])

    def _entry(self, partition: int, stream_id: bytes, fields: dict[bytes, bytes]) -> Entry:
        try:
            times = int(fields[b"t"]), int(fields.get(b"p", 0))
            return entry_as_read(self._number(partition, stream_id), fields[b"d"], int(fields[b"n"]), *times)
        except (KeyError, ValueError, TypeError) as error:
            raise Corrupt(
                f"log partition {partition}: entry {stream_id!r} is not one of ours; restore its files"
            ) from error

    def _number(self, partition: int, stream_id: bytes) -> int:
        generation, _, number = stream_id.partition(b"-")
        if int(generation) > self._identity.generation:
            raise Unavailable(f"{WHAT} is of generation {int(generation)} by now: open it again", 0.1)
        return int(number)

    def _id(self, partition: int, after: int, number: int) -> str:
        """The id of an entry in the generation that what follows `after` is of."""
        return f"{generation_at(self._generations, partition, after)}-{number}"

    def _remember_sizes(self, found: Mapping[int, Sequence[Entry]]) -> None:
        sizes = [len(entry.data) for entries in found.values() for entry in entries]
        if sizes:
            self._entry_bytes = max(sum(sizes) // len(sizes), max(sizes) // 2)

    def _check_silent(self, after: Mapping[int, int]) -> None:
        for partition, (begin, end) in self._ranges(list(after)).items():
            check_range(partition, after[partition], begin, end)

    def _ranges(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        if not partitions:
            return {}
        with translated(WHAT):
            return setup.ranges(self._client, self._keys, partitions)

    def _check_partition(self, partition: int, count: int | None = None) -> None:
        if not 0 <= partition < (count or self._all):
            raise ValueError(f"partition {partition} of {count or self._all}")


def open_redis_log(
    address: RedisAddress,
    settings: LogSettings,
    namespace: str = "log",
    clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    mending: bool = False,
) -> RedisEventLog:
    """Opens the log, creating it on an empty server; safe to call from several processes at once.

    Args:
        namespace: what the log's keys begin with (`<ns>` above); two logs may share a server in tests.
        clock_ms: the time that entries are stamped with, ms since 1970.
        mending: by who opens a new generation, and fills it; neither `log.max_bytes` nor `log.partitions` bounds that.

    Raises:
        Rejected: the server is not fit (too old, not append-only, evicts), or the log has another number of partitions.
        Corrupt: the streams contradict the log's own counts.
        Unavailable: the server does not answer, or a new generation is being filled.
    """
    client, keys = address.connect(settings.timeout_s), LogKeys(namespace)
    try:
        with translated(WHAT, sent=False):
            setup.check_server(client)
            identity = setup.create_or_open(client, keys, settings.partitions)
            generations = redis_log_generations.read(client, keys)
            setup.check_streams(client, keys, identity, all_partitions(identity, generations))
            if not mending:
                if redis_log_generations.is_unfinished(client, keys):
                    raise Unavailable(f"a new generation of {WHAT} is being opened: `intelgraph up` does that", 1.0)
                check_number(identity.partitions, settings.partitions)
            synced = setup.answers_are_synced(client, keys, settings.timeout_s)
    except BaseException:
        client.close()
        raise
    return RedisEventLog(client, keys, settings, identity, generations, synced, clock_ms, mending)


def _within(entries: list[Entry], limit_bytes: int) -> list[Entry]:
    total = 0
    for index, entry in enumerate(entries):
        total += len(entry.data)
        if index and total > limit_bytes:
            return entries[:index]
    return entries
