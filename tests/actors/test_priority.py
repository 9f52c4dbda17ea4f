"""Who steps aside stays behind, and never gets ahead."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from actors.priority import BEHIND, FIRST

STEP = "import os; from actors.priority import step_aside; step_aside(); step_aside(); print(os.getpriority(0, 0))"


@pytest.mark.parametrize(("begun", "ends"), [(0, BEHIND), (BEHIND + 3, BEHIND + 3)])
def test_a_process_goes_behind_and_stays_there(begun: int, ends: int) -> None:
    run = f"import os; os.nice({begun} - os.getpriority(0, 0)) if os.getpriority(0, 0) < {begun} else None; {STEP}"
    done = subprocess.run([sys.executable, "-c", run], check=True, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) == max(ends, os.getpriority(os.PRIO_PROCESS, 0))
    assert FIRST < BEHIND


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a niceness is a process's")
def test_every_thread_goes_behind_and_those_that_it_starts() -> None:
    """What reads a stream is a thread that a pool's thread has started, not the one that made the actor."""
    run = """if True:
        import os, threading
        from concurrent.futures import ThreadPoolExecutor
        from actors.priority import step_aside
        mine = lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        with ThreadPoolExecutor(1) as before:
            before.submit(mine).result()
            step_aside()
            later = before.submit(lambda: ThreadPoolExecutor(1).submit(mine).result()).result()
            print(mine(), before.submit(mine).result(), later)
    """
    done = subprocess.run([sys.executable, "-c", run], check=True, stdout=subprocess.PIPE, text=True)
    assert min(map(int, done.stdout.split())) >= BEHIND
