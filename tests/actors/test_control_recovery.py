"""Control store and control partition of the log: an older copy of either, and writers that die in between."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from actors import control_recovery as recovery
from actors.stack import Stack
from cluster import shard_map
from cluster.config import LogSettings, Settings
from cluster.config_control import ControlSettings
from cluster.config_kafka import KafkaSettings
from cluster.errors import Conflict, Corrupt, OutcomeUnknown, Unavailable
from cluster.stores import control_changes as changes
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.control_journal import PARTITION
from cluster.stores.log import Append, EventLog, LogLostTail
from cluster.stores.open_log import open_control_log
from cluster.stores.redis_address import RedisAddress
from tests.kafka_broker import KafkaBroker
from tests.postgres import PostgresServer

T, S = "tenant-1", "feed"
KINDS = ["redis", *(pytest.param(kind, marks=pytest.mark.production) for kind in ("kafka", "postgres"))]
"""The defaults, and either of the other log and the other store."""


class Installation(Stack):
    """A stack whose log is on a server of the run.

    Args:
        spoilt: what is done to a connection to the control partition before it is used.
    """

    where: tuple[LogSettings, RedisAddress, str]
    spoilt: Callable[[EventLog], EventLog] = staticmethod(lambda log: log)

    def open_control_log(self) -> EventLog:
        """See `Stack.open_control_log`."""
        return self.spoilt(open_control_log(*self.where))


@dataclass
class Place:
    """One installation's folder and log; what is opened here is closed at the end."""

    folder: Path
    log: tuple[LogSettings, RedisAddress, str]
    opened: list[Stack]
    control: ControlSettings = field(default_factory=ControlSettings)
    postgres: PostgresServer | None = None

    def open(self, spoilt: Callable[[EventLog], EventLog] | None = None) -> Installation:
        """A process's stack of the installation."""
        stack = Installation(Settings(state_dir=self.folder, log=self.log[0], control=self.control))
        stack.where = self.log
        if spoilt is not None:
            stack.spoilt = spoilt
        self.opened.append(stack)
        return stack

    def up(self) -> Installation:
        """A stack whose store is whole; the installation is up from then on."""
        stack = self.open()
        recovery.make_whole(stack)
        return stack

    def backup(self) -> str:
        """A copy of the store, as it is."""
        if self.postgres is not None:
            name = f"{self.control.database}b"
            self.postgres.create(name, self.control.database)
            return name
        with closing(self.open().control) as control:
            path = self.folder / "backup.db"
            path.unlink(missing_ok=True)
            control.database.copy_to(path)
        return str(path)

    def restore(self, copy: str | None) -> None:
        """Puts another one in the store's place; None: there is none any more."""
        for stack in self.opened:
            stack.control.close()
        if self.postgres is not None:
            self.postgres.create(self.control.database, copy or "template1")
            return
        for name in ("control.db", "control.db-wal", "control.db-shm"):
            (self.folder / name).unlink(missing_ok=True)
        if copy is not None:
            shutil.copy(copy, self.folder / "control.db")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, unique: str) -> Iterator[Place]:
    """An installation that was never up."""
    settings, address = LogSettings(partitions=2, timeout_s=5.0, block_ms=100), RedisAddress()
    if request.param == "kafka":
        broker: KafkaBroker = request.getfixturevalue("mortal_kafka")
        if not broker.running:
            broker.start()
        kafka = KafkaSettings(bootstrap=broker.bootstrap, replication_factor=1, min_in_sync=1, topic_prefix=unique)
        settings = settings.model_copy(update={"kind": "kafka", "kafka": kafka})
    else:
        server = request.getfixturevalue("log_server")
        address = RedisAddress(socket=str(server.socket), password=server.password)
    made = Place(tmp_path, (settings, address, unique), [])
    if request.param == "postgres":
        made.postgres = request.getfixturevalue("postgres")
        made.control = made.postgres.settings(unique)
        made.postgres.create(unique)
    yield made
    for stack in made.opened:
        stack.control.close()
    if made.postgres is not None:
        made.postgres.drop(unique)
        made.postgres.drop(f"{unique}b")


def state(stack: Stack) -> dict[str, list[Any]]:
    """Every row that a copy has to have, too."""
    with stack.control.database.read() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr) for table in changes.covered()
        }


