"""What one run writes back, planned from arrays: the top K of each case and of the tenant; floors clear the rest.

    planned = plan(stamp, top_by_case(score, membership, k), tenant_top, …)      pure
    append(value_entries(planned.records, …)); append(floor_entries(…))          values first, then the floors

Version = (run, index): a later run is newer than an earlier one whatever arrives first, and its floor hides what the
earlier one wrote and this one did not. To append the same plan again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cluster import batch, versions
from cluster.errors import Rejected
from cluster.ids import bucket_of
from cluster.model import Kind, Op, Record, floor_record, stamp_of
from cluster.shard_map import partition_of
from cluster.stores.log import Append
from cluster.values import Value, canonical_json
from overlays.definition import STAMPS, Props
from workloads.kernels.csr import Floats, Ints
from workloads.kernels.topk import top_k
from workloads.overlay.input import Key, Membership


@dataclass(frozen=True, slots=True)
class RunStamp:
    """What every value of a run says of itself. source: `overlay/<name>`. as_of: RFC 3339."""

    tenant: str
    source: str
    run: int
    snapshot: str
    as_of: str


class Bounds(NamedTuple):
    """records: of one run. record_bytes: of one record's texts. entry_records, entry_bytes: of one log entry."""

    records: int
    record_bytes: int
    entry_records: int
    entry_bytes: int


class Ranked(NamedTuple):
    """Rows (case, vertex, rank in the case from 1), by case, best first. case, vertex, rank: int64[T]."""

    case: Ints
    vertex: Ints
    rank: Ints


def top_by_case(score: Floats, membership: Membership, k: int) -> Ranked:
    """The k entities of each case with the greatest scores, ties the least vertex.

    Raises:
        Rejected: a score is not a number.
    """
    if np.isnan(score).any():
        raise Rejected("scores that are not numbers cannot be ranked; the run that made them has failed")
    order = np.lexsort((membership.vertex, -score[membership.vertex], membership.case))
    case = np.asarray(membership.case, np.int64)[order]
    rank = np.arange(len(case)) - np.searchsorted(case, case) + 1
    kept = rank <= k
    return Ranked(case[kept], membership.vertex[order][kept], rank[kept])


def tenant_ranks(score: Floats, k: int) -> dict[int, int]:
    """The tenant's k best vertices → their ranks from 1, best first."""
    return {vertex: rank for rank, vertex in enumerate(top_k(score, k).tolist(), start=1)}


def plan(
    stamp: RunStamp,
    ranked: Ranked,
    in_tenant: Mapping[int, int],
    cases: Sequence[str],
    keys: Mapping[int, Key],
    props: Mapping[int, Props],
    bounds: Bounds,
) -> list[Record]:
    """The records of a run: one for each row of `ranked`, in its order.

    The tenant's best are among the best of every case that holds them, so each such case gets their ranks.

    Args:
        keys, props: by vertex.

    Raises:
        Rejected: more or larger records than the bounds allow, or the overlay's properties have names that are ours.
    """
    if len(ranked.vertex) > bounds.records:
        raise Rejected(
            f"the run would write back {len(ranked.vertex)} values, more than overlays.write_back_records"
            f" ({bounds.records}): lower overlays.top_k"
        )
    rows = zip(ranked.case.tolist(), ranked.vertex.tolist(), ranked.rank.tolist(), strict=True)
    records = [
        value_record(stamp, index, cases[case], keys[vertex], _props(stamp, props[vertex], rank, in_tenant.get(vertex)))
        for index, (case, vertex, rank) in enumerate(rows)
    ]
    largest = max(map(_bytes_of, records), default=0)
    if largest > bounds.record_bytes:
        raise Rejected(f"one value of the overlay takes {largest} bytes; at most {bounds.record_bytes} (records)")
    return records


def value_record(stamp: RunStamp, index: int, case: str, key: Key, props: Props) -> Record:
    """The record that annotates one entity in one case. index: of the record in its run."""
    text = canonical_json(props)
    kind, op, ends = int(Kind.ENTITY), int(Op.UPSERT), ("", "", "", "")
    version = versions.encode(stamp.run, [index])
    mark = stamp_of(version, str(kind), str(op), *ends, "", stamp.as_of, text, "")
    bucket = bucket_of(stamp.tenant, case)
    return Record(
        stamp.tenant, case, bucket, kind, op, *key, *ends, stamp.source, mark, "", stamp.as_of, text, ""
    )  # fmt: skip


def _props(stamp: RunStamp, own: Props, rank: int, in_tenant: int | None) -> Props:
    taken = STAMPS & own.keys()
    if taken:
        raise Rejected(f"overlay properties {sorted(taken)} are set by the run itself; use other names")
    marks: dict[str, Value] = {"asOf": stamp.as_of, "snapshot": stamp.snapshot, "run": stamp.run, "rank_in_case": rank}
    if in_tenant is not None:
        marks["rank_in_tenant"] = in_tenant
    return {**own, **marks}


def value_entries(records: Iterable[Record], partitions: int, bounds: Bounds) -> Iterator[Append]:
    """Log entries of records, each within the bounds and of one partition (bucket mod partitions)."""
    waiting: dict[int, list[Record]] = {}
    sizes: dict[int, int] = {}
    for record in records:
        partition, size = partition_of(record.bucket, partitions), _bytes_of(record)
        held = waiting.setdefault(partition, [])
        if held and (len(held) == bounds.entry_records or sizes[partition] + size > bounds.entry_bytes):
            yield Append(partition, batch.encode(held), len(held))
            waiting[partition] = held = []
        sizes[partition] = (sizes[partition] if held else 0) + size
        held.append(record)
    for partition, held in sorted(waiting.items()):
        yield Append(partition, batch.encode(held), len(held))


def _bytes_of(record: Record) -> int:
    """UTF-8 bytes of a record's texts, or a little more: what an entry takes before it is compressed."""
    return sum(len(value) if value.isascii() else 4 * len(value) for value in record if isinstance(value, str))


def floor_entries(stamp: RunStamp, partitions: int) -> list[Append]:
    """A floor for every log partition: hides what earlier runs of this overlay wrote for the tenant."""
    floor = versions.floor_of(stamp.run)
    floors = [floor_record(stamp.tenant, stamp.source, "", floor, partition) for partition in range(partitions)]
    return [Append(partition, batch.encode([record]), 0) for partition, record in enumerate(floors)]
