"""Stream workers of an installation, as processes that can be killed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cluster.embedded import process
from tests.faults.harness import wait_until

PREFIX = "stream-worker"


class Started(NamedTuple):
    """A process, and when it began in clock ticks since boot: another one may get its number."""

    pid: int
    ticks: int


def stream_workers(run: Callable[..., dict[str, Any]]) -> dict[str, Started]:
    """Those that are there, by name, as Ray's dashboard tells them; waits until it answers.

    Args:
        run: an installation's.
    """
    found: dict[str, Started] = {}

    def told() -> bool:
        rows = run("status")["actors"]
        for row in rows:
            if row["name"].startswith(PREFIX) and row["state"] == "ALIVE":
                ticks = process.start_ticks(row["pid"])
                if ticks is not None:
                    found[row["name"]] = Started(row["pid"], ticks)
        return any(row["state"] == "ALIVE" for row in rows)

    wait_until(told, 60.0, "the dashboard tells of actors")
    return found


def kill(workers: Mapping[str, Started]) -> int:
    """SIGKILL; how many were still there."""
    return sum(process.send(pid, ticks, signal.SIGKILL) for pid, ticks in workers.values())
