"""Parameters of a shard's queries. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from cluster.errors import Rejected
from cluster.ids import BUCKETS, CASE_TAG_BITS, case_key, case_tag, store_key
from cluster.model import Record
from cluster.stores.graph import CursorMove, Fence, Outcomes, WriteCounts


def flags_of(buckets: Iterable[int]) -> str:
    """4,096 characters 0 or 1."""
    flags = ["0"] * BUCKETS
    for bucket in buckets:
        flags[bucket] = "1"
    return "".join(flags)


def buckets_of(flags: str) -> frozenset[int]:
    """The buckets whose flag is 1."""
    return frozenset(bucket for bucket, flag in enumerate(flags) if flag == "1")


def literal_key(*parts: str) -> str:
    """One text for several, none of which can be written as another's.

    Raises:
        Rejected: a NUL character is in one.
    """
    if any("\x00" in p for p in parts):
        raise Rejected("a name holds a NUL character; remove it")
    return store_key(*parts) if len(parts) == 4 else "".join(f"{len(p)}:{p}" for p in parts)


def fenced(fence: Fence, buckets: Iterable[int]) -> dict[str, Any]:
    """What `dialect.guard` takes."""
    return {
        "epoch": fence.epoch,
        "lease": fence.lease,
        "partitions": list(map(str, fence.partitions)),
        "held": len(fence.partitions),
        "buckets": sorted(set(buckets)),
    }


def owning(fence: Fence, buckets: Iterable[int], lacking: Iterable[int]) -> dict[str, Any]:
    """What `dialect_shard.own` takes."""
    owned = flags_of(buckets)
    return {**fenced(fence, ()), "owned": owned, "owns": [f == "1" for f in owned], "lacking": flags_of(lacking)}


def advancing(fence: Fence, moves: Sequence[CursorMove], counts: WriteCounts) -> dict[str, Any]:
    """What `dialect_shard.advance` takes; counts in one order, in which they are locked."""
    rows = [
        {
            "partition": str(m.partition), "from": m.start, "to": m.end, "records": m.records,
            "applied": m.applied, "duplicate": m.duplicate, "stale": m.stale,
        }
        for m in moves
    ]  # fmt: skip
    by_source = counts.by_source or {("", "", 0): Outcomes()}
    added = [
        {
            "key": literal_key("count", tenant, source, str(epoch)), "tenant": tenant, "source": source,
            "epoch": epoch, "applied": o.applied, "duplicate": o.duplicate, "stale": o.stale,
        }
        for (tenant, source, epoch), o in sorted(by_source.items(), key=itemgetter(0))
    ]  # fmt: skip
    partitions = list(map(str, fence.partitions))
    return {
        "epoch": fence.epoch, "lease": fence.lease, "partitions": partitions, "moves": rows, "expected": len(rows),
        "counts": added,
    }  # fmt: skip


def flooring(fence: Fence, floor: Record, done: bool) -> dict[str, Any]:
    """What `dialect_shard.set_floor` takes."""
    key = literal_key("floor", floor.tenant, floor.source, floor.type)
    return {
        **fenced(fence, ()), "key": key, "tenant": floor.tenant, "source": floor.source, "type": floor.type,
        "version": floor.version, "done": done,
    }  # fmt: skip


def ranking(fence: Fence, record: Record, priority: int, done: bool) -> dict[str, Any]:
    """What `dialect_shard.set_priority` takes."""
    key = literal_key("priority", record.tenant, record.source, "")
    return {
        **fenced(fence, ()), "key": key, "tenant": record.tenant, "source": record.source, "stamp": record.stamp,
        "priority": priority, "done": done,
    }  # fmt: skip


def of_case(tenant: str, case: str) -> dict[str, Any]:
    """What a scan of one case takes."""
    return {"tag": case_tag(tenant, case), "case": case_key(tenant, case)}


def of_bucket(bucket: int) -> dict[str, Any]:
    """The range of a bucket's case tags."""
    low = bucket << CASE_TAG_BITS
    return {"low": low, "high": low + (1 << CASE_TAG_BITS)}
