"""Kills the servers of a test run when the run ends, whatever ends it: `python leash.py FOLDER < pipe`.

The run holds the pipe's other end. When that closes, every server that works in a folder below FOLDER is killed, and
FOLDER is removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

SERVERS = frozenset({"redis-server", "java", "postgres", "versitygw"})


def servers_below(folder: Path) -> list[int]:
    """Process ids of servers whose working folder is below `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            works_in, program = (process / "cwd").readlink(), (process / "exe").readlink()
        except OSError:
            continue
        if works_in.is_relative_to(folder) and program.name in SERVERS:
            found.append(int(process.name))
    return found


def sweep(folder: Path) -> None:
    """Kills until none is left, then removes the folder."""
    for _ in range(100):
        pids = servers_below(folder)
        if not pids:
            break
        for pid in pids:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(Path(sys.argv[1]).resolve())
