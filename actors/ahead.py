"""How far readers of topics may be ahead of the shards.

    each look: shards → the one that is least behind the log → by more than `streams.ahead_s` and `ahead_records`?
               then nothing is read: records wait in their topic

What a reader brings into the log costs CPU that writers and databases of its host want, and waits there before what
others bring. So nothing is read while every shard has enough before it for a while. A shard that is behind alone holds
nobody up, nor does one that says nothing: for these there is the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from actors.admission import Clock
from cluster.config_streams import StreamSettings
from cluster.stores.control_shards import Shard

ENOUGH = "all shards have enough to do: what is read now would only wait (streams.ahead_s)"
_LOOK_S, _LOOK_SOON_S = 0.25, 0.1
"""Between two looks at the shards; while nothing is read."""
_SILENT_S = 3.0
"""A writer tells how far it is twice a second; one that has not for so long may be away."""
_TOLD_S = 5.0
"""So long it is told that shards had enough: where they are the slowest part, readers go on and rest in turns."""


class Behind(NamedTuple):
    """How far a shard is behind the log.

    Args:
        records: that it has not applied.
        seconds: since the oldest of them was appended, by the clocks of log and writer.
    """

    records: int = 0
    seconds: float = 0.0


def least_behind(shards: Iterable[Shard], now: float) -> Behind:
    """The shard with the fewest records before it; nothing where none says so.

    Args:
        now: seconds since 1970. A writer whose clock is far from it counts as silent.
    """
    told = [
        Behind(shard.lag_records, shard.lag_seconds)
        for shard in shards
        if shard.role == "primary" and shard.state != "down" and abs(now - shard.updated) <= _SILENT_S
        and shard.lag_records is not None and shard.lag_seconds is not None
    ]  # fmt: skip
    return min(told, default=Behind())


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
        self._most = Behind(settings.ahead_records, settings.ahead_s)
        self._lock = threading.Lock()
        self._enough, self._due, self._told_until = False, 0.0, 0.0

    def enough(self) -> bool:
        """Whether nothing should be read now. Raises what the registry raises."""
        with self._lock:
            if self._most.seconds and self._ticks() >= self._due:
                found = least_behind(self._shards(), self._clock())
                self._enough = found.records > self._most.records and found.seconds > self._most.seconds
                self._due = self._ticks() + (_LOOK_SOON_S if self._enough else _LOOK_S)
                if self._enough:
                    self._told_until = self._ticks() + _TOLD_S
            return self._enough

    @property
    def reason(self) -> str:
        """Why nothing is read, or was a moment ago; empty: there was no reason."""
        return ENOUGH if self._ticks() < self._told_until else ""
