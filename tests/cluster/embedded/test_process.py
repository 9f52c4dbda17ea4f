"""The lock that a server inherits, and processes by identity."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial

import pytest

from cluster.embedded import process
from cluster.errors import Unavailable


def test_the_lock_goes_with_the_last_process_that_has_it(tmp_path):
    lock = tmp_path / "lock"
    with process.locked(lock, 0.0) as descriptor:
        assert process.is_locked(lock)
        code = process.spawn_daemon(
            ["/bin/sh", "-c", "sleep 60 & echo $!; exit 3"], {"PATH": "/usr/bin:/bin"}, descriptor, tmp_path / "out"
        )
    assert code == 3
    assert process.is_locked(lock)
    with pytest.raises(Unavailable, match="in use"):
        process.locked(lock, 0.0)
    assert not process.wait_unlocked(lock, 0.05)
    os.kill(int((tmp_path / "out").read_text()), signal.SIGKILL)
    assert process.wait_unlocked(lock, 5.0)
    assert not process.is_locked(lock)


def test_a_lock_that_was_never_taken_is_free(tmp_path):
    assert not process.is_locked(tmp_path / "lock")


def test_a_process_is_known_by_its_start_and_a_dead_one_is_none():
    with subprocess.Popen(["sleep", "60"]) as child:
        ticks = process.start_ticks(child.pid)
        assert ticks is not None
        assert not process.send(child.pid, ticks + 1, signal.SIGKILL)
        assert child.poll() is None
        assert process.send(child.pid, ticks, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.start_ticks(child.pid) is None  # a zombie
    assert process.start_ticks(child.pid) is None
    assert not process.send(child.pid, ticks, signal.SIGKILL)


def test_of_a_process_only_its_children_step_behind():
    shell = ["/bin/sh", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, text=True, process_group=0) as parent:
        child, mine = int(parent.stdout.readline()), os.getpriority(os.PRIO_PROCESS, 0)
        niceness = partial(os.getpriority, os.PRIO_PROCESS)
        ticks, seen = process.start_ticks(parent.pid), []
        for told in (ticks + 1, ticks):
            process.put_children_behind(parent.pid, told)
            seen.append((niceness(child), niceness(parent.pid)))
        os.killpg(parent.pid, signal.SIGKILL)
    assert seen == [(mine, mine), (15, mine)], "of a pid that is somebody else's by now nothing is touched"
    process.put_children_behind(parent.pid, ticks)


def test_a_pid_file_of_another_program_is_not_believed(tmp_path):
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert process.server_in(tmp_path, tmp_path / "pid") is None
    (tmp_path / "pid").write_text("rubbish")
    assert process.server_in(tmp_path, tmp_path / "pid") is None
