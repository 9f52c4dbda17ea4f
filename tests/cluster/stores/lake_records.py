"""Records and log entries for tests of the lake and of snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster import batch, ids, versions
from cluster.model import Kind, Op, Record, stamp_of
from cluster.stores.lake import Lake, LakeEntry, Positions

LOG = Positions("log-a", 1)


def entity(
    id: str,
    *,
    tenant: str = "t",
    case: str = "c",
    type: str = "person",
    source: str = "s",
    position: int = 1,
    op: Op = Op.UPSERT,
    props: str = "{}",
    event_time: str = "2026-01-02T03:04:05Z",
) -> Record:
    stamp = stamp_of(versions.encode(0, [position]), op.name, props)
    bucket = ids.bucket_of(tenant, case)
    head = (tenant, case, bucket, Kind.ENTITY, op, type, id, "", "", "", "")
    return Record(*head, source, stamp, "", event_time, props, "")


def relationship(
    id: str,
    a: str,
    b: str,
    *,
    tenant: str = "t",
    case: str = "c",
    type: str = "knows",
    end_type: str = "person",
    source: str = "s",
    position: int = 1,
    op: Op = Op.UPSERT,
    props: str = "{}",
) -> Record:
    stamp = stamp_of(versions.encode(0, [position]), op.name, a, b, props)
    bucket = ids.bucket_of(tenant, case)
    ends = (end_type, a, end_type, b) if a else ("", "", "", "")
    return Record(tenant, case, bucket, Kind.RELATIONSHIP, op, type, id, *ends, source, stamp, "", "", props, "")


def claim(id: str, subject: str, *, tenant: str = "t", case: str = "c", source: str = "s", position: int = 1) -> Record:
    text = f'["says","{subject}",0.5]'
    stamp = stamp_of(versions.encode(0, [position]), text)
    bucket = ids.bucket_of(tenant, case)
    ends = ("person", subject, "", "")
    return Record(tenant, case, bucket, Kind.CLAIM, Op.UPSERT, "claim", id, *ends, source, stamp, "", "", "{}", text)


def entries(partition: int, first: int, batches: Iterable[Sequence[Record]]) -> list[LakeEntry]:
    """Entries numbered from `first`."""
    return [LakeEntry(partition, first + i, batch.to_arrow(records)) for i, records in enumerate(batches)]


def people(first: int, count: int, **fields: str) -> list[Record]:
    """`count` people whose numbers are their positions."""
    return [entity(f"p{number:05d}", position=number, **fields) for number in range(first, first + count)]  # type: ignore[arg-type]


def rows_of(lake: Lake, **wanted: object) -> list[Record]:
    """What the lake reads, as records."""
    batches = list(lake.read(**wanted))  # type: ignore[arg-type]
    return [record for found in batches for record in batch.from_arrow(found.select(batch.SCHEMA.names))]


def data_files(lake: Lake) -> set[str]:
    """Names of the data files that lie in the lake's folder, referenced or not."""
    return {path.name for path in (lake.folder / "events" / "data").rglob("*.parquet")}
