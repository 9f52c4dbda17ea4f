"""Who steps aside stays behind, and never gets ahead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="cores are not shared out to sessions here")
@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize(("step", "least", "most"), [("step_aside", BEHIND, 19), ("stand_alone", 0, 0)])
def test_its_session_gets_its_own_share_and_nobody_else_s(step: str, least: int, most: int, session: bool) -> None:
    """Ray's workers lead a group in the session of others. That one is made here: a machine's first has no group."""
    run = """if True:
        import os
        from pathlib import Path
        from actors.priority import STEP as step
        mine = lambda: Path("/proc/self/autogroup").read_text().split()
        before, sid = mine(), os.getsid(0)
        step(); step()
        leads, led = os.getsid(0) == os.getpgrp() == os.getpid(), sid == os.getpid()
        print(int(leads), int(led), int(before[0] == mine()[0]), mine()[2])
    """
    others = """if True:
        import subprocess, sys
        from pathlib import Path
        mine = lambda: Path("/proc/self/autogroup").read_text()
        before, session = mine(), bool(int(sys.argv[2]))
        child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True,
                                 start_new_session=session, process_group=None if session else 0)
        print(child.communicate(timeout=60)[0].strip(), int(before == mine()), int(before != ""))
    """
    asked = [sys.executable, "-c", others, run.replace("STEP", step), str(int(session))]
    child = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, start_new_session=True)
    leads, led, same, niceness, unmoved, grouped = map(int, child.communicate(timeout=90)[0].split())
    assert (leads, led, same) == (1, int(session), int(session))
    assert least <= niceness <= most
    assert (unmoved, grouped) == (1, 1)


ASIDE = """if True:
    import os
    import sys
    from actors import priority

    class Group:
        said, refusals, written = sys.argv[1], int(sys.argv[2]), []

        def read_text(self):
            return self.said

        def write_text(self, niceness):
            self.written.append(niceness)
            if len(self.written) <= self.refusals:
                raise BlockingIOError

    priority._AUTOGROUP = group = Group()
    sid = os.getsid(0)
    priority.step_aside()
    print(int(os.getsid(0) == sid), len(group.written))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such groups")
@pytest.mark.parametrize(("said", "refusals", "stays", "writes"), [("", 0, 1, 0), ("/autogroup-9 nice 0\n", 2, 0, 3)])
def test_where_a_session_has_no_group_or_may_not_say_it_yet(said: str, refusals: int, stays: int, writes: int) -> None:
    """The first session of a machine has none; who is not the machine's administrator takes turns with all others."""
    run = [sys.executable, "-c", ASIDE, said, str(refusals)]
    done = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True, process_group=0)
    assert tuple(map(int, done.stdout.split())) == (stays, writes)
