"""How much CPU this process takes, and how busy its host is, since it was asked before."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_STAT = Path("/proc/stat")
_LEAST_S = 0.5


class Ticks(NamedTuple):
    """Of all cores since the start, in any unit."""

    busy: int
    all: int


@dataclass(frozen=True, slots=True)
class CpuShares:
    """Shares of time.

    Args:
        process: of one core; more than 1 where several threads compute.
        host: of all its cores, whoever computes; None: the host does not say.
    """

    process: float = 0.0
    host: float | None = None


def host_ticks() -> Ticks | None:
    """What Linux counts; None on another system. The format is that of proc_stat(5)."""
    try:
        with _STAT.open() as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = sum(fields[3:5])  # idle, iowait
    return Ticks(sum(fields) - idle, sum(fields))


class CpuMeter:
    """For several threads: whoever asks too soon after another gets what that one got."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        process_s: Callable[[], float] = time.process_time,
        host: Callable[[], Ticks | None] = host_ticks,
    ) -> None:
        self.host_name = socket.gethostname()
        self._clock, self._process_s, self._host = clock, process_s, host
        self._before = (clock(), process_s(), host())
        self._found = CpuShares()

    def read(self) -> CpuShares:
        """The shares since the last reading, of half a second at least."""
        at, process_s, host = self._before
        now = self._clock()
        if now - at < _LEAST_S:
            return self._found
        self._before = (now, self._process_s(), self._host())
        process = max(0.0, (self._before[1] - process_s) / (now - at))
        self._found = CpuShares(process, _share(host, self._before[2]))
        return self._found


def _share(before: Ticks | None, after: Ticks | None) -> float | None:
    if before is None or after is None or after.all <= before.all:
        return None
    return min(1.0, max(0.0, (after.busy - before.busy) / (after.all - before.all)))
