"""Real servers: start, refuse, adopt, save, stop, kill."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from cluster.embedded import (
    Role,
    adopt,
    alive,
    checkpoint,
    ensure,
    kill,
    last_save_failed,
    operator,
    server_spec,
    start,
    stop,
)
from cluster.embedded.passwords import load_passwords
from cluster.embedded.process import is_locked, put_children_behind, wait_unlocked
from cluster.errors import Conflict, Corrupt, Rejected, Unavailable
from tests.left_over import left_over

pytestmark = pytest.mark.services

ROLES = [Role.LOG, Role.CACHE, Role.SHARD]


def graph_count(client: redis.Redis) -> int:
    return client.execute_command("GRAPH.QUERY", "g", "MATCH (n) RETURN count(n)")[1][0][0]


@pytest.mark.parametrize("role", ROLES)
def test_needs_a_password_and_serves(start_server, connect, role):
    running = start_server(role)
    assert connect(running).set("key", "value")
    for password in (None, "", "wrong"):
        stranger = connect(running, password=password)
        with pytest.raises(redis.AuthenticationError):
            stranger.get("key")


@pytest.mark.parametrize("role", ROLES)
def test_application_may_not_empty_configure_or_stop(start_server, connect, role):
    client = connect(start_server(role))
    forbidden = [
        "FLUSHALL", "FLUSHDB", "SHUTDOWN NOSAVE", "CONFIG SET maxmemory 0", "DEBUG SEGFAULT", "SAVE", "BGSAVE",
        "ACL SETUSER default +@all", "REPLICAOF NO ONE", "MODULE LIST", "KEYS *", "SWAPDB 0 0", "BGREWRITEAOF",
    ]  # fmt: skip
    for command in [*(line.split() for line in forbidden), ["EVAL", "return redis.call('FLUSHALL')", "0"]]:
        with pytest.raises(redis.ResponseError):
            client.execute_command(*command)
    assert client.ping()


@pytest.mark.parametrize("role", ROLES)
def test_listens_on_a_private_socket_alone(start_server, role):
    running = start_server(role)
    assert stat.S_IMODE(running.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(running.socket.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(running.spec.folder.stat().st_mode) == 0o700
    inodes = {str(f.readlink()) for f in Path(f"/proc/{running.pid}/fd").iterdir() if f.is_symlink()}
    tcp = [
        line.split()[9] for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    assert not inodes & {f"socket:[{inode}]" for inode in tcp}


def test_passwords_are_in_no_command_line_environment_or_public_file(start_server):
    running = start_server(Role.LOG)
    passwords = load_passwords(running.spec.secrets)
    seen = b"".join(Path(f"/proc/{running.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    seen += running.spec.config_file.read_bytes() + running.spec.log_file.read_bytes()
    for password in (passwords.application, passwords.operator):
        assert password.get_secret_value().encode() not in seen
        assert password.get_secret_value() not in repr(running)
    for file in (running.spec.secrets, running.spec.config_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_refuses_a_second_start_on_one_folder(start_server):
    running = start_server(Role.CACHE)
    with pytest.raises(Conflict, match=str(running.pid)):
        start(running.spec)
    assert alive(running)


def test_adopts_what_another_process_started(server_root):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from cluster.embedded import Role, server_spec, start
        running = start(server_spec(Path(sys.argv[1]), Role.CACHE, "cache", 1 << 26))
        print(running.pid, flush=True)
        import os; os.kill(os.getpid(), 9)
    """)
    state_dir = server_root / "adopted"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(state_dir)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    spec = server_spec(state_dir, Role.CACHE, "cache", 1 << 26)
    running = adopt(spec)
    assert running is not None
    assert running.pid == int(done.stdout)
    assert ensure(spec) == running
    kill(running)
    assert adopt(spec) is None
    kill(running)
    stop(running)


def test_nobody_is_served_before_the_owner_has_had_its_say(start_server, connect):
    running = start_server(Role.SHARD)
    stop(running)
    said: list[str] = []

    def before_serving(new, client):
        with pytest.raises(redis.AuthenticationError):
            connect(new).ping()
        client.execute_command("GRAPH.QUERY", "g", "CREATE (:Shard {epoch: 2})")
        said.append(new.spec.name)

    again = start(running.spec, before_serving)
    assert said == [running.spec.name]
    assert graph_count(connect(again)) == 1
    assert adopt(running.spec, before_serving) == again
    assert len(said) == 1
    kill(again)


