"""Several writers of one shard at once, each with partitions of its own: nothing is lost, nobody waits in a circle.

FalkorDB takes their queries one after the other; Neo4j's run beside each other.
"""

from __future__ import annotations

import random
import threading

import pytest

from actors.shard_writer import ShardWriter
from cluster.fold import Fold
from cluster.ids import BUCKETS
from cluster.model import Kind, Op, Record
from cluster.stores.graph import Fence
from cluster.stores.shard_export import export_lines, state_lines
from cluster.telemetry import metrics
from tests.actors.test_shards_against_fold import PARTITIONS, Tapes
from tests.graph_stores import GraphStore
from tests.strategies import make

pytestmark = pytest.mark.services
CASES = tuple(f"c{n}" for n in range(12))
SOURCES = tuple(f"s{n}" for n in range(8))


def facts(rnd: random.Random, number: int) -> list[Record]:
    """Entities and relationships of a few cases that meet all the time, of sources that every case has."""
    found = []
    for position in range(1, number):
        case, source = rnd.choice(CASES), rnd.choice(SOURCES)
        op = Op.DELETE if rnd.random() < 0.1 else Op.UPSERT
        a, b = (("person", f"p{rnd.randrange(5)}") for _ in "ab")
        if rnd.random() < 0.5:
            found.append(make("acme", case, Kind.ENTITY, *a, source, position, op))
        else:
            type_, id_ = rnd.choice(("KNOWS", "OWNS")), f"r{rnd.randrange(6)}"
            found.append(make("acme", case, Kind.RELATIONSHIP, type_, id_, source, position, op, (*a, *b)))
    return found


def test_writers_of_one_shard_at_once_equal_the_fold(graph_store: GraphStore) -> None:
    rnd, graph = random.Random(7), graph_store.fresh()
    records = facts(rnd, 600)
    tapes = Tapes(rnd, records)
    first = graph_store.shard(graph_store.client(graph))
    first.prepare()
    first.raise_epoch(1)
    first.own(1, range(BUCKETS))
    before, failed = metrics.DEADLOCKS._value.get(), list[BaseException]()

    def carry(partition: int) -> None:
        shard = graph_store.shard(graph_store.client(graph, timeout_s=30.0), write_rows=5)
        fence = Fence(1, 1, (partition,))
        try:
            shard.take_lease(fence)
            writer = ShardWriter(
                shard, tapes, fence, lambda bucket: True, limit_entries=3, block_ms=0, log_partitions=PARTITIONS
            )
            while writer.positions[partition] < tapes.ends()[partition]:
                writer.step()
        except BaseException as error:
            failed.append(error)
        finally:
            shard.close()

    threads = [threading.Thread(target=carry, args=(partition,)) for partition in range(PARTITIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    oracle = Fold().apply_all(records)
    assert state_lines([first]) == oracle.state_lines()
    assert export_lines([first]) == oracle.export_lines()
    assert sum(o.total for o in first.outcomes().values()) == len(records)
    assert metrics.DEADLOCKS._value.get() == before
    first.close()
    graph_store.drop(graph)
