"""A shard is emptied whole, by who holds its lease alone, and fills again from the beginning."""

from __future__ import annotations

import pytest

from actors.shard_writer import ShardWriter
from cluster.errors import Fenced
from cluster.fold import Fold
from cluster.ids import BUCKETS
from cluster.model import Kind, Op, floor_record, priority_record
from cluster.stores.graph import Fence
from cluster.stores.shard_export import export_lines, state_lines
from cluster.versions import encode
from tests.actors.shard_tapes import Tape
from tests.graph_stores import GraphStore
from tests.strategies import make

pytestmark = pytest.mark.services
ENDS = ("person", "p", "person", "waits")
RECORDS = [
    *(make("t", "c", Kind.ENTITY, "person", f"p{n}", "s", n) for n in range(1, 1_300)),
    make("t", "c", Kind.ENTITY, "person", "p", "s", 2),
    make("t", "c", Kind.ENTITY, "person", "p", "other", 1),
    make("t", "c", Kind.RELATIONSHIP, "KNOWS", "r", "s", 2, ends=ENDS),
    make("t", "d", Kind.RELATIONSHIP, "KNOWS", "gone", "s", 2, Op.DELETE),
    make("t", "d", Kind.CLAIM, "note", "n", "s", 2, ends=(*ENDS[:2], "", ""), claim='["said",1,null]'),
    make("t", "c", Kind.ENTITY, "person", "p", "overlay/pagerank", 1, props='{"rank":1}'),
    floor_record("t", "s", "", encode(0, [1]), 0),
    priority_record("t", "other", 5, 1, 0),
]


def test_emptied_whole_and_filled_again(graph_store: GraphStore) -> None:
    shard = graph_store.shard(graph_store.client(graph_store.fresh()))
    shard.prepare()
    shard.raise_epoch(1)
    shard.own(1, range(BUCKETS))
    first, second = Fence(1, 1, (0,)), Fence(1, 2, (0,))
    shard.take_lease(first)
    oracle = Fold().apply_all(RECORDS)

    def fill(fence: Fence) -> None:
        writer = ShardWriter(shard, Tape([RECORDS]), fence, lambda bucket: True, block_ms=0)
        while writer.positions[0] < 1:
            writer.step()
        assert state_lines([shard]) == oracle.state_lines()
        assert export_lines([shard]) == oracle.export_lines()
        assert shard.cursors()[0].records == sum(o.total for o in shard.outcomes().values()) == len(RECORDS) - 2

    fill(first)
    shard.take_lease(second)
    assert list(shard.drop_all(first)) == [], "of a writer that lost its lease"
    with pytest.raises(Fenced):
        shard.begin_again(first)
    assert state_lines([shard]) == oracle.state_lines()
    assert sum(shard.drop_all(second)) > 1_300
    assert list(shard.drop_all(second)) == []
    assert (state_lines([shard]), shard.cases(), shard.floors(), shard.priorities()) == ([], [], [], [])
    assert shard.cursors()[0].at == 1
    shard.begin_again(second)
    assert (shard.cursors()[0].at, shard.cursors()[0].records, shard.outcomes()) == (0, 0, {})
    with pytest.raises(Fenced):
        shard.begin_again(second)
    shard.take_lease(first)
    fill(first)
    shard.close()
