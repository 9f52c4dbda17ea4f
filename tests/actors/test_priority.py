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
