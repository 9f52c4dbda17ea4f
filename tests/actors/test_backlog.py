"""How many records a writer has before it, where others share its partitions."""

from __future__ import annotations

from collections import Counter

import pytest

from actors.backlog import Backlog
from actors.gulp import Gulp, joined
from actors.shard_writer import ShardWriter
from cluster import batch
from cluster.ids import BUCKETS
from cluster.stores.graph import Fence
from cluster.stores.log import Append, EventLog
from cluster.stores.shard import StoredShard
from tests.actors.shard_tapes import MakeShard, person

PER_ENTRY = 20


def append(log: EventLog, entries: int, first: int) -> None:
    for n in range(entries):
        rows = [
            person(f"p{m}", m)._replace(bucket=m % 2) for m in range(first + n * PER_ENTRY, first + (n + 1) * PER_ENTRY)
        ]
        log.append([Append(0, batch.encode(rows), len(rows))])


@pytest.fixture
def shard(make_shard: MakeShard) -> StoredShard:
    found = make_shard()
    found.prepare()
    found.raise_epoch(1)
    found.own(1, range(0, BUCKETS, 2))
    return found


def writer_of(shard: StoredShard, log: EventLog, lease: int) -> ShardWriter:
    fence = Fence(1, lease, (0,))
    shard.take_lease(fence)
    return ShardWriter(shard, log, fence, lambda bucket: bucket % 2 == 0, limit_entries=3, block_ms=0)


def go_on(writer: ShardWriter, to: int) -> None:
    while writer.positions[0] < to:
        writer.step()


def test_of_a_shared_partition_all_that_is_before_the_writer_counts_and_nothing_else(
    shard: StoredShard, event_log: EventLog
) -> None:
    append(event_log, 10, 0)
    writer = writer_of(shard, event_log, 1)
    backlog = Backlog(event_log, writer, {0})
    assert backlog.records()[0] == 10 * PER_ENTRY
    go_on(writer, 3)
    left = 10 - writer.positions[0]
    assert backlog.records()[0] == left * PER_ENTRY
    assert 0 < writer.records_applied[0] < writer.records_passed[0], "others' records are among those"
    writer.flush()
    again = writer_of(shard, event_log, 2)
    left = 10 - again.positions[0]
    assert Backlog(event_log, again, {0}).records()[0] == left * PER_ENTRY, "by the average of an entry"
    go_on(again, 10)
    assert Backlog(event_log, again, {0}).records()[0] == 0


def test_who_was_at_the_end_once_knows_what_comes_behind_it(shard: StoredShard, event_log: EventLog) -> None:
    append(event_log, 10, 0)
    before = writer_of(shard, event_log, 1)
    go_on(before, 10)
    before.flush()
    writer = writer_of(shard, event_log, 2)  # its cursor counts half of what it has gone past
    backlog = Backlog(event_log, writer, ())
    assert backlog.records()[0] == 0
    append(event_log, 2, 10 * PER_ENTRY)
    assert backlog.records()[0] == 2 * PER_ENTRY
    writer.step()
    assert backlog.records()[0] == (12 - writer.positions[0]) * PER_ENTRY


def test_two_readings_as_one_batch_go_past_the_records_of_both() -> None:
    first, second = (Gulp([], set(), [], [], passed=Counter(n)) for n in ({0: 3, 1: 1}, {0: 4, 2: 5}))
    both = joined(first, second, 1, lambda before, after: before)
    assert both is not None and both.passed == {0: 7, 1: 1, 2: 5}
