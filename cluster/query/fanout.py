"""Questions to the shards that own their buckets: route, call, try again with jitter until the deadline, merge.

one(bucket, job)     a question about one case: its owner, then replicas; the map is reloaded when it is refused
every(job)           a question about all cases: every shard at once; who did not answer is named, not waited for
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cluster.config import QuerySettings
from cluster.errors import EpochMismatch, Fenced, IntelGraphError, Misrouted, Retryable, TooCostly, Unavailable
from cluster.query.hot import Shard
from cluster.query.lane import DEADLINE_PASSED, Asking, Connect, Lane, Shunned, TooLate
from cluster.routing import Deadline, Merged, Route, ShardState, delays, merge, next_delay, route_read
from cluster.shard_map import ShardMap
from cluster.telemetry import metrics

T = TypeVar("T")
Job = Callable[[Shard], T]
"""What is asked of one shard; blocking, run on one of the shard's threads. It may run more than once."""

ATTEMPTS = 4
ONE_SHARE, EVERY_SHARE = 0.2, 0.45
"""How much of the deadline one attempt may take: a shard that hangs leaves time for another attempt, or a replica."""
MERGE_S = 0.05
"""Left of the deadline for putting answers together."""
MAX_LAG_S = 5.0


@dataclass(frozen=True, slots=True)
class Topology:
    """The shard map and what is known of the shards, as of one moment."""

    shard_map: ShardMap
    states: Mapping[str, ShardState]


class Directory(Protocol):
    """Where the topology comes from (the control store)."""

    def topology(self) -> Topology:
        """The current one; from memory, does not block."""

    def reload(self) -> None:
        """Read it anew, because a shard refused what it says. Blocks; safe to call from several threads."""


