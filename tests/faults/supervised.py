"""A system's loops as Ray actors under a supervisor, as the node runs them. Ray has to run already.

with Supervised(system.stack) as actors:         # comes back when every actor has answered
    actors.pids()["lake-appender"]
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import TracebackType
from typing import Any

from actors.ingest_actor import wanted_workers
from actors.stack import Stack
from actors.supervisor import Supervisor, wanted
from tests.faults.servers import wait_until

START_S = 120.0
"""A first start takes so long at most, on a busy machine."""


class Supervised:
    """See the module."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._stopping = stack, threading.Event()
        self.supervisor = Supervisor(stack, lambda: wanted_workers(stack.settings))
        self._thread = threading.Thread(target=self.supervisor.run, args=(self._stopping,), daemon=True)
        self.started_in_s = 0.0
        """How long it took until every actor answered."""

    def __enter__(self) -> Supervised:
        try:
            self.start()
        except BaseException:
            self.stop()  # else the next one finds its actors, which have the same names
            raise
        return self

    def start(self) -> None:
        """Waits until every actor has answered; `stop` ends them, also where they have not."""
        began, names = time.monotonic(), self.names
        self._thread.start()
        wait_until(lambda: self.pids().keys() >= names, START_S, "every actor answers")
        self.started_in_s = time.monotonic() - began

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every actor finish what it has under way, then end it. Safe to call twice, and before the start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(START_S)
        self.supervisor.stop()

    @property
    def names(self) -> set[str]:
        """Of all actors that have to be there: those of every shard that owns buckets, and the workers."""
        shards = list(self._stack.current_map().shards)
        return {a.name for a in wanted(self._stack.settings, shards) + wanted_workers(self._stack.settings)}

    def status(self, name: str) -> dict[str, Any]:
        """What an actor told last; nothing before it has told anything."""
        return self.supervisor.statuses.get(name, {})

    def pids(self) -> dict[str, int]:
        """Process of each actor that answers."""
        return {name: status["pid"] for name, status in self.supervisor.statuses.items() if "pid" in status}

    def kill(self, name: str) -> int:
        """SIGKILL to an actor's process; returns which it was."""
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        return pid
