"""The stream workers that there are: as many as `actors.scaling` wants, each drained before it goes.

    watch's look(partitions) → decide → names that partitions go to; those over → drained → wanted no longer
                                                                     supervisor's wanted() → starts, ends actors

A worker gets partitions once it has answered: until then those that there are read on. One that is drained gets none:
it brings the batch at hand to its end (appended, its offset committed), gives its leases back, and is ended when it
holds nothing. If it dies meanwhile, its leases run out, as any other's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from actors.admission import Clock
from actors.pacing import Pace, paced
from actors.scaling import Load, Scaling, bounds, decide
from actors.workers_told import WorkersTold, tell_workers
from cluster.config import Settings
from cluster.streams.model import StreamPartition
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.streams")

Statuses = Callable[[], Mapping[str, Mapping[str, Any]]]
"""What actors have said of themselves last, by name."""


def worker_name(number: int) -> str:
    """The actor's name."""
    return f"stream-worker:{number}"


class Workers(Protocol):
    """The actors themselves. Raises nothing for one that is away."""

    def there(self) -> Collection[int]:
        """Numbers of those that there are, whoever started them."""

    def drain(self, name: str) -> bool:
        """Takes everything from it; whether it holds nothing any more. Does not block for long."""


class StreamWorkers:
    """`look` is for one thread; `wanted` may be called by others.

    Args:
        clock: seconds since 1970.
        ticks: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        settings: Settings,
        statuses: Statuses,
        workers: Workers,
        clock: Clock = time.time,
        ticks: Clock = time.monotonic,
    ) -> None:
        self._settings, self._statuses, self._workers = settings, statuses, workers
        self._clock, self._ticks = clock, ticks
        self._lock = threading.Lock()
        self._names: list[str] = [worker_name(0)]  # until the first look tells how many partitions there are
        self._draining: set[str] = set()
        self._answered: set[str] = set()
        self._scaling: Scaling | None = None
        self._pace, self._slowed_until = Pace(), 0.0
        self._told = WorkersTold(0, 0, (), 0, 0, "")

    def wanted(self) -> list[str]:
        """Names of the actors that have to be there, those included that are being drained."""
        with self._lock:
            return [*self._names, *sorted(self._draining)]

    def look(self, parts: Sequence[StreamPartition]) -> list[str]:
        """Decides how many there should be; who reads now, of these.

        Args:
            parts: of the active streams.
        """
        before = self._scaling or self._adopted(len(parts))
        self._scaling = after = decide(self._settings.streams, before, self._load(parts))
        names = [worker_name(n) for n in range(after.workers)]
        with self._lock:
            leaving = {*self._names, *self._draining} - {*names}
            for name in sorted(leaving - self._draining):
                LOG.info("stream_worker_draining", actor=name)
            self._names, self._draining = names, leaving
        self._drain(leaving)
        ready = [name for name in names if name in self._answered]
        self._tell(before, after, len(ready), len(parts))
        return ready or names

    def pace(self, read: Mapping[str, int], unread: Mapping[str, int]) -> dict[str, float]:
        """Caps of tenants, records a second (`actors.pacing`).

        Args:
            read, unread: records so far, and records that wait, by tenants.
        """
        before, free = self._pace, self._settings.streams.cores_free
        if not free:
            return {}
        wanted = set(self.wanted())
        found = [status for name, status in self._statuses().items() if name in wanted and status.get("cores")]
        busy = [one["host_cpu"] / max(0.1, 1 - free / one["cores"]) for one in found if one["host_cpu"] is not None]
        now = paced(before, self._ticks(), read, unread, max(busy)) if busy else before  # who is silent is not idle
        self._pace = now
        if now.slowed:
            self._slowed_until = self._ticks() + self._settings.streams.scaling.catch_up_s
        if now.slowed != before.slowed:
            LOG.info("tenants_slowed" if now.slowed else "tenants_slowed_no_more", tenants=now.slowed or before.slowed)
        return {now.slowed: now.cap} if now.slowed else {}

    def _adopted(self, partitions: int) -> Scaling:
        """Those that an earlier node has left in the cluster go on; one too many is drained, as any."""
        there, limits = self._workers.there(), self._settings.streams
        with self._lock:
            self._draining |= {worker_name(number) for number in there}
        fewest, _ = bounds(limits, partitions)
        return Scaling(min(max([fewest, *(number + 1 for number in there)]), limits.workers_max))

    def _drain(self, names: Collection[str]) -> None:
        for name in sorted(names):
            if self._workers.drain(name):
                LOG.info("stream_worker_drained", actor=name)
                self._answered.discard(name)
                with self._lock:
                    self._draining.discard(name)

    def _load(self, parts: Sequence[StreamPartition]) -> Load:
        statuses = self._statuses()
        mine = {name: statuses[name] for name in self.wanted() if "pid" in statuses.get(name, {})}
        self._answered.update(mine)
        readable = [part for part in parts if part.epoch and not part.note]  # of the others no worker more would help
        now = self._clock()
        hosts = {
            found["host"]: found["cores"] * (1 - found["host_cpu"])
            for found in mine.values()
            if found.get("cores") and found["host_cpu"] is not None
        }
        return Load(
            self._ticks(), sum(map(_unread, readable)), max((part.lag_s(now) for part in readable), default=0.0),
            len(parts), tuple(found["cpu"] for found in mine.values()), tuple(hosts.values()),
            len({*self._names} - mine.keys()), self._waits(mine),
        )  # fmt: skip

    def _waits(self, statuses: Mapping[str, Mapping[str, Any]]) -> str:
        """Why another worker would not help; empty: it may. What a cap leaves behind is for those that there are."""
        slowed = self._ticks() < self._slowed_until
        return "tenants are slowed, so that others do not wait" if slowed else _stands_still(statuses)

    def _tell(self, before: Scaling, after: Scaling, ready: int, partitions: int) -> None:
        told, least_most = self._told, bounds(self._settings.streams, partitions)
        change, changed = told.change, told.changed
        if after.workers != before.workers:
            change, changed = f"{before.workers} → {after.workers}: {after.reason}", self._clock()
            LOG.info("stream_workers_changed", before=before.workers, after=after.workers, reason=after.reason)
        draining = tuple(sorted(self._draining))
        now = WorkersTold(after.workers, ready, draining, *least_most, after.reason, change, changed)
        if now != told:
            with suppress(OSError):  # a full disk is no reason to read nothing
                tell_workers(self._settings.state_dir.resolve(), now)
                self._told = now


def _unread(part: StreamPartition) -> int:
    """Records of its range: what comes behind that waits for others first."""
    end = part.end if part.cut is None else min(part.end, part.cut)
    return max(0, end - part.offset)


def _stands_still(statuses: Mapping[str, Mapping[str, Any]]) -> str:
    """Why all that have something to read stand still; empty: one goes on."""
    found = [status for status in statuses.values() if status["state"] not in ("idle", "draining")]
    waiting = [status["reason"] for status in found if status["state"] in ("waiting", "stopped")]
    return waiting[0] or "for a store" if waiting and len(waiting) == len(found) else ""