def test_an_owner_that_fails_leaves_nothing_running(start_server):
    running = start_server(Role.CACHE)
    stop(running)

    def before_serving(new, client):
        raise Unavailable("control store is down")

    with pytest.raises(Unavailable, match="control store"):
        start(running.spec, before_serving)
    assert adopt(running.spec) is None


def test_one_that_is_refused_once_its_starter_has_died_is_ended_and_writes_nothing(start_server, connect, monkeypatch):
    """Adopted by the next start, it would stay with what it has loaded, whatever file is put there."""
    running = start_server(Role.SHARD)
    connect(running).execute_command("GRAPH.QUERY", "g", "CREATE (:Shard)")
    stop(running)
    before = running.spec.dump_file.read_bytes()
    left_over(running.spec, monkeypatch)

    def before_serving(new, client):
        client.execute_command("GRAPH.QUERY", "g", "CREATE (:Shard)")
        raise Rejected("another shard's")

    with pytest.raises(Rejected, match="another shard's"):
        adopt(running.spec, before_serving)
    assert not is_locked(running.spec.lock_file)
    assert running.spec.dump_file.read_bytes() == before
    assert adopt(running.spec, before_serving) is None


def test_log_keeps_what_it_acknowledged_through_a_kill(start_server, connect):
    running = start_server(Role.LOG)
    client = connect(running)
    for number in range(200):
        client.xadd("log", {"n": number}, id=f"{number + 1}-0")
    kill(running)
    again = start(running.spec)
    assert connect(again).xlen("log") == 200
    with operator(again.spec) as admin:
        assert admin.config_get("appendfsync") == {"appendfsync": "always"}
        assert admin.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    kill(again)


def test_log_over_its_memory_refuses_and_evicts_nothing(start_server, connect):
    client = connect(start_server(Role.LOG, max_memory_bytes=8 << 20))
    sent = 0
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        for _ in range(200):
            client.xadd("log", {"b": b"x" * 100_000})
            sent += 1
    assert 0 < sent == client.xlen("log")


def test_cache_over_its_memory_evicts_and_is_empty_after_a_restart(start_server, connect):
    running = start_server(Role.CACHE, max_memory_bytes=8 << 20)
    client = connect(running)
    for number in range(200):
        client.set(f"k{number}", b"x" * 100_000)
    assert 0 < client.dbsize() < 200
    stop(running)
    again = start(running.spec)
    assert connect(again).dbsize() == 0
    kill(again)


def test_shard_comes_back_from_its_checkpoint_and_from_a_stop(start_server, connect):
    running = start_server(Role.SHARD)
    client = connect(running)
    client.execute_command("GRAPH.QUERY", "g", "UNWIND range(1, 5000) AS i CREATE (:Entity {i: i})")
    saved = checkpoint(running)
    assert saved.file_bytes == running.spec.dump_file.stat().st_size > 1000
    client.execute_command("GRAPH.QUERY", "g", "CREATE (:Entity {i: 0})")
    kill(running)
    again = start(running.spec)
    assert graph_count(connect(again)) == 5000
    connect(again).execute_command("GRAPH.QUERY", "g", "CREATE (:Entity {i: 0})")
    stop(again)
    last = start(running.spec)
    assert graph_count(connect(last)) == 5001
    stop(last, save=False)
    assert not alive(last)


def test_a_checkpoint_steps_behind_while_it_lasts(start_server, connect, monkeypatch):
    running, lasted = start_server(Role.SHARD), []
    connect(running).execute_command("GRAPH.QUERY", "g", "UNWIND range(1, 500000) AS i CREATE (:Entity {i: i})")

    def put_last(pid, ticks):
        lasted.append(connect(running).info("persistence")["rdb_bgsave_in_progress"])
        put_children_behind(pid, ticks)
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_bytes().rpartition(b")")[2].split()
                if int(fields[1]) == running.pid:
                    lasted.append(int(fields[16]))

    monkeypatch.setattr(sys.modules["cluster.embedded.checkpoint"], "put_children_behind", put_last)
    checkpoint(running)
    assert lasted == [1, 15]
    assert os.getpriority(os.PRIO_PROCESS, running.pid) < 15


