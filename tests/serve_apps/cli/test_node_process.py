"""What a node that died has left is ended, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from serve_apps.cli.node_process import end_orphans


def test_orphans_are_known_by_their_installations_token(tmp_path: Path) -> None:
    def sleeping(folder: Path) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "RAY_AUTH_TOKEN_PATH": str(folder / "ray.token")}
        return subprocess.Popen(["sleep", "60"], env=environment)

    ours, others = sleeping(tmp_path), sleeping(tmp_path / "other")
    try:
        assert end_orphans(tmp_path) == ["sleep"]
        assert ours.wait(5) < 0
        assert others.poll() is None
        assert end_orphans(tmp_path) == []
    finally:
        for process in (ours, others):
            process.kill()
            process.wait()
