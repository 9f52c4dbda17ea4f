"""Canaries: entries that hold nothing, appended to the log for each shard, and read back from it.

    every canary_s:  append an empty entry → the shard's writer → the shard's cursor has passed it → seconds

One goes the way that every entry goes, and waits behind those before it. It holds no record, so it is in no graph,
export, hash, snapshot or account, and of no tenant. What it shows is that the log takes entries, that the writer reads
them, and that the shard commits: a shard of which nothing is written otherwise would look well while it is not.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from actors.admission import Clock
from actors.stack import Stack
from actors.told import forget, tell, told
from cluster.errors import IntelGraphError, OutcomeUnknown
from cluster.stores.log import Append, EventLog
from cluster.stores.shard import StoredShard
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.canary")
_NAME = "canaries"
_LOOK_S, _PAUSE_S, _LONGEST_PAUSE_S, _ERROR_PAUSE_S = 1.0, 0.02, 0.5, 0.5
_MISSED = 3
"""So many that should have been sent by now and were not: nobody sends them."""


@dataclass(frozen=True, slots=True)
class Canary:
    """The last canary of a shard.

    Args:
        partition: of the log, that it went through.
        sent: when it was to be sent, seconds since 1970.
        seconds: from then until it was read back; None: it is on its way.
        reason: why it is not back, as far as that is known.
    """

    shard: str
    partition: int
    sent: float
    seconds: float | None = None
    reason: str = ""

    def age_s(self, now: float, every_s: float) -> float:
        """How long the last one took; or for how long none has come back, also where nobody sends any."""
        since = max(0.0, now - self.sent)
        return since if self.seconds is None or since > _MISSED * every_s + self.seconds else self.seconds


class _Place(NamedTuple):
    """Where a canary is in the log."""

    partition: int
    number: int


class ShardCanary:
    """The canaries of one shard, one after the other. `run` is for one thread; `last` may be read by others."""

    def __init__(self, stack: Stack, shard_id: str, clock: Clock = time.time) -> None:
        self._stack, self._shard_id, self._clock = stack, shard_id, clock
        self._every_s = stack.settings.shards.canary_s
        self._log: EventLog | None = None
        self._shard: StoredShard | None = None
        self._turn = 0
        self.last: Canary | None = None
        self.ended = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """One every few seconds, none before the last is back, until `stopping` is set or `ended`."""
        try:
            while not self._over(stopping):
                began = time.monotonic()
                self._one(began, stopping)
                left_s = max(_PAUSE_S, self._every_s - (time.monotonic() - began))
                stopping.wait(left_s)
        finally:
            self._close()

    def _over(self, stopping: threading.Event) -> bool:
        return stopping.is_set() or self.ended.is_set()

    def _one(self, began: float, stopping: threading.Event) -> None:
        """Sends one and waits until it is back. What stands against that is waited for, and said."""
        place, sent, was = None, self._clock(), self.last
        while not self._over(stopping):
            try:
                if place is None or place.partition not in self._partitions():
                    place = self._sent()
                    if place is None:
                        return  # it owns nothing, so nothing is written to it
                if self._has_passed(place):
                    self.last = Canary(self._shard_id, place.partition, sent, time.monotonic() - began)
                    if was is not None and was.reason:
                        LOG.info("canary_is_back", shard=self._shard_id, seconds=self.last.seconds)
                    return
                self._on_its_way(place, sent, "")
                pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S + (time.monotonic() - began) / 10)
            except Exception as error:  # a thread that dies sends none ever after, and its shard looks ill
                self._on_its_way(place, sent, str(error))
                self._close()
                # one that may be in the log is not sent again at once: an ailing log would fill with them
                pause_s = self._every_s if isinstance(error, OutcomeUnknown) else _ERROR_PAUSE_S
            stopping.wait(pause_s)

    def _on_its_way(self, place: _Place | None, sent: float, reason: str) -> None:
        if reason and (self.last is None or self.last.reason != reason):
            LOG.warning("canary_not_back", shard=self._shard_id, reason=reason)
        self.last = Canary(self._shard_id, place.partition if place else -1, sent, None, reason)

    def _partitions(self) -> list[int]:
        return list(self._stack.current_map().appended_for(self._shard_id))

    def _sent(self) -> _Place | None:
        mine = self._partitions()
        if not mine:
            return None
        partition = mine[self._turn % len(mine)]
        if self._log is None:
            self._log = self._stack.open_log()
            self._log.records()  # an entry on Kafka says how many records there are up to it
        (number,) = self._log.append([Append(partition, b"", 0)])
        self._turn += 1
        return _Place(partition, number)

    def _has_passed(self, place: _Place) -> bool:
        self._shard = self._shard or self._stack.open_shard(self._shard_id, self._stack.settings.shards.read_timeout_s)
        cursor = self._shard.cursors().get(place.partition)
        return cursor is not None and cursor.at >= place.number

    def _close(self) -> None:
        for opened in (self._log, self._shard):
            if opened is not None:
                with suppress(IntelGraphError):
                    opened.close()
        self._log = self._shard = None


class Canaries:
    """Canaries of every shard of the map, each in a thread of its own: one that hangs holds no other up."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._running: dict[str, tuple[ShardCanary, threading.Thread]] = {}
        self._told: list[Canary] = []

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping` is set. With `shards.canary_s` 0 it does nothing."""
        if not self._stack.settings.shards.canary_s:
            return
        try:
            while not stopping.wait(_LOOK_S):
                try:
                    self._look(stopping)
                except Exception as error:  # a thread that dies tells nothing ever after
                    LOG.error("canaries_not_told", error)
        finally:
            for _, thread in self._running.values():
                thread.join(_LOOK_S)
            forget(self._stack.state_dir, _NAME)

    def _look(self, stopping: threading.Event) -> None:
        shards = set(self._stack.current_map().shards)
        dead = {shard_id for shard_id, (_, thread) in self._running.items() if not thread.is_alive()}
        for gone in self._running.keys() - (shards - dead):
            self._running.pop(gone)[0].ended.set()
        for shard_id in shards - self._running.keys():
            canary = ShardCanary(self._stack, shard_id)
            thread = threading.Thread(target=canary.run, args=(stopping,), name=f"canary-{shard_id}", daemon=True)
            self._running[shard_id] = (canary, thread)
            thread.start()
        found = sorted((c.last for c, _ in self._running.values() if c.last), key=lambda canary: canary.shard)
        if found != self._told:
            tell(self._stack.state_dir, _NAME, [asdict(canary) for canary in found])
            self._told = found


def told_canaries(state_dir: Path) -> list[Canary]:
    """The last canary of each shard, as the node tells it; none where it sends none."""
    try:
        return [Canary(**found) for found in told(state_dir, _NAME) or ()]
    except TypeError:  # another version told it
        return []
