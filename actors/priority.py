"""Which of this machine's processes go first when there are not cores enough for all.

Shard writers and the API are what somebody waits for. What comes later anyway can wait: readers of sources, snapshots,
overlays, and what writes some seconds of all that came at once: the lake appender, and saves of embedded shards
(`cluster.embedded.checkpoint`). The lake has to follow before the log is full, but then readers stand still and leave
it the cores. Databases and log are no processes of Ray, and come before all of these; but where Linux shares cores out
to sessions, a shard's writer stands beside its database: that gets no more done than it is given.
"""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

FIRST = 5
"""Niceness of Ray's workers, `RAY_worker_niceness`: Ray's own default, 15, leaves no room behind."""
BEHIND = 15
_TRIES = 50
_AUTOGROUP = Path("/proc/self/autogroup")


def step_aside() -> None:
    """Let those go first that somebody waits for. Safe to call twice; nobody gets ahead by it.

    Linux keeps a niceness for each thread, which those that it starts inherit: so all there are step aside. It counts
    among the threads of a session only, where cores are shared out to sessions first (`sched_autogroup`, sched(7)), and
    databases have sessions of their own: so the process leaves its session for one that is behind.
    """
    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()] if sys.platform == "linux" else [0]
    for thread in threads:
        with suppress(ProcessLookupError):  # it has ended
            if os.getpriority(os.PRIO_PROCESS, thread) < BEHIND:
                os.setpriority(os.PRIO_PROCESS, thread, BEHIND)
    with suppress(OSError):  # no Linux with such groups, or this process may not
        _leave_session(BEHIND)


def stand_alone() -> None:
    """Get as much of the cores as a database does, where Linux shares them out to sessions: Ray's workers are in one
    with the node, the API and all of Ray otherwise, and share what it gets. Safe to call twice; the niceness stays."""
    with suppress(OSError):
        _leave_session(0)


def _leave_session(niceness: int) -> None:
    said = _AUTOGROUP.read_text().split()
    if not said:  # the first session of a machine has no group
        return
    if os.getsid(0) != os.getpid():
        if os.getpgrp() == os.getpid():  # as Ray's workers do: who leads a group cannot leave the session
            os.setpgid(0, os.getpgid(os.getppid()))
        try:
            os.setsid()
        except OSError:  # a child is in the group still
            os.setpgid(0, 0)
            raise
    wanted = max(niceness, int(said[-1]))
    for _ in range(_TRIES if wanted else 0):  # a new group has 0
        try:
            _AUTOGROUP.write_text(str(wanted))
        except BlockingIOError:  # one process of the machine each 0.1 s, where it is not the administrator's
            time.sleep(random.uniform(0.1, 0.3))
        else:
            return
