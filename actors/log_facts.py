"""What lake and log hold of one log partition, as rows in memory: to tell what a shard holds beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import polars as pl

from cluster import batch
from cluster.batch import Frame
from cluster.ids import bucket_of
from cluster.model import Kind, Op, Record, floor_record
from cluster.shard_map import ShardMap, partition_of
from cluster.stores.graph import GraphShard
from cluster.stores.lake_wanted import Wanted
from cluster.stores.log import EventLog

if TYPE_CHECKING:
    from cluster.stores.lake import Lake

KEY = ("tenant", "source", "kind", "case", "type", "id", "stamp")
"""What tells one record from another."""
COLUMNS = (*KEY, "bucket")
_READ_ENTRIES, _READ_BYTES, _PAGE = 256, 16 << 20, 4_000


def known_facts(log: EventLog, lake: Lake | None, partition: int, upto: int) -> Frame:
    """COLUMNS of every record in entries 1 … upto, floors and priorities too, all in memory.

    What the log has lost from its beginning and no lake has is not among them.
    """
    frames = [pl.DataFrame(pl.from_arrow(batch.SCHEMA.empty_table())).select(COLUMNS)]
    at = log.begins()[partition] - 1
    if lake is not None:
        kept = lake.positions().of(partition).number
        last = min(kept, upto)
        found = lake.events(Wanted(partition=partition, first=1, last=last), COLUMNS, lake.version()) if last else None
        frames += [] if found is None else [found.select(COLUMNS)]
        at = max(at, kept)
    while at < upto:
        for entry in log.read(partition, at, _READ_ENTRIES, _READ_BYTES):
            at = entry.number
            if at > upto:
                break
            frames.append(batch.decode_frame([entry.data]).select(COLUMNS))
    return pl.concat(frames, how="vertical")


def known_beside(log: EventLog, lake: Lake | None, current: ShardMap, partition: int) -> Frame:
    """`known_facts` of a log partition up to its end, and the facts of the partitions that hold records of its buckets,
    too. Floors and priorities have to be in each partition: what stands beside does not count for them."""
    ends = log.ends()
    beside = [known_facts(log, lake, p, ends[p]) for p in current.partitions_beside(partition) if p != partition]
    facts = [found.filter(pl.col("kind") < Kind.FLOOR) for found in beside]
    return pl.concat([known_facts(log, lake, partition, ends[partition]), *facts])


def reaches_back(log: EventLog, lake: Lake | None, partition: int) -> bool:
    """Whether lake and log together hold every entry of a partition."""
    kept = lake.positions().of(partition).number if lake is not None else 0
    return log.begins()[partition] <= kept + 1


def cases_of_partition(
    shard: GraphShard, current: ShardMap, shard_id: str, partition: int
) -> Iterator[tuple[str, str]]:
    """(tenant, case) of a shard's own cases whose records are appended to a log partition."""
    for tenant, case in shard.cases():
        bucket = bucket_of(tenant, case)
        if partition_of(bucket, current.partitions) == partition and current.owners[bucket] == shard_id:
            yield tenant, case


def facts_of_shard(shard: GraphShard, current: ShardMap, shard_id: str, partition: int) -> Iterator[Record]:
    """Every register of a shard's cases of a partition, and what hides and orders them."""
    for tenant, case in cases_of_partition(shard, current, shard_id, partition):
        for thing in shard.things(tenant, case):
            yield from thing.registers.values()
    for tenant, source, type_, version, _ in shard.floors():
        yield floor_record(tenant, source, type_, version, partition)
    for tenant, source, stamp, priority, _ in shard.priorities():
        yield Record(
            tenant, "", partition, Kind.PRIORITY, Op.UPSERT, "", "", "", "", "", "", source, stamp, "", "",
            f'{{"priority":{priority}}}', "",
        )  # fmt: skip


def pages(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records, some thousands at a time."""
    page: list[Record] = []
    for record in records:
        page.append(record)
        if len(page) >= _PAGE:
            yield page
            page = []
    if page:
        yield page
