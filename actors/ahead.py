"""How far readers of topics may be ahead of the shards.

    each look: shards → is each of them behind the log by more than `streams.ahead_s` and `ahead_records`?
               then nothing is read, for `streams.ahead_most_s` at most in one go: records wait in their topic

What a reader brings into the log costs CPU that writers and databases of its host want, and waits there before what
others bring. So nothing is read while every shard has enough before it for a while. A shard that is behind alone holds
nobody up, nor does one that says nothing: for these there is the log. And what others than readers have brought, or a
miscounted backlog, holds nobody up for good: now and then a little is read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple

from actors.admission import Clock
from cluster.config_streams import StreamSettings
from cluster.errors import IntelGraphError
from cluster.stores.control_shards import Shard

ENOUGH = "all shards have enough to do: what is read now would only wait (streams.ahead_s)"
_LOOK_S, _LOOK_SOON_S = 0.25, 0.1
"""Between two looks at the shards; while nothing is read."""
_WINDOW_S = 0.5
"""So long is read after `streams.ahead_most_s` without."""
_SILENT_S = 3.0
"""A writer tells how far it is twice a second; one that has not for so long may be away."""
_TOLD_S = 5.0
"""So long it is told that shards had enough: where they are the slowest part, readers go on and rest in turns."""


class Behind(NamedTuple):
    """How far a shard is behind the log.

    Args:
        records: that it has not applied.
        seconds: since the oldest of them was appended, by the clocks of who appended and of the writer.
    """

    records: int
    seconds: float


def told(shards: Iterable[Shard], now: float) -> list[Behind]:
    """What those say that say anything now.

    Args:
        now: seconds since 1970. A writer whose clock is far from it counts as silent.
    """
    return [
        Behind(shard.lag_records, shard.lag_seconds)
        for shard in shards
        if shard.role == "primary" and shard.state != "down" and abs(now - shard.updated) <= _SILENT_S
        and shard.lag_records is not None and shard.lag_seconds is not None
    ]  # fmt: skip


class Ahead:
    """Shared by the readers of a process; threads may share it.

    Args:
        shards: the registry as it is now.
        clock: seconds since 1970.
        ticks: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        shards: Callable[[], Iterable[Shard]],
        settings: StreamSettings,
        clock: Clock = time.time,
        ticks: Clock = time.monotonic,
    ) -> None:
        self._shards, self._clock, self._ticks = shards, clock, ticks
        self._bounds = Behind(settings.ahead_records, settings.ahead_s)
        self._most_s = settings.ahead_most_s
        self._lock = threading.Lock()
        self._due = 0.0 if settings.ahead_s else inf
        self._since = inf
        """From when on nothing is read."""
        self._window_until = self._told_until = 0.0

    def enough(self) -> bool:
        """Whether nothing should be read now. One of its callers looks at the shards, for as long as that takes; where
        they cannot be looked at, it is read."""
        now = self._ticks()
        with self._lock:
            looks = now >= self._due
            if looks:
                self._due = inf
        if looks:
            self._look()
        with self._lock:
            now = self._ticks()
            if now >= self._since + self._most_s:
                self._since, self._window_until = inf, now + _WINDOW_S
            return now >= self._since

    def _look(self) -> None:
        enough = False
        try:
            behind = told(self._shards(), self._clock())
            enough = bool(behind) and all(
                b.records > self._bounds.records and b.seconds > self._bounds.seconds for b in behind
            )
        except IntelGraphError:
            pass  # who reads finds out himself
        finally:
            with self._lock:
                now = self._ticks()
                self._due = now + (_LOOK_SOON_S if enough else _LOOK_S)
                if enough:
                    self._told_until = now + _TOLD_S
                if not enough or now < self._window_until:
                    self._since = inf
                else:
                    self._since = min(self._since, now)

    @property
    def reason(self) -> str:
        """Why nothing is read, or was a moment ago; empty: there was no reason."""
        return ENOUGH if self._ticks() < self._told_until else ""