def work(stack: Stack, number: int) -> None:
    """Something in every table that matters."""
    control, now = stack.control, 1_000.0 + number
    for shard in ("shard-0", "shard-1"):
        control.shards.register(shard, f"unix:///{shard}", now)
        control.shards.raise_epoch(shard)
    current = control.shard_maps.current()
    if current is None:
        control.shard_maps.publish(0, shard_map.initial(["shard-0", "shard-1"], 2), now, "test")
    control.sources.register(T, S, now)
    control.sources.register(T, f"other-{number}", now)
    control.acceptance.accept(T, S, f"key-{number}", "hash", 10, now)
    control.dead_letters.add(T, [NewDeadLetter(S, 1, (number,), "decode", "bad", b"\x00\xff" * 100)], now)
    control.dead_letters.begin_replay(T, [control.dead_letters.list(T)[0].id], 5, now)
    control.runs.start(T, "louvain", "snapshot", now)
    stands = control.pointers.get("current")
    at = stands.sequence if stands else 0
    control.pointers.advance("current", at, at + 1, f"manifest-{number}", now)
    load = control.loads.start(T, S, f"digest-{number}", now)
    control.loads.commit(T, load.id, 0, 0, 50, acked=50)
    if number % 2:
        control.loads.end(T, load.id, "done", now)
    token = control.leases.acquire("lease", "me", 10.0, now)
    control.leases.renew("lease", token, 10.0, now + 1)
    control.names.register(T, "property_name", [f"name-{number}"], 100)
    control.audit.append(T, "me", "work", S, now, {"number": number})
    control.positions.register("shard-0", [0, 1], now)
    control.positions.report_durable("shard-0", {0: number, 1: number}, now)


def ends(place: Place) -> int:
    """The last entry of the control partition."""
    with closing(place.open().open_control_log()) as log:
        return log.ends()[PARTITION]


def test_a_store_restored_from_an_older_copy_becomes_what_it_was(place: Place) -> None:
    first = place.up()
    work(first, 0)
    old = place.backup()
    for number in range(1, 4):
        work(first, number)
    recovery.seal(first)
    before = state(first)
    place.restore(old)
    again = place.up()
    assert state(again) == before
    accepted = again.control.acceptance.accept(T, S, "key-new", "hash", 1, 9_000.0)
    assert (accepted.epoch, accepted.first_position) == newest(before)
    assert again.control.acceptance.accept(T, S, "key-3", "hash", 10, 9_000.0).replayed
    assert again.control.runs.start(T, "louvain", "s", 9_000.0).run == 5
    assert again.control.leases.acquire("lease", "me", 1.0, 9_000.0) == 5


GIVEN: dict[str, Callable[[Stack], Any]] = {
    "positions": lambda stack: stack.control.acceptance.accept(T, S, None, "hash", 10, 1.0).first_position,
    "epochs": lambda stack: stack.control.loads.epoch_of(T, S, uuid.uuid4().hex, 1.0),
    "runs": lambda stack: stack.control.runs.start(T, "louvain", "snapshot", 1.0).run,
    "tokens": lambda stack: stack.control.leases.acquire("lease", "me", 1.0, 1.0),
    "shards' epochs": lambda stack: stack.control.shards.raise_epoch("shard-0"),
}


@pytest.mark.parametrize("what", GIVEN)
def test_what_is_given_once_is_in_the_log_at_once(place: Place, what: str) -> None:
    stack = place.up()
    stack.control.sources.register(T, S, 1.0)
    stack.control.shards.register("shard-0", "unix:///shard-0", 1.0)
    first = GIVEN[what](stack)
    place.restore(None)
    assert GIVEN[what](place.up()) > first


def newest(rows: dict[str, list[Any]]) -> tuple[int, int]:
    """(epoch, position) that the source gives next: of a new epoch, since a load has opened one meanwhile."""
    (source,) = [row for row in rows["sources"] if row[1] == S]
    return source[8], 1


@pytest.mark.parametrize("kept", [True, False])
def test_an_empty_store_is_made_whole_from_the_log_or_from_a_checkpoint(place: Place, kept: bool) -> None:
    first = place.up()
    for number in range(3):
        work(first, number)
        if not kept:
            with closing(first.open_control_log()) as log:
                recovery.checkpoint(first, log)
    work(first, 3)
    recovery.seal(first)
    before = state(first)
    place.restore(None)
    assert state(place.up()) == before
    if not kept:
        place.restore(None)
        for path in (place.folder / "control").iterdir():
            path.unlink()
        with pytest.raises(Corrupt, match="no newer checkpoint"):
            place.up()


def test_a_store_from_before_there_was_a_partition_is_kept_in_a_checkpoint(place: Place) -> None:
    first = place.open()
    work(first, 0)
    assert recovery.make_whole(first).checkpoint == 1
    work(first, 1)
    recovery.seal(first)
    before = state(first)
    place.restore(None)
    assert state(place.up()) == before