class FanOut:
    """Asks shards, from one event loop. Hold one a process and close it."""

    def __init__(
        self,
        directory: Directory,
        connect: Connect,
        settings: QuerySettings,
        seed: int | None = None,
    ) -> None:
        self._directory, self._connect, self._settings = directory, connect, settings
        self._lanes: dict[str, Lane] = {}
        self._random = random.Random(seed)
        self._buckets: tuple[int, dict[str, tuple[int, ...]]] = (-1, {})
        for shard in directory.topology().shard_map.shards:
            _count_from_zero(shard)

    @property
    def shard_map(self) -> ShardMap:
        """The map of now."""
        return self._directory.topology().shard_map

    def deadline(self) -> Deadline:
        """When a question that begins now has to be answered."""
        return Deadline(time.monotonic() + self._settings.deadline_s)

    async def one(self, bucket: int, job: Job[T], deadline: Deadline) -> T:
        """The answer of a shard that may speak for a bucket.

        Raises:
            Unavailable: none answered in time. Fenced: the map stayed wrong. TooCostly, Overloaded, NotFound, Corrupt:
            as the job. What is too costly is not tried again: that would cost everybody the same seconds once more.
        """
        attempt_s = self._settings.deadline_s * ONE_SHARE
        waits = delays(self._random, ATTEMPTS)
        said: Retryable | None = None
        while True:
            try:
                return await self._first(bucket, job, deadline, attempt_s)
            except Retryable as error:
                said = said if said and isinstance(error, TooLate) else error
                if isinstance(error, Fenced):
                    await asyncio.to_thread(self._directory.reload)
                wait = next_delay(next(waits, float("inf")), error.retry_after_s, deadline, time.monotonic())
                if wait is None:
                    raise said from None
                await asyncio.sleep(wait)

    async def _first(self, bucket: int, job: Job[T], deadline: Deadline, attempt_s: float) -> T:
        topology = self._directory.topology()
        failure: Unavailable | None = None
        for route in route_read(topology.shard_map, bucket, topology.states, MAX_LAG_S):
            try:
                return await self._call(route, (bucket,), job, deadline, attempt_s)
            except Unavailable as error:
                if failure is None or isinstance(failure, TooLate):
                    failure = error
        raise failure or Unavailable("no shard may answer; try again")

    async def ask(self, shard: str, job: Job[T], deadline: Deadline) -> T:
        """The answer of a shard by its name, whatever the map says of it; it is asked once, of no bucket.

        Raises:
            Unavailable, Overloaded, TooCostly: as `Lane.call`. What the job raises.
        """
        return await self._call(Route(shard, 0, 0), (), job, deadline, self._settings.deadline_s * ONE_SHARE)

    async def every(self, job: Job[T], deadline: Deadline) -> Merged[T]:
        """The answers of all shards; those that did not answer in time are named as missing.

        A map that another one has replaced meanwhile may lack a shard: then the shards of the new one are asked, while
        there is time. After that the best answer there was is given, with the shards that nobody asked as missing.

        Raises:
            Unavailable: no shard answered. TooCostly: none did, and it was too much for one of them.
        """
        earlier: Merged[T] | None = None
        while True:
            asked = self._directory.topology().shard_map
            try:
                merged = await self._all(asked.shards, job, deadline)
            except (Unavailable, TooCostly):
                if earlier is None:
                    raise
                return earlier
            current = self._directory.topology().shard_map
            found = merged.lacking(set(current.shards) - set(asked.shards))
            earlier = found if earlier is None else min(found, earlier, key=lambda one: len(one.missing))
            if current.revision == asked.revision:
                return earlier

    async def _all(self, shards: Sequence[str], job: Job[T], deadline: Deadline) -> Merged[T]:
        tasks = {shard: asyncio.create_task(self._persist(shard, job, deadline)) for shard in shards}
        await asyncio.wait(tasks.values(), timeout=deadline.left_s(time.monotonic()))
        outcomes: dict[str, T | IntelGraphError] = {}
        for shard, task in tasks.items():
            if task.done():
                outcomes[shard] = task.result()
            else:
                task.cancel()
        merged = merge(shards, outcomes)
        if not merged.answers:
            if costly := [outcome for outcome in outcomes.values() if isinstance(outcome, TooCostly)]:
                raise costly[0]
            raise Unavailable("no shard answered: " + "; ".join(sorted(set(merged.missing.values()))), 1.0)
        return merged

    async def _persist(self, shard: str, job: Job[T], deadline: Deadline) -> T | IntelGraphError:
        attempt_s = self._settings.deadline_s * EVERY_SHARE
        waits = delays(self._random, ATTEMPTS)
        said: IntelGraphError | None = None
        while True:
            try:
                return await self._call_owner(shard, job, deadline, attempt_s)
            except IntelGraphError as error:
                said = said if said and isinstance(error, TooLate) else error
                retryable = isinstance(error, Retryable) and not isinstance(error, Shunned)
                if isinstance(error, Fenced):
                    await asyncio.to_thread(self._directory.reload)
                wait_s = next(waits, float("inf")) if retryable else float("inf")
                asked_s = error.retry_after_s if isinstance(error, Retryable) else 0.0
                wait = next_delay(wait_s, asked_s, deadline, time.monotonic())
                if wait is None:
                    return said
                await asyncio.sleep(wait)

    async def _call_owner(self, shard: str, job: Job[T], deadline: Deadline, attempt_s: float) -> T:
        topology = self._directory.topology()
        state = topology.states.get(shard)
        if state is None or state.state == "down":
            raise Unavailable("down", 1.0)
        buckets = self._buckets_of(topology.shard_map, shard)
        return await self._call(
            Route(shard, state.epoch, topology.shard_map.revision), buckets, job, deadline, attempt_s
        )

    async def _call(self, route: Route, buckets: tuple[int, ...], job: Job[T], deadline: Deadline, most_s: float) -> T:
        timeout_s = deadline.timeout_s(time.monotonic(), most_s, MERGE_S)
        if timeout_s <= 0:
            raise TooLate(DEADLINE_PASSED, 1.0)
        lane = self._lanes.get(route.shard)
        if lane is None:
            lane = self._lanes[route.shard] = Lane(route.shard, self._connect, self._settings)
            _count_from_zero(route.shard)
        try:
            return await lane.call(lambda read: job(self._shard(read, route, buckets)), timeout_s)
        except EpochMismatch:
            metrics.EPOCH_MISMATCH.labels(route.shard).inc()
            raise
        except Misrouted:
            metrics.MISROUTE_REFUSED.labels(route.shard).inc()
            raise

    def _shard(self, read: Asking, route: Route, buckets: tuple[int, ...]) -> Shard:
        return Shard(read, route.epoch, buckets, read.dialect, route.shard, read.at_once)

    def _buckets_of(self, shard_map: ShardMap, shard: str) -> tuple[int, ...]:
        if self._buckets[0] != shard_map.revision:
            self._buckets = (shard_map.revision, {name: shard_map.buckets_of(name) for name in shard_map.shards})
        return self._buckets[1].get(shard, ())

    def close(self) -> None:
        """Close every lane; questions under way fail."""
        for lane in self._lanes.values():
            lane.close()


def _count_from_zero(shard: str) -> None:
    """So that a first refusal is seen as an increase."""
    metrics.EPOCH_MISMATCH.labels(shard)
    metrics.MISROUTE_REFUSED.labels(shard)
