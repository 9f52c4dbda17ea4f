"""A command that is interrupted, once or again and again, says so and nothing of its inside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_READ = """
import sys
from pathlib import Path
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import guarded
from serve_apps.demo.material import gather

def read():
    with session.output.progress() as bars:
        print("reading", flush=True)
        gather(Path(sys.argv[1]), 2, bars)

if __name__ == "__main__":
    session = Session()
    sys.exit(guarded(session, read))
"""


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.5])
def test_reading_packages_ends_without_a_traceback_however_often_it_is_interrupted(
    tmp_path: Path, pause_s: float
) -> None:
    script = tmp_path / "read.py"
    script.write_text(_READ)
    child = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "reading\n"
    time.sleep(1.5)  # the processes that parse are at work
    for _ in range(4):
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to all of them
        time.sleep(pause_s)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in said, said
    assert said.strip() == "interrupted"
