"""A shard writer on a real shard, and a log that is a list of batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.shard_writer import ShardWriter
from cluster import batch
from cluster.fold import Fold
from cluster.ids import BUCKETS
from cluster.model import Kind, Record
from cluster.stores.graph import Fence
from cluster.stores.log import Entry
from cluster.stores.shard import StoredShard
from cluster.stores.shard_export import export_lines, state_lines
from tests.strategies import make


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


def person(name: str, position: int, source: str = "s", age: int = 0) -> Record:
    return make("t", "c", Kind.ENTITY, "person", name, source, position, props=f'{{"age":{age}}}')
