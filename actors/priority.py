"""Which of this machine's processes go first when there are not cores enough for all.

Shard writers and the API are what somebody waits for. What the log already keeps safe, or what only makes a copy, can
wait: readers of sources, the lake appender, snapshots, overlays. Databases and log are no processes of Ray, and come
before all of these.
"""

from __future__ import annotations

import os

FIRST = 5
"""Niceness of Ray's workers, `RAY_worker_niceness`: Ray's own default, 15, leaves no room behind."""
BEHIND = 15


def step_aside() -> None:
    """Let those go first that somebody waits for. Safe to call twice; nobody gets ahead by it."""
    if os.getpriority(os.PRIO_PROCESS, 0) < BEHIND:
        os.setpriority(os.PRIO_PROCESS, 0, BEHIND)
