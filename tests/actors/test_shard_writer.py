"""Real shards against the fold: any order, batches and repetition give the same graph."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import shard_start
from actors.shard_start import Start, start_writer
from actors.shard_writer import ShardWriter
from cluster import versions
from cluster.errors import Fenced
from cluster.fold import Outcome
from cluster.ids import BUCKETS
from cluster.model import Op, Record, floor_record, priority_record
from cluster.shard_map import initial
from cluster.stores.graph import CursorMove, Fence, WriteCounts
from cluster.stores.lake import Lake
from cluster.stores.log import EventLog, LogLostTail
from cluster.stores.shard_export import export_lines, state_lines
from tests.actors.shard_tapes import MakeShard, Tape, check, drive, open_writer, person
from tests.strategies import histories, make


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