def test_a_log_that_lost_the_partition_s_tail_goes_on_behind_the_store(place: Place) -> None:
    first = place.up()
    work(first, 0)
    old = place.backup()
    work(first, 1)
    recovery.seal(first)
    before = state(first)
    # As a log that was set back looks to the store: the store's number is beyond its end.
    ahead = ends(place) + 40
    set_number(first, ahead)
    again = place.open()
    found = recovery.make_whole(again)
    assert (found.lost, found.checkpoint, found.number) == (40, ahead, ahead)
    assert state(again) == before
    work(again, 2)
    recovery.seal(again)
    before = state(again)
    place.restore(old)
    assert state(place.up()) == before


def set_number(stack: Stack, number: int) -> None:
    with stack.control.database.write(later=True) as connection:
        bound = changes.number_of(connection)
        changes.bind(connection, bound.name, number, serving=False)


@pytest.mark.parametrize("step", ["filled", "checkpoint"])
def test_a_start_that_is_cut_off_while_the_partition_goes_on_is_done_by_the_next(place: Place, step: str) -> None:
    first = place.up()
    work(first, 0)
    recovery.seal(first)
    before = state(first)
    set_number(first, ends(place) + 300)

    def die(at: str) -> None:
        if at == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recovery.make_whole(place.open(), die)
    again = place.up()
    assert state(again) == before
    work(again, 1)
    before = state(again)
    recovery.seal(again)
    place.restore(None)
    assert state(place.up()) == before


class Spoilt:
    """A connection to the partition that dies, or says that it does not know, once it has appended so many."""

    def __init__(self, log: EventLog, after: int, end: Callable[[], None], appends: bool = True) -> None:
        self._log, self._left, self._end, self._appends = log, after, end, appends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, entries: Sequence[Append]) -> list[int]:
        self._left -= 1
        if self._left:
            return self._log.append(entries)
        if self._appends:
            self._log.append(entries)
        self._end()
        raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("appends", "by_start"),
    [
        (True, False),
        pytest.param(True, True, marks=pytest.mark.chaos),
        pytest.param(False, False, marks=pytest.mark.chaos),
    ],
)
def test_killed_between_append_and_commit_at_each_step(place: Place, appends: bool, by_start: bool) -> None:
    last = place.up()
    work(last, 0)
    steps = 0
    while dies(place, steps + 1, appends):
        steps += 1
        last = place.up() if by_start else place.open()
        with suppress(Conflict):
            last.control.audit.append(T, "me", "after", S, 1.0)
        assert last.control.audit.append(T, "me", "after", S, 1.0)
    assert steps >= 10
    recovery.seal(last)
    before = state(last)
    place.restore(None)
    assert state(place.up()) == before


def dies(place: Place, at: int, appends: bool) -> bool:
    """Works in a process that is killed at its `at`th append; whether there were so many."""
    if place.log[0].kind == "kafka":  # threads of a client do not come along into a child

        def gone() -> None:
            raise KeyboardInterrupt

        try:
            work(place.open(partial(Spoilt, after=at, end=gone, appends=appends)), at)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            return True
        return False
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            end = partial(os._exit, 7)
            work(place.open(partial(Spoilt, after=at, end=end, appends=appends)), at)  # type: ignore[arg-type]
            code = 0
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 7)
    return code == 7


def test_an_append_whose_outcome_is_unknown_is_done_or_void_and_never_half(place: Place) -> None:
    stack = place.up()

    def unknown() -> None:
        raise OutcomeUnknown("the connection broke")

    for appends in (True, False):
        worker = place.open(lambda log, appends=appends: Spoilt(log, 1, unknown, appends))  # type: ignore[misc]
        with pytest.raises(OutcomeUnknown):
            worker.control.sources.register(T, f"source-{appends}", 1.0)
    with suppress(Conflict):
        stack.control.sources.register(T, "after", 1.0)
    stack.control.sources.register(T, "after", 1.0)
    assert [s.name for s in stack.control.sources.list(T)] == ["after", "source-True"]


