"""A shard whose log got another number of partitions: it reads what was appended by either, and counts it once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from typing import cast

import pytest

from actors.shard_start import Start, start_writer
from cluster import batch
from cluster.fold import Fold
from cluster.model import Kind, Record, floor_record
from cluster.shard_map import initial, partition_of, repartition
from cluster.stores.lake import Lake
from cluster.stores.log import Entry, EventLog, Generation, LogIdentity, Seam
from cluster.stores.shard_export import state_lines
from cluster.versions import encode
from tests.graph_stores import GraphStore
from tests.strategies import make

pytestmark = pytest.mark.services

NAMES = ("a", "b")
RECORDS = [make("t", f"c{n % 40}", Kind.ENTITY, "person", f"p{n % 60}", f"s{n % 2}", n) for n in range(1, 300)]

FLOOR = encode(0, [50])


class Tapes:
    """A log that had one number of partitions, and has another."""

    def __init__(self, before: int, after: int) -> None:
        self.identity = LogIdentity("log", 2, after)
        self.entries: dict[int, list[Entry]] = {p: [] for p in range(max(before, after))}
        self.asked: dict[int, int] = {}
        self.say(RECORDS[:150], before)
        seams = {p: Seam(n, n, n) for p, n in self.ends().items()}
        self.generations = (Generation(2, seams, after),)
        self.say(RECORDS[150:], after)

    def say(self, records: list[Record], partitions: int) -> None:
        for at in range(0, len(records), 20):
            groups: dict[int, list[Record]] = defaultdict(list)
            for record in records[at : at + 20]:
                groups[partition_of(record.bucket, partitions)].append(record)
            for partition in range(partitions):
                self._append(partition, groups[partition])
        for partition in range(partitions):
            self._append(partition, [floor_record("t", "s0", "", FLOOR, partition)])

    def _append(self, partition: int, rows: list[Record]) -> None:
        entries = self.entries[partition]
        facts = sum(row.kind < Kind.FLOOR for row in rows)
        entries.append(Entry(len(entries) + 1, batch.encode(rows), facts, 0))

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        for p, at in after.items():
            self.asked[p] = min(at, self.asked.get(p, at))
        return {p: found for p, at in after.items() if (found := self.entries[p][at : at + limit_entries])}

    def begins(self) -> dict[int, int]:
        return dict.fromkeys(self.entries, 1)

    def ends(self) -> dict[int, int]:
        return {p: len(entries) for p, entries in self.entries.items()}


def no_lake() -> Lake:
    raise AssertionError("nothing of the log is trimmed")


@pytest.mark.parametrize(("before", "after"), [(4, 8), (8, 3), (3, 8), (3, 2)])
def test_both_sides_are_read_and_counted_once(graph_store: GraphStore, before: int, after: int) -> None:
    current = repartition(initial(NAMES, before), after)
    oracle, lines, counted, applied = Fold().apply_all(RECORDS), [], defaultdict[int, int](int), 0
    seams = Tapes(before, after).generations[0].seams
    oracle.apply(floor_record("t", "s0", "", FLOOR, 0))
    for name in NAMES:
        tapes, graph = Tapes(before, after), graph_store.fresh()
        with closing(graph_store.shard(graph_store.client(graph))) as shard:
            start = Start(name, 1, 1, current, shard, cast("EventLog", tapes), no_lake)
            writer = start_writer(start, 3, 1 << 20, 0)
            for partition in current.new_to(name):
                assert writer.positions[partition] == seams[partition].end, "what stands before is others'"
            while writer.positions != {p: tapes.ends()[p] for p in current.partitions_of(name)}:
                writer.step()
            assert all(tapes.asked[p] >= seams[p].end for p in current.new_to(name))
            lines.append(state_lines([shard]))
            for partition, cursor in shard.cursors().items():
                counted[partition] += cursor.records
            applied += sum(outcome.total for outcome in shard.outcomes().values())
            again = start_writer(Start(name, 1, 2, current, shard, cast("EventLog", tapes), no_lake), 3, 1 << 20, 0)
            assert again.positions == writer.positions
        graph_store.drop(graph)
    things = [line for found in lines for line in found if '"kind":"floor"' not in line]
    assert sorted(things) == sorted(line for line in oracle.state_lines() if '"kind":"floor"' not in line)
    assert all(any('"kind":"floor"' in line for line in found) for found in lines), "a floor is in every partition"
    assert counted == {p: sum(e.records for e in entries) for p, entries in Tapes(before, after).entries.items()}
    assert applied == len(RECORDS)
