"""What a shard writer reads and makes ready while its shard is at work, and when it waits for the shard alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from actors.shard_writer import ShardWriter
from actors.tempo import Tempo
from cluster import batch, versions
from cluster.errors import OutcomeUnknown
from cluster.model import Kind, Record, floor_record
from cluster.stores.graph import Fence, WriteCounts
from cluster.stores.log import Entry
from cluster.stores.shard import StoredShard
from tests.actors.shard_tapes import MakeShard, Tape, check, open_writer, person
from tests.strategies import make


def clock(sleep: Callable[[float], None] | None, monotonic: Callable[[], float] = time.monotonic) -> SimpleNamespace:
    """Time that is slept otherwise; None: not at all."""
    return SimpleNamespace(time=time.time, monotonic=monotonic, sleep=sleep)


def test_a_batch_is_brought_to_its_end_before_the_next_reading_is_waited_for(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, slept, now = make_shard(), list[tuple[float, int]](), [0.0]

    def sleep(seconds: float) -> None:
        slept.append((seconds, shard.cursors()[0].at))
        now[0] += seconds

    monkeypatch.setattr("actors.shard_writer.time", clock(sleep))
    log = Tape([[make("t", "c", 0, "person", f"p{n}", "s", n)] for n in range(1, 4)])
    open_writer(shard, log)
    all_entries, log.entries = [entry._replace(appended_ms=time.time() * 1e3) for entry in log.entries], []
    fence = Fence(1, 1, (0,))
    writer = ShardWriter(shard, log, fence, lambda bucket: True, limit_entries=2, block_ms=0, interval_s=60.0)
    writer._tempo = Tempo(lambda: now[0])
    for entry in all_entries:
        log.entries.append(entry)
        assert writer.step() == 1
    assert slept == [(60.0, 1), (60.0, 2)], "each after what was read before is in the shard"
    now[0] += 90.0
    assert writer.step() == 0, "the shard was busy for longer: nothing is waited for"
    assert len(slept) == 2


def test_while_the_shard_is_at_work_for_longer_the_next_batch_is_made_ready(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, waited = make_shard(), list[float]()
    log = Tape([[make("t", "c", 0, "person", f"p{n}", "s", n)] for n in range(1, 3)])
    open_writer(shard, log)
    monkeypatch.setattr("actors.shard_writer.time", clock(None))
    log.entries = [entry._replace(appended_ms=time.time() * 1e3) for entry in log.entries]
    fence = Fence(1, 1, (0,))
    writer = ShardWriter(shard, log, fence, lambda bucket: True, limit_entries=3, block_ms=0, interval_s=60.0)
    writer._tempo = Tempo(lambda: 0.0)
    log.entries, later = log.entries[:1], log.entries[1:]

    def busy(within_s: float) -> bool:
        waited.append(within_s)
        log.entries[1:] = later
        return False

    monkeypatch.setattr(shard, "answered", busy)
    read_many, pending = log.read_many, list[object]()

    def read(*given: Any, **named: Any) -> Any:
        pending.append(writer._pending)
        return read_many(*given, **named)

    monkeypatch.setattr(log, "read_many", read)
    assert [writer.step(), writer.step()] == [1, 1]
    assert waited == [60.0, 60.0]
    assert [one is None for one in pending] == [True, False, False], "it was read while the first was on its way"
    writer.flush()
    assert shard.cursors()[0].at == 2


def test_the_log_is_looked_at_every_so_often_however_long_the_shard_is_at_work(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, waited, now = make_shard(), list[float](), [0.0]
    log = Tape([[person("p1", 1)]])
    open_writer(shard, log)
    writer = ShardWriter(shard, log, Fence(1, 1, (0,)), lambda bucket: True, block_ms=200)
    monkeypatch.setattr("actors.shard_writer.time", clock(None, lambda: now[0]))
    assert writer.step() == 1

    def busy(within_s: float) -> bool:
        waited.append(within_s)
        now[0] += within_s
        return False

    monkeypatch.setattr(shard, "answered", busy)
    assert writer.step() == 0
    assert waited[:2] == [0.0, 0.01]
    assert set(waited[2:]) == {0.02}
    assert now[0] == pytest.approx(0.21)


_POLLED_BEFORE_MS = 700


class Arriving(Tape):
    """A log of one partition: at each reading another of the given batches has just come. Of the first nobody says when
    it was polled."""

    def __init__(self, batches: Sequence[Sequence[Record]], late_s: float = 0.0) -> None:
        super().__init__(batches)
        self._to_come, self.entries, self._late_s = self.entries, [], late_s

    @property
    def last(self) -> int:
        """The number of the last entry that comes."""
        return len(self.entries) + len(self._to_come)

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        if self._to_come:
            now_ms = round((time.time() - self._late_s) * 1e3)
            told = {} if not self.entries else {"polled_ms": now_ms - _POLLED_BEFORE_MS}
            self.entries.append(self._to_come.pop(0)._replace(appended_ms=now_ms, **told))
        return super().read_many(after, limit_entries, limit_bytes, block_ms)


def while_busy(
    shard: StoredShard,
    batches: Sequence[Sequence[Record]],
    monkeypatch: pytest.MonkeyPatch,
    limit_bytes: int = 8 << 20,
    late_s: float = 0.0,
    answered: Callable[[float], bool] = lambda within_s: False,
) -> tuple[list[int], ShardWriter]:
    """Carries batches that come one by one while the shard is never done; how many records each turn took."""
    log = Arriving(batches, late_s)
    open_writer(shard, log)
    fence = Fence(1, 1, (0,))
    writer = ShardWriter(
        shard, log, fence, lambda bucket: True, limit_entries=20, limit_bytes=limit_bytes, block_ms=50, interval_s=0.001
    )
    monkeypatch.setattr(shard, "answered", answered)
    taken = []
    while writer.positions != {0: log.last}:
        taken.append(writer.step())
    return [number for number in taken if number], writer


def test_what_comes_while_the_shard_is_at_work_goes_as_one_batch(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make_shard()
    batches = [[person(f"p{n}{m}", 10 * n + m) for m in range(3)] for n in range(1, 6)]
    taken, writer = while_busy(shard, batches, monkeypatch)
    assert taken == [3, 12]
    assert (writer.counters.applied, writer.counters.batches, [stage for stage, _ in writer.waited]) == (
        15, 2, ["ready", *(4 * ["ready", "pre_storage"])],
    )  # fmt: skip
    waited = {stage: [s for name, s in writer.waited if name == stage] for stage in ("ready", "pre_storage")}
    for ready_s, polled_s in zip(waited["ready"][1:], waited["pre_storage"], strict=True):
        assert polled_s == pytest.approx(ready_s + _POLLED_BEFORE_MS / 1e3)
    check(shard, [record for rows in batches for record in rows])


def test_what_is_late_is_made_ready_while_the_shard_is_at_work_too(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who is late once stays late: it would read no more until the shard is done, and find what is old again."""
    batches = [[person(f"p{n}", n)] for n in range(1, 6)]
    taken, _ = while_busy(make_shard(), batches, monkeypatch, late_s=60.0)
    assert taken == [1, 4]