def test_an_entry_that_comes_late_is_void(place: Place) -> None:
    stack = place.up()
    kept: list[Append] = []

    class Late(Spoilt):
        def append(self, entries: Sequence[Append]) -> list[int]:
            kept.extend(entries)
            raise OutcomeUnknown("the connection broke")

    with pytest.raises(OutcomeUnknown):
        place.open(lambda log: Late(log, 0, lambda: None)).control.sources.register(T, "late", 1.0)  # type: ignore[arg-type, return-value]
    stack.control.sources.register(T, "first", 1.0)
    with closing(stack.open_control_log()) as log:
        log.append(kept)
    with pytest.raises(Conflict):
        stack.control.sources.register(T, "second", 1.0)
    stack.control.sources.register(T, "second", 1.0)
    before = state(stack)
    assert [s.name for s in stack.control.sources.list(T)] == ["first", "second"]
    place.restore(None)
    assert state(place.up()) == before


def test_what_a_load_has_read_is_counted_with_how_far_it_was_read(place: Place) -> None:
    """An entry whose writer was killed is put in after the load went on: it may set rows back, and no sum."""
    stack = place.up()
    work(stack, 0)
    loads, load = stack.control.loads, stack.control.loads.list(T)[0]
    loads.commit(T, load.id, 7, 0, 5, acked=4, dead=1)
    recovery.seal(stack)
    recovery.make_whole(stack)
    loads.record_outcomes(T, load.id, applied=4, duplicate=0, stale=0)  # notes the load's row, and no range's

    def unknown() -> None:
        raise OutcomeUnknown("the connection broke")

    with pytest.raises(OutcomeUnknown):
        place.open(lambda log: Spoilt(log, 1, unknown)).control.sources.register(T, "killed", 1.0)  # type: ignore[arg-type, return-value]
    loads.commit(T, load.id, 7, 5, 9, acked=3, dead=1)
    with pytest.raises(Conflict):
        stack.control.sources.register(T, "after", 1.0)
    now = loads.get(T, load.id)
    assert loads.positions(T, load.id)[7] == 9
    assert (now.acked - load.acked, now.dead - load.dead) == (7, 2)


def test_of_many_changes_of_a_row_the_last_one_is_put() -> None:
    def one(rows: list[list[Any]], gone: list[list[Any]]) -> changes.ChangeSet:
        return changes.ChangeSet("1", {"leases": changes.TableChanges(["name", "token"], rows, gone)})

    sets = [one([["a", 1], ["b", 1]], []), one([["a", 2]], [["b"]]), one([["b", 3]], [["a"]]), one([["c", 4]], [])]
    left = [(found.tables["leases"].rows, found.tables["leases"].gone) for found in changes.latest(sets)]
    assert left == [([], []), ([], []), ([["b", 3]], [["a"]]), ([["c", 4]], [])]


def test_a_change_that_is_larger_than_an_entry_is_cut_and_a_beginning_alone_is_void(place: Place) -> None:
    stack = place.up()
    settings = place.log[0].model_copy(update={"entry_bytes": 2 << 20})
    place.log = (settings, *place.log[1:])
    small = place.open()
    letter, most = NewDeadLetter(S, 1, (1,), "decode", "bad", os.urandom(7 << 20)), 8 << 20
    first = ends(place)
    small.control.dead_letters.add(T, [letter], 1.0, most)
    assert ends(place) == first + 4

    class Halfway(Spoilt):
        def append(self, entries: Sequence[Append]) -> list[int]:
            self._log.append(entries[:2])
            raise OutcomeUnknown("the connection broke")

    half = place.open(lambda log: Halfway(log, 0, lambda: None))  # type: ignore[arg-type, return-value]
    with pytest.raises(OutcomeUnknown):
        half.control.dead_letters.add(T, [replace(letter, position=(2,))], 1.0, most)
    with suppress(Conflict):
        stack.control.sources.register(T, S, 1.0)
    stack.control.sources.register(T, S, 1.0)
    before = state(stack)
    assert len(before["dead_letters"]) == 1
    place.restore(None)
    assert state(place.up()) == before


def test_while_it_is_up_nothing_is_written_that_the_log_does_not_take(place: Place) -> None:
    stack = place.up()

    def refused(log: EventLog) -> EventLog:
        log.close()
        raise Unavailable("the event log does not answer")

    worker = place.open(refused)
    before = state(stack)
    for write in (
        lambda: worker.control.sources.register(T, S, 1.0),
        lambda: worker.control.leases.acquire("x", "y", 1.0, 1.0),
    ):
        with pytest.raises(Unavailable):
            write()
    assert state(stack) == before
    worker.control.positions.report_durable("shard-0", {0: 1}, 1.0)  # such a thing may come later
    recovery.seal(stack)
    worker.control.sources.register(T, S, 1.0)  # the next start appends it
    before = state(stack)
    place.up()
    place.restore(None)
    assert state(place.up()) == before


