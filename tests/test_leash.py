"""A test run that is killed leaves no server behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.services
def test_a_killed_run_leaves_no_server_and_no_folder(tmp_path):
    (tmp_path / "conftest.py").symlink_to(TESTS / "conftest.py")
    (tmp_path / "leash.py").symlink_to(TESTS / "leash.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = services\n")
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
        import os
        from pathlib import Path
        def test_it(log_server, falkor_server, server_root):
            Path("seen").write_text(f"{server_root} {log_server.pid} {falkor_server.pid}")
            os.kill(os.getpid(), 9)
        """)
    )
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "TMPDIR": "/tmp"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "pytest.ini", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stdout
    root, *pids = (tmp_path / "seen").read_text().split()
    end = time.monotonic() + 20
    while time.monotonic() < end and Path(root).exists():
        time.sleep(0.05)
    assert not Path(root).exists()
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or ") Z " in stat.read_text()