def test_checkpoint_that_fails_is_an_error_and_the_shard_goes_on(start_server, connect):
    running = start_server(Role.SHARD)
    client = connect(running)
    client.execute_command("GRAPH.QUERY", "g", "CREATE (:Entity {i: 0})")
    running.spec.dump_file.mkdir()  # the rename fails, as for root nothing else does
    with pytest.raises(Unavailable, match="free disk space"):
        checkpoint(running)
    assert last_save_failed(running)
    with pytest.raises(Unavailable, match="could not save"):
        stop(running)
    client.execute_command("GRAPH.QUERY", "g", "CREATE (:Entity {i: 1})")
    running.spec.dump_file.rmdir()
    assert checkpoint(running).file_bytes > 0
    assert not last_save_failed(running)
    assert graph_count(client) == 2


def test_full_disk_is_an_error_until_it_is_freed(start_server, connect, server_root):
    disk = server_root / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        shard = start_server(Role.SHARD, folder=disk)
        log = start_server(Role.LOG, "log", folder=disk)
        connect(shard).execute_command("GRAPH.QUERY", "g", "UNWIND range(1, 1000) AS i CREATE (:E {i: i})")
        assert connect(log).xadd("s", {"n": "1"})
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 65536)
        with pytest.raises(Unavailable, match="free disk space"):
            checkpoint(shard)
        with pytest.raises(redis.RedisError):
            for _ in range(100):
                connect(log).xadd("s", {"b": b"y" * 10_000})
        assert graph_count(connect(shard)) == 1000
        ballast.unlink()
        assert checkpoint(shard).file_bytes > 0
        log = ensure(log.spec)
        assert connect(log).xlen("s") >= 1
        assert connect(log).xadd("s", {"n": "2"})
        kill(shard)
        kill(log)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_broken_checkpoint_is_corrupt_and_says_where(start_server, connect):
    running = start_server(Role.SHARD)
    connect(running).execute_command("GRAPH.QUERY", "g", "UNWIND range(1, 500) AS i CREATE (:E {i: i})")
    stop(running)
    dump = running.spec.dump_file.read_bytes()
    running.spec.dump_file.write_bytes(dump[: len(dump) // 2])
    with pytest.raises(Corrupt, match=str(running.spec.folder)):
        start(running.spec)
    assert adopt(running.spec) is None
    running.spec.dump_file.unlink()
    kill(start(running.spec))


def test_a_server_that_does_not_answer_is_named(start_server):
    running = start_server(Role.CACHE)
    os.kill(running.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable, match=rf"pid {running.pid}.*kill it"):
        adopt(running.spec, deadline_s=0.1)
    kill(running)
    assert wait_unlocked(running.spec.lock_file, 1.0)


def test_a_start_that_cannot_work_says_what_the_server_said(start_server):
    running = start_server(Role.CACHE, max_memory_bytes=1 << 20)
    stop(running)
    running.socket.mkdir()
    try:
        with pytest.raises(Unavailable, match=r"server\.log"):
            start(running.spec)
    finally:
        running.socket.rmdir()


def test_shard_loads_with_the_bundled_libgomp(start_server, connect):
    running = start_server(Role.SHARD, bundled_libgomp=True)
    maps = Path(f"/proc/{running.pid}/maps").read_text()
    loaded = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "libgomp" in line}
    assert loaded
    assert all("networkit.libs" in path for path in loaded)
    assert connect(running).execute_command("GRAPH.QUERY", "g", "RETURN 1") is not None


def test_only_shards_have_checkpoints(start_server):
    with pytest.raises(Rejected):
        checkpoint(start_server(Role.LOG))


def test_a_pid_with_another_owner_is_left_alone(start_server):
    running = start_server(Role.CACHE)
    stop(running)
    with subprocess.Popen(["sleep", "60"]) as other:
        running.spec.pid_file.write_text(str(other.pid))
        kill(running)
        assert other.poll() is None
        other.kill()