def test_what_is_done_for_each_batch_appends_nothing_and_is_in_the_log_a_second_later(place: Place) -> None:
    stack = place.up()
    work(stack, 0)
    token, at = stack.control.leases.acquire("l", "me", 10.0, 1.0), ends(place)
    load = stack.control.loads.list(T)[0]
    for number in range(1, 6):
        stack.control.loads.commit(T, load.id, 1, number - 1, number, acked=1)
        stack.control.leases.renew("l", token, 10.0, 1.0 + number)
        stack.control.shards.report_lag("shard-0", 1, 1.0, 1.0)
        stack.control.positions.report_durable("shard-0", {0: number}, 1.0)
        stack.control.pushes.claim(T, f"k{number}", "hash", "me", 10.0, 1.0, 100)
        stack.control.pushes.keep(T, f"k{number}", {"positions": {}}, 1000)
    assert ends(place) == at
    stopping = threading.Event()
    thread = threading.Thread(target=recovery.keep, args=(stack, stopping))
    thread.start()
    try:
        for _ in range(100):
            if ends(place) > at:
                break
            stopping.wait(0.05)
    finally:
        stopping.set()
        thread.join()
    assert ends(place) == at + 1
    before = state(stack)
    place.restore(None)
    assert state(place.up()) == before


def test_the_partition_is_trimmed_as_checkpoints_are_written(place: Place) -> None:
    place.log = (place.log[0].model_copy(update={"control_bytes": 20_000}), *place.log[1:])
    stack = place.up()
    stopping = threading.Event()
    thread = threading.Thread(target=recovery.keep, args=(stack, stopping))
    thread.start()
    begin = 1
    try:
        for number in range(400):
            stack.control.dead_letters.add(T, [NewDeadLetter(S, 1, (number,), "decode", "b", os.urandom(2_000))], 1.0)
            with closing(stack.open_control_log()) as log:
                begin = log.begins()[PARTITION]
            if begin > 1:
                break
            stopping.wait(0.05)
    finally:
        stopping.set()
        thread.join()
    assert begin > 1
    assert len(list((place.folder / "control").iterdir())) == 1
    before = state(stack)
    place.restore(None)
    assert state(place.up()) == before
    assert next((place.folder / "control").iterdir()).stat().st_mode & 0o077 == 0


def test_another_log_is_refused(place: Place, tmp_path: Path) -> None:
    stack = place.up()
    work(stack, 0)
    recovery.seal(stack)
    other = Place(tmp_path / "other", (*place.log[:2], f"{place.log[2]}x"), place.opened)
    if place.log[0].kind == "kafka":
        kafka = place.log[0].kafka.model_copy(update={"topic_prefix": f"{place.log[2]}x"})
        other.log = (place.log[0].model_copy(update={"kafka": kafka}), *place.log[1:])
    other.folder.mkdir()
    work(other.up(), 0)
    place.log = other.log
    with pytest.raises(Corrupt, match="not the one"):
        place.up()


def test_rows_of_a_newer_version_are_refused_and_columns_of_an_older_one_get_defaults(place: Place) -> None:
    stack = place.up()
    with stack.control.database.write() as connection:
        table = changes.TableChanges(["name", "sequence", "manifest", "updated", "gone"], [["n", 1, "m", 1.0, 5]], [])
        changes.put(connection, changes.ChangeSet("0001", {"pointers": table, "dropped": table}))
        older = changes.TableChanges(["tenant", "name", "owner", "transport", "licence", "priority", "created"],
                                     [[T, S, "", "", "", 3, 1.0]], [])  # fmt: skip
        changes.put(connection, changes.ChangeSet("0001", {"sources": older}))
    assert stack.control.pointers.get("n") is not None
    assert stack.control.sources.get(T, S).next_position == 1
    with pytest.raises(Exception, match="upgrade"), stack.control.database.write() as connection:
        changes.put(connection, changes.ChangeSet("9999", {}))


def test_a_tail_that_is_lost_while_the_system_runs_stops_every_write_until_the_next_start(place: Place) -> None:
    """Entries in the place of those that are lost would make the loss look like none."""
    stack = place.up()
    stack.control.sources.register(T, S, 1.0)
    with stack.control.database.write(later=True) as connection:
        bound = changes.number_of(connection)
        changes.bind(connection, bound.name, bound.number + 2, serving=True)
    for _ in range(3):
        for process in (stack, place.open()):
            with pytest.raises(LogLostTail):
                process.control.sources.register(T, "another", 1.0)
    found = recovery.make_whole(place.open())
    assert found.lost == 2
    place.open().control.sources.register(T, "another", 1.0)
