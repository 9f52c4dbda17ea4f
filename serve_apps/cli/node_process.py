"""The node's process as the command line sees it: spawned detached, waited for, ended by its own lock's word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.embedded import Role, Running, process, server_spec
from cluster.embedded.paths import private_folder
from cluster.errors import Corrupt, Rejected, Unavailable
from cluster.telemetry.logfile import open_to_append
from cluster.telemetry.logs import NODE_LOG
from serve_apps.node_state import NodeState, node_file, read_node

LOCK_FILE = "node.lock"
_POLL_S = 0.1
_TAIL_BYTES = 64 << 10


def spawn(state_dir: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a node in a session of its own, its output appended to `node.log`. Does not wait."""
    log = private_folder(state_dir) / NODE_LOG
    end_orphans(state_dir)
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    descriptor = open_to_append(log)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "serve_apps.node"],
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)}, cwd=state_dir, stdin=subprocess.DEVNULL,
            stdout=descriptor, stderr=descriptor, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(descriptor)


def said(state_dir: Path) -> NodeState | None:
    """What `node.json` says, whether its node lives or not: looks at no lock, so it never gets in a start's way."""
    try:
        values = json.loads(node_file(state_dir).read_text())
        return NodeState(**{**values, "notes": tuple(values.get("notes", ()))})
    except (FileNotFoundError, ValueError, TypeError):
        return None


def wait_ready(
    child: subprocess.Popen[bytes], state_dir: Path, deadline_s: float, tell: Callable[[str], None]
) -> NodeState:
    """Wait until the node that was spawned is ready.

    Args:
        tell: called with the phase whenever it changes.

    Raises:
        Corrupt: it ended; the message says why, and where its log is.
        Unavailable: it is not ready within `deadline_s`, and goes on starting.
    """
    end, phase = time.monotonic() + deadline_s, ""
    while time.monotonic() < end:
        found = said(state_dir)
        mine = found if found is not None and found.pid == child.pid else None
        if mine is not None and mine.phase != phase:
            phase = mine.phase
            tell(phase)
        if mine is not None and mine.phase == "ready":
            return mine
        if child.poll() is not None:
            raise Corrupt(_why_it_ended(child, mine, state_dir))
        time.sleep(_POLL_S)
    raise Unavailable(f"not ready after {deadline_s:.0f} s (starting: {phase or 'the process'}); it goes on:"
                      f" see `intelgraph status` and {state_dir / NODE_LOG}", 10.0)  # fmt: skip


def _why_it_ended(child: subprocess.Popen[bytes], mine: NodeState | None, state_dir: Path) -> str:
    reason = mine.notes[-1] if mine is not None and mine.phase == "failed" and mine.notes else ""
    ended = f"the node ended with status {child.returncode} while it was starting"
    return f"{ended}: {reason or 'its log says more'} ({state_dir / NODE_LOG})"


def log_tail(state_dir: Path, lines: int = 15) -> list[str]:
    """The last lines of the node's log."""
    try:
        with (state_dir / NODE_LOG).open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return opened.read().decode("utf-8", "replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def holds_lock(pid: int, state_dir: Path) -> bool:
    """Whether this process has the state directory's lock open: a pid in a file may have another owner by now."""
    lock = (state_dir / LOCK_FILE).resolve()
    try:
        return any(_points_at(link, lock) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _points_at(link: Path, target: Path) -> bool:
    try:
        return link.readlink() == target
    except OSError:  # closed meanwhile
        return False


def terminate(state_dir: Path, deadline_s: float) -> int | None:
    """Ask the node to stop, and wait until it has; returns its pid, None where none is up.

    Raises:
        Corrupt: the lock is held, and not by the process that node.json names.
        Unavailable: it has not stopped within `deadline_s`; it goes on stopping.
    """
    node = read_node(state_dir)
    if node is None:
        return None
    ticks = process.start_ticks(node.pid)
    if ticks is None or not holds_lock(node.pid, state_dir):
        raise Corrupt(f"{state_dir} is in use, but not by process {node.pid} that node.json names: end it by hand")
    process.send(node.pid, ticks, signal.SIGTERM)
    end = time.monotonic() + deadline_s
    while process.start_ticks(node.pid) == ticks:
        if time.monotonic() >= end:
            raise Unavailable(f"the node (process {node.pid}) is still stopping after {deadline_s:.0f} s", 10.0)
        time.sleep(_POLL_S)
    return node.pid


def stop_left_over(state_dir: Path) -> list[str]:
    """Stop servers that outlived their node: shards save themselves. Returns their names. For a node that is down."""
    from cluster.embedded import adopt, stop

    stopped = []
    folders = sorted((state_dir / "servers").glob("*"), reverse=True) if (state_dir / "servers").is_dir() else []
    for folder in folders:
        role = next((r for r in Role if folder.name == r.value or folder.name.startswith(f"{r.value}-")), None)
        if role is None or not process.is_locked(folder / "lock"):
            continue
        with suppress(_NobodyLetIn):
            running = adopt(server_spec(state_dir, role, folder.name, 0), _let_nobody_in)
            if running is None:
                continue
            stop(running)
        stopped.append(folder.name)
    return stopped + end_orphans(state_dir)


class _NobodyLetIn(Rejected):
    """A server whose node died before it let anybody in: it was killed, and has nothing to save."""


def _let_nobody_in(running: Running, operator: Any) -> None:
    raise _NobodyLetIn(running.spec.name)


def end_orphans(state_dir: Path) -> list[str]:
    """Kill what a node that died has left of Ray and HAProxy; returns their names. For a node that is down.

    They are known by the token file of this installation in the environment that they were started with.
    """
    mark = f"RAY_AUTH_TOKEN_PATH={state_dir / 'ray.token'}".encode()
    ended = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        ticks = process.start_ticks(pid)
        try:
            started_here = pid != os.getpid() and mark in (folder / "environ").read_bytes().split(b"\0")
            name = (folder / "comm").read_text().strip()
        except OSError:  # it has gone, or is another user's
            continue
        if started_here and ticks is not None:
            process.send(pid, ticks, signal.SIGKILL)
            ended.append(name)
    return sorted(ended)
