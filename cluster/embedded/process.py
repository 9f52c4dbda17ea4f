"""Processes by identity, and the lock that a server holds for as long as it lives.

A server inherits the locked file of its folder, so the lock goes exactly when the last of its processes has gone,
whoever started it. That is how a start sees that another server has the folder, and that its own has died.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cluster.errors import Unavailable

_POLL_S = 0.01
_LOCK_DESCRIPTOR = 3
_BEHIND = 15
"""Niceness of what can wait, as `actors.priority` has it."""


def take_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None while somebody else does. Does not wait."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a server has this folder. The asker holds the lock itself for an instant."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def wait_unlocked(path: Path, deadline_s: float) -> bool:
    """Waits until no server has the folder; false when the time is over."""
    end = time.monotonic() + deadline_s
    while is_locked(path):
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S)
    return True


class Locked:
    """Holds the lock until the end of a `with` block; a child that has inherited it goes on holding it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def locked(path: Path, deadline_s: float) -> Locked:
    """Takes the lock, for a `with` block.

    Raises:
        Unavailable: it is not free within `deadline_s`.
    """
    end = time.monotonic() + deadline_s
    while (descriptor := take_lock(path)) is None:
        if time.monotonic() >= end:
            raise Unavailable(f"{path.parent} is in use by a running server; stop it or choose another state directory")
        time.sleep(_POLL_S)
    return Locked(descriptor)


def spawn_daemon(command: list[str], environment: Mapping[str, str], lock: int, output: Path) -> int:
    """Runs a program that turns itself into a daemon, and waits for its front process.

    The daemon is no child of the caller: it outlives it, and nothing has to be reaped.

    Args:
        lock: descriptor that the daemon inherits.
        output: file that stdout and stderr are appended to.

    Returns:
        The front process's exit status.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    inherited = fcntl.fcntl(lock, fcntl.F_DUPFD_CLOEXEC, _LOCK_DESCRIPTOR + 1)
    try:
        actions.append((os.POSIX_SPAWN_DUP2, inherited, _LOCK_DESCRIPTOR))
        defaults = (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)
        pid = os.posix_spawn(
            command[0], command, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=defaults
        )
    finally:
        os.close(inherited)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or only waits to be reaped.

    A first thread that has ended while others still do is not gone: they hold its files and locks.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        ended = fields[0] in (b"Z", b"X") and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if ended else int(fields[19])


def server_in(folder: Path, pid_file: Path) -> int | None:
    """The pid of the redis-server whose working folder is `folder`, as the pid file says and the kernel confirms."""
    try:
        pid = int(pid_file.read_text())
        works_in = Path(f"/proc/{pid}/cwd").readlink()
        program = Path(f"/proc/{pid}/exe").readlink()
    except (OSError, ValueError):
        return None
    named = program.name.removesuffix(" (deleted)")
    return pid if works_in == folder.resolve() and named == "redis-server" and start_ticks(pid) is not None else None


def put_children_behind(pid: int, ticks: int) -> None:
    """Lets others go before a process's children, unless the pid has another owner by now.

    Where cores are shared out to sessions first (see `actors.priority`), a child alone on a core counts as little as
    its niceness says, too: what a session gets of a core goes by the weight of those of it that are there.
    """
    if start_ticks(pid) != ticks:
        return
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            if int(path.read_bytes().rpartition(b")")[2].split()[1]) == pid:
                os.setpriority(os.PRIO_PROCESS, int(path.parent.name), _BEHIND)


def send(pid: int, ticks: int, number: signal.Signals) -> bool:
    """Signals a process unless the pid has another owner by now; says whether it did."""
    descriptor = None
    try:
        descriptor = os.pidfd_open(pid)
        if start_ticks(pid) != ticks:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True