def test_of_one_thing_in_several_readings_the_records_keep_their_order(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make_shard()
    batches = [[person("first", 1)]]
    batches += [[person("x", n, age=n), person(f"p{n}", n), person("y", 9 - n, age=n)] for n in range(2, 7)]
    batches.append([person("x", 5, age=5), person("first", 1)])
    taken, writer = while_busy(shard, batches, monkeypatch)
    assert taken == [1, 17]
    counts = writer.counters
    assert (counts.applied, counts.stale, counts.duplicate) == (1 + 5 + 5 + 1, 4 + 1, 1)
    check(shard, [record for rows in batches for record in rows])


def test_sources_that_speak_in_several_readings_are_folded_and_counted_apart(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make_shard()
    batches = [[person("first", 1)]]
    batches += [[person("x", n, source, age=n), person(f"{source}{n}", n, source)] for n, source in enumerate("aba", 2)]
    batches.append([make("t", "d", Kind.ENTITY, "person", "other case", "b", 9)])
    batches.append([person("twice", 10, "a"), person("twice", 11, "a"), person("twice", 10, "a")])
    taken, _ = while_busy(shard, batches, monkeypatch)
    assert taken == [1, 10]
    assert {key[1]: o.total for key, o in shard.outcomes().items()} == {"s": 1, "a": 7, "b": 3}
    assert sorted(shard.cases()) == [("t", "c"), ("t", "d")]
    check(shard, [record for rows in batches for record in rows])


def test_floors_and_things_of_several_sources_are_not_overtaken(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make_shard()
    floor = floor_record("t", "s", "", versions.encode(1, (40,)), 0)
    batches = [
        [person("first", 1)],
        [person("x", 2)],
        [floor],
        [person("x", 50)],
        [person("y", 51, "s"), person("y", 52, "z")],
        [person("y", 53, "s")],
    ]
    taken, _ = while_busy(shard, batches, monkeypatch)
    assert taken == [1, 1, 1, 2, 1]
    check(shard, [record for rows in batches for record in rows])


def test_a_batch_of_several_readings_has_its_bound(make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [[person(f"p{n}", n)] for n in range(1, 6)]
    size = len(batch.encode(batches[0]))
    taken, _ = while_busy(make_shard(), batches, monkeypatch, limit_bytes=2 * size + size // 2)
    assert taken == [1, 3, 1]


def test_a_shard_that_does_not_answer_is_not_waited_for_without_end(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, log = make_shard(), Tape([[make("t", "c", 0, "person", "p", "s", 1)]])
    open_writer(shard, log)
    writer = ShardWriter(shard, log, Fence(1, 1, (0,)), lambda bucket: True, limit_entries=3, block_ms=50)

    def hangs(*_: object) -> WriteCounts:
        raise OutcomeUnknown("the shard did not answer a write in time", 0.5)

    monkeypatch.setattr(shard, "answered", lambda within_s: False)
    assert writer.step() == 1
    monkeypatch.setattr(shard, "finish", hangs)
    with pytest.raises(OutcomeUnknown):
        writer.step()


def test_a_shard_that_does_not_answer_is_given_up_in_time_whatever_comes_meanwhile(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def answered(within_s: float) -> bool:
        now[0] += within_s
        return False

    monkeypatch.setattr("actors.shard_writer._PATIENT_S", 0.28)
    monkeypatch.setattr("actors.shard_writer._AHEAD_S", 0.05)
    monkeypatch.setattr("actors.shard_writer.time", clock(time.sleep, lambda: now[0]))
    batches = [[person(f"p{n}", n)] for n in range(1, 31)]
    taken, _ = while_busy(make_shard(), batches, monkeypatch, answered=answered)
    assert taken == [1, 7, 7, 7, 7, 1], "at 0, 0.05, … and 0.3 s of each turn"


def test_a_writer_that_is_behind_reads_on_at_once(make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = make_shard()
    monkeypatch.setattr("actors.shard_writer.time", clock(None))
    log = Tape([[make("t", "c", 0, "person", f"p{n}", "s", n)] for n in range(1, 4)])
    open_writer(shard, log)
    fence = Fence(1, 1, (0,))
    writer = ShardWriter(shard, log, fence, lambda bucket: True, limit_entries=1, block_ms=0, interval_s=60.0)
    assert [writer.step() for _ in range(4)] == [1, 1, 1, 0]
