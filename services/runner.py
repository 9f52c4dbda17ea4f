"""Start, find and stop services: one folder, one process, one `service.json` each."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from cluster.embedded import process
from cluster.embedded.passwords import write_private
from services.ports import LISTEN
from services.spec import Launch, NotInstallable, Running, Service

_POLL_S = 0.1
_STOP_S, _KILL_S = 30.0, 10.0
FILE = "service.json"
LOG = "server.log"


class Services:
    """The services of one folder.

    Args:
        folder: made where it is missing; others on this machine may pass through it, and read nothing of it.
        catalogue: what there is, by name, each after what it needs.
        artifacts: where fetched files lie; may be shared by several folders.
        listen: the address that Kafka, Neo4j, PostgreSQL and S3 listen on; loopback without one.
    """

    def __init__(
        self, folder: Path, catalogue: Mapping[str, Service], artifacts: Path | None = None, listen: str = ""
    ) -> None:
        self.folder = folder.resolve()
        self.artifacts = (artifacts or folder / "artifacts").resolve()
        self._catalogue, self._listen = catalogue, listen

    def start(self, name: str) -> Running:
        """Install and start a service, and those that it needs; one that runs is left as it is.

        Raises:
            NotInstallable: something of it cannot be had here. RuntimeError: it did not come up.
        """
        service = self._catalogue[name]
        needed = {other: self.start(other) for other in service.needs}
        if running := self.find(name):
            return running
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._listen:
            write_private(self.folder / LISTEN, self._listen)
        own = self.folder / name
        own.mkdir(mode=0o700, exist_ok=True)
        service.install(self.artifacts)
        launch = service.launch(own, self.artifacts, needed)
        return _start(name, own, launch)

    def find(self, name: str) -> Running | None:
        """The service, if it runs."""
        try:
            running = msgspec.json.decode((self.folder / name / FILE).read_bytes(), type=Running)
        except FileNotFoundError:
            return None
        return running if process.start_ticks(running.pid) == running.start_ticks else None

    def stop(self, name: str, keep_data: bool = True) -> None:
        """End a service and wait for it; then its folder may go. Safe to call again."""
        if running := self.find(name):
            _end(running)
        (self.folder / name / FILE).unlink(missing_ok=True)
        if not keep_data:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def stop_all(self, keep_data: bool = True) -> list[str]:
        """End everything, those first that need others; returns what ran."""
        names = [name for name in reversed(list(self._catalogue)) if self.find(name)]
        for name in reversed(list(self._catalogue)):
            self.stop(name, keep_data)
        return names

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash of the machine's power would not be: what the kernel has is kept."""
        if running := self.find(name):
            process.send(running.pid, running.start_ticks, signal.SIGKILL)
            _wait_gone(running, _KILL_S)


def _start(name: str, own: Path, launch: Launch) -> Running:
    log = own / LOG
    pid = _spawn(launch, own, log)
    ticks = process.start_ticks(pid)
    running = Running(name, pid, ticks or 0, launch.address, dict(launch.details), launch.stop_signal)
    # noted before it answers: `down` finds it also where whoever starts it is killed meanwhile
    write_private(own / FILE, msgspec.json.encode(running).decode())
    end = time.monotonic() + launch.start_s
    while not launch.answers():
        if process.start_ticks(pid) != ticks or ticks is None:
            _reap(pid)
            raise RuntimeError(f"{name} has ended; the end of {log}:\n{_tail(log)}")
        if time.monotonic() >= end:
            process.send(pid, ticks, signal.SIGKILL)
            _wait_gone(running, _KILL_S)
            raise RuntimeError(f"{name} does not answer after {launch.start_s:.0f} s; the end of {log}:\n{_tail(log)}")
        time.sleep(_POLL_S)
    return running


def _spawn(launch: Launch, own: Path, log: Path) -> int:
    """A process of a session of its own, which works in the service's folder and outlives the caller."""
    command = ["sh", "-c", 'cd "$0" && exec "$@"', str(own), *_as_user(launch.user, launch.command, own)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    defaults = (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)
    environment = {**os.environ, **launch.environment}
    return os.posix_spawnp(
        command[0], list(command), environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=defaults
    )


def _as_user(user: str, command: Sequence[str], own: Path) -> Sequence[str]:
    """The command as another user, who gets the folder: some servers refuse to run as root."""
    if not user or os.geteuid() != 0:
        return command
    entry = pwd.getpwnam(user)
    for path in (own, *own.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    for parent in own.parents:
        if not parent.stat().st_mode & 0o001:
            raise NotInstallable(f"{parent} is closed to the user {user}; choose another folder, or chmod o+x it")
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command]


def _end(running: Running) -> None:
    process.send(running.pid, running.start_ticks, signal.Signals(running.stop_signal))
    if not _wait_gone(running, _STOP_S):
        process.send(running.pid, running.start_ticks, signal.SIGKILL)
        if not _wait_gone(running, _KILL_S):
            raise RuntimeError(f"{running.name} (pid {running.pid}) does not end")


def _wait_gone(running: Running, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while process.start_ticks(running.pid) == running.start_ticks:
        _reap(running.pid)
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S / 4)
    _reap(running.pid)
    return True


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _tail(log: Path) -> str:
    return "\n".join(_lines(log)) if log.is_file() else "(nothing)"


def _lines(log: Path, most: int = 15) -> Iterator[str]:
    yield from log.read_text(errors="replace").splitlines()[-most:]
