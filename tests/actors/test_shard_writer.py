"""Real shards against the fold: any order, batches and repetition give the same graph."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import shard_start
from actors.shard_start import Start, start_writer
from actors.shard_writer import ShardWriter
from actors.tempo import Tempo
from cluster import batch, versions
from cluster.errors import Fenced, OutcomeUnknown
from cluster.fold import Fold, Outcome
from cluster.ids import BUCKETS
from cluster.model import Kind, Op, Record, floor_record, priority_record
from cluster.shard_map import initial
from cluster.stores.graph import CursorMove, Fence, WriteCounts
from cluster.stores.lake import Lake
from cluster.stores.log import Entry, EventLog, LogLostTail
from cluster.stores.shard import StoredShard
from cluster.stores.shard_export import export_lines, state_lines
from tests.graph_stores import GraphStore
from tests.strategies import histories, make


class Tape:
    """A log of one partition whose entries are the given batches."""

    def __init__(self, batches: Sequence[Sequence[Record]]) -> None:
        self.entries = [
            Entry(n, batch.encode(rows), sum(r.kind < Kind.FLOOR for r in rows), 0) for n, rows in enumerate(batches, 1)
        ]

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        found = self.entries[after[0] : after[0] + limit_entries]
        return {0: found} if found else {}

    def begins(self) -> dict[int, int]:
        return {0: 1}

    def ends(self) -> dict[int, int]:
        return {0: len(self.entries)}


MakeShard = Callable[..., StoredShard]


@pytest.fixture
def make_shard(graph_store: GraphStore) -> Iterator[MakeShard]:
    """`make_shard()`: a shard on an empty graph, and those before are gone; `make_shard(graph)`: another connection."""
    opened: list[Any] = []
    graphs: set[str] = set()

    def clear() -> None:
        while opened:
            opened.pop().close()
        while graphs:
            graph_store.drop(graphs.pop())

    def make_one(graph: str = "") -> StoredShard:
        if not graph:
            clear()
        graph = graph or graph_store.fresh()
        shard = graph_store.shard(graph_store.client(graph), write_rows=7)
        shard.graph = graph  # type: ignore[attr-defined]
        opened.append(shard)
        graphs.add(graph)
        return shard

    yield make_one
    clear()


def open_writer(shard: StoredShard, log: Any, lease: int = 1, entries: int = 3) -> ShardWriter:
    if shard.state() is None:
        shard.prepare()
        shard.raise_epoch(1)
        shard.own(1, range(BUCKETS))
    fence = Fence(1, lease, (0,))
    shard.take_lease(fence)
    return ShardWriter(shard, log, fence, lambda bucket: True, limit_entries=entries, block_ms=0)


def drive(shard: StoredShard, batches: Sequence[Sequence[Record]], lease: int = 1) -> ShardWriter:
    writer = open_writer(shard, Tape(batches), lease)
    while writer.positions != {0: len(batches)}:  # a turn over floors alone has no records and is not the last
        writer.step()
    return writer


def check(shard: StoredShard, records: Sequence[Record]) -> None:
    oracle = Fold().apply_all(records)
    assert state_lines([shard]) == oracle.state_lines()
    assert export_lines([shard]) == oracle.export_lines()


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


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_priority_that_was_cut_off_is_brought_to_its_end_with_all_others_known(
    make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    shard = make_shard()
    said = [person("x", 9, "a", age=1), person("x", 8, "b", age=2)]
    ranks = {source: priority_record("t", source, rank, 1, 0) for source, rank in (("a", 1), ("b", 2))}
    fence = drive(shard, [said, [ranks["b"]]])._fence
    shard.set_priority(fence, ranks[first], 1 if first == "a" else 2, done=False)  # and then its writer died
    known = shard.priorities
    monkeypatch.setattr(shard, "priorities", lambda: sorted(known(), key=lambda row: row[1] != first))
    ShardWriter(shard, Tape([]), fence, lambda bucket: True, block_ms=0)
    assert all(done for *_, done in known())
    check(shard, [*said, *(ranks.values() if first == "a" else [ranks["b"]])])


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


def person(name: str, position: int, source: str = "s", age: int = 0) -> Record:
    return make("t", "c", Kind.ENTITY, "person", name, source, position, props=f'{{"age":{age}}}')


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


def cut(records: Sequence[Record], rnd: random.Random) -> list[list[Record]]:
    batches: list[list[Record]] = []
    rest = list(records)
    while rest:
        size = rnd.randint(1, 8)
        batches.append(rest[:size])
        rest = rest[size:]
    return batches


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories, st.integers(0, 2**32))
def test_any_order_batches_and_repetition_equal_the_fold(
    make_shard: MakeShard, records: list[Record], seed: int
) -> None:
    rnd = random.Random(seed)
    shuffled = records + rnd.choices(records, k=len(records) // 2) if records else []
    rnd.shuffle(shuffled)
    shard = make_shard()
    batches = cut(shuffled, rnd)
    drive(shard, batches)
    check(shard, records)
    before = state_lines([shard])
    writer = open_writer(shard, Tape(batches), lease=2)
    writer._at = {0: 0}
    for rows in batches:
        writer.apply(rows)
    assert state_lines([shard]) == before
    check(shard, records)


def test_outcomes_are_conserved(make_shard: MakeShard) -> None:
    a = [make("t", "c", 0, "person", f"p{i % 5}", "s", i) for i in range(1, 40)]
    shard = make_shard()
    drive(shard, cut([*a, *a], random.Random(1)))
    cursor = shard.cursors()[0]
    assert cursor.records == 2 * len(a) == cursor.applied + cursor.duplicate + cursor.stale


def test_records_that_come_from_the_lake_are_counted_too(make_shard: MakeShard) -> None:
    rows = [make("t", "c", 0, "person", f"p{i}", "s", i) for i in range(1, 4)]
    writer = open_writer(make_shard(), Tape([]))
    writer.jump(0, 1, writer.apply(rows))
    writer.jump(0, 2, writer.apply(rows))
    counters = writer.counters
    assert (counters.records, counters.applied, counters.duplicate, counters.stale) == (6, 3, 3, 0)


def test_entries_from_the_lake_are_put_together_and_none_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_start, "_PAGE", 3)
    a, b, c, d, e = (make("t", "c", 0, "person", f"p{i}", "s", i) for i in range(1, 6))
    entries = [(1, [a]), (2, [b, c, d]), (3, []), (4, [e]), (5, [])]
    assert list(shard_start._joined(entries)) == [(2, [a, b, c, d]), (5, [e])]
    assert list(shard_start._joined([(1, [a, b, c]), (2, [])])) == [(1, [a, b, c]), (2, [])]
    assert list(shard_start._joined([])) == []


def test_an_older_row_of_the_same_batch_does_not_win(make_shard: MakeShard) -> None:
    new = make("t", "c", 0, "person", "p", "s", 2, props='{"v":2}')
    old = make("t", "c", 0, "person", "p", "s", 1, props='{"v":1}')
    shard = make_shard()
    drive(shard, [[new, old]])
    check(shard, [new, old])


def test_a_writer_that_lost_its_lease_writes_nothing(make_shard: MakeShard) -> None:
    records = [make("t", "c", 0, "person", str(i), "s", i) for i in range(1, 20)]
    shard = make_shard()
    zombie = open_writer(shard, Tape(cut(records, random.Random(2))), lease=1, entries=1)
    zombie.step()
    taken = drive(make_shard(shard.graph), cut(records, random.Random(2)), lease=2)
    assert taken.counters.records > 0
    with pytest.raises(Fenced):
        for _ in range(20):
            zombie.step()
    check(shard, records)


def test_a_writer_that_is_refused_moves_and_counts_nothing(make_shard: MakeShard) -> None:
    record = make("t", "c", 0, "person", "p", "s", 1)
    shard = make_shard()
    drive(shard, [[record]])
    before = shard.cursors(), shard.outcomes()
    counts = WriteCounts()
    counts.count(record, Outcome.NEW)
    for fence, start in ((Fence(1, 9, (0,)), 1), (Fence(9, 1, (0,)), 1), (Fence(1, 1, (0,)), 7)):
        with pytest.raises(Fenced):
            shard.advance(fence, [CursorMove(0, start, 8, 1, 1)], counts)
    assert (shard.cursors(), shard.outcomes()) == before


def test_a_bucket_that_is_not_owned_is_refused(make_shard: MakeShard) -> None:
    record = make("t", "c", 0, "person", "p", "s", 1)
    shard = make_shard()
    writer = open_writer(shard, Tape([[record]]))
    shard.own(1, [b for b in range(BUCKETS) if b != record.bucket])
    with pytest.raises(Fenced):
        writer.step()
        writer.flush()
    assert shard.cursors()[0].at == 0


def test_a_bucket_that_is_dropped_is_gone_whole_and_comes_back(make_shard: MakeShard) -> None:
    ends = ("person", "p", "person", "waits")
    kept, gone = (
        [
            make("t", case, 0, "person", "p", "s", 1),
            make("t", case, 1, "KNOWS", "r", "s", 1, ends=ends),
            make("t", case, 2, "note", "n", "s", 1, ends=(*ends[:2], "", ""), claim='["said",1,null]'),
            make("t", case, 0, "person", "p", "overlay/pagerank", 1, props='{"rank":1}'),
        ]
        for case in ("c", "d")
    )
    shard = make_shard()
    writer = drive(shard, [kept + gone])
    for _ in range(2):
        shard.drop_bucket(1, gone[0].bucket)
        check(shard, kept)
    assert shard.cases() == [("t", "c")]
    shard.raise_epoch(2)
    shard.drop_bucket(1, kept[0].bucket)  # of a writer of the epoch before
    check(shard, kept)
    with pytest.raises(Fenced):
        writer.apply(gone)
    shard.own(2, range(BUCKETS))
    shard.take_lease(Fence(2, 2, (0,)))
    ShardWriter(shard, Tape([]), Fence(2, 2, (0,)), lambda bucket: True, block_ms=0).apply(gone)
    check(shard, kept + gone)


def test_an_overlay_revives_nothing(make_shard: MakeShard) -> None:
    entity = make("t", "c", 0, "person", "p", "s", 1)
    gone = make("t", "c", 0, "person", "p", "s", 2, op=Op.DELETE)
    overlay = make("t", "c", 0, "person", "p", "overlay/pagerank", 1, props='{"rank":1}')
    shard = make_shard()
    drive(shard, [[entity, gone], [overlay]])
    assert export_lines([shard]) == []
    check(shard, [entity, gone, overlay])


def test_a_floor_hides_what_comes_after_it_too(make_shard: MakeShard) -> None:
    records = [make("t", "c", 0, "person", str(i), "s", i) for i in range(1, 10)]
    floor = floor_record("t", "s", "", versions.encode(1, [5]), 0)
    for order in ([*records, floor], [floor, *records]):
        shard = make_shard()
        drive(shard, [[r] for r in order])
        assert len(export_lines([shard])) == 5
        check(shard, order)


def test_a_log_that_ends_below_the_shard_stops_the_writer(make_shard: MakeShard) -> None:
    """Lost tail: what the shard has would be numbered again. Nothing is written, and it says so."""
    records = [make("t", "c", 0, "person", str(i), "s", i) for i in range(1, 9)]
    shard, tape = make_shard(), Tape([[r] for r in records])
    drive(shard, [[r] for r in records])
    before = state_lines([shard]), shard.cursors()[0].at
    tape.entries = tape.entries[:5]

    def no_lake() -> Lake:
        raise AssertionError("there is nothing to heal")

    start = Start("shard-0", 1, 2, initial(["shard-0"], 1), shard, cast("EventLog", tape), no_lake)
    with pytest.raises(LogLostTail, match="8"):
        start_writer(start, 3, 1 << 20, 0)
    assert (state_lines([shard]), shard.cursors()[0].at) == before


def test_a_case_of_which_a_floor_hides_everything_is_known_to_the_shard(make_shard: MakeShard) -> None:
    floor = floor_record("t", "s", "", versions.encode(1, [5]), 0)
    hidden = make("t", "c", 0, "person", "p", "s", 1)
    shard = make_shard()
    drive(shard, [[floor], [hidden]])
    assert (export_lines([shard]), shard.cases()) == ([], [("t", "c")])


def test_two_contents_of_one_version_are_reported_with_their_tenant(
    make_shard: MakeShard, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [make("t", "c", 0, "person", "p", "s", 1, props=f'{{"v":{n}}}') for n in range(2)]
    drive(make_shard(), [[rows[0]], [rows[1]]])
    told = [record for record in caplog.records if record.getMessage() == "versions_with_two_contents"]
    assert [(r.fields["tenant"], r.fields["source"]) for r in told] == [("t", "s")]  # type: ignore[attr-defined]


def test_outcomes_of_a_mixed_write_are_counted_under_their_own_source(make_shard: MakeShard) -> None:
    old = [make("t", "c", 0, "person", f"a{n}", "a", n) for n in range(1, 4)]
    new = [make("t", "c", 0, "person", f"b{n}", "b", n) for n in range(1, 3)]
    shard = make_shard()
    mixed = [old[0], new[0], old[1], new[1], old[2]]
    drive(shard, [old])
    drive(
        shard, [old, mixed], lease=2
    )  # a write of its own: within one, duplicates are found before the store is asked
    counted = {source: (o.applied, o.duplicate) for (_, source, _), o in shard.outcomes().items()}
    assert counted == {"a": (3, 3), "b": (2, 0)}
