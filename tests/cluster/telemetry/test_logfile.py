"""A log file that several processes append to while one sets it aside: whole lines, none lost, bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cluster.telemetry.logfile import is_behind, open_to_append, set_aside

LIMIT = 50_000
_WRITER = """
import sys, time
from pathlib import Path
from cluster.telemetry import Log
from cluster.telemetry.logs import append_to
append_to(Path(sys.argv[1]), actor=sys.argv[2])
for n in range(300):
    Log("intelgraph.writer").info("batch", n=n, text="é" * 500)
    time.sleep(0.001)
"""
_PRINTER = """
import os, sys
from pathlib import Path
from cluster.telemetry.logfile import set_aside
path = Path(sys.argv[1])
print("x" * 100, flush=True)
assert set_aside(path, 100, 2)
print("after", flush=True)
os.system("echo child")
print("elsewhere", file=sys.stderr, flush=True)
"""


def older(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*"))


def test_no_line_of_any_process_is_lost_or_torn_while_the_file_is_set_aside(tmp_path: Path) -> None:
    path, names = tmp_path / "node.log", ["a", "b", "c"]
    running = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name]) for name in names]
    while any(process.poll() is None for process in running):
        set_aside(path, LIMIT, 1_000)
    assert [process.returncode for process in running] == [0, 0, 0]
    files = [file for file in (path, *older(path)) if file.exists()]  # the last of it may have been set aside just now
    assert len(files) > 5
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sorted((line["actor"], line["n"]) for line in lines) == [(name, n) for name in names for n in range(300)]
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    for number in range(5):
        path.write_text(f"{number}" * 11)
        assert not set_aside(path, 11, 2)
        assert set_aside(path, 10, 2)
    assert [file.name for file in older(path)] == ["node.log.1", "node.log.2"]
    assert [file.read_text()[0] for file in older(path)] == ["4", "3"]
    assert not set_aside(path, 10, 2), "there is none"


def test_what_the_owner_prints_follows_and_what_goes_elsewhere_stays(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    with path.open("ab") as opened:
        command = [sys.executable, "-c", _PRINTER, str(path)]
        done = subprocess.run(command, stdout=opened, stderr=subprocess.PIPE, check=True, timeout=60)
    assert path.with_name("node.log.1").read_text() == "x" * 100 + "\n"
    assert path.read_text() == "after\nchild\n"
    assert done.stderr == b"elsewhere\n"


def test_a_descriptor_knows_whether_its_file_is_the_paths(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    with os.fdopen(open_to_append(path), "wb") as first:
        assert is_behind(path, first.fileno())
        path.rename(tmp_path / "aside")
        assert not is_behind(path, first.fileno())
        path.touch()
        assert not is_behind(path, first.fileno())
