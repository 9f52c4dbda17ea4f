"""A hot shard in FalkorDB: the store interface of graph.py over one connection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cluster import dialect
from cluster.batch import Frame
from cluster.errors import Fenced, Rejected
from cluster.fold import Thing, thing_of
from cluster.ids import BUCKETS, CASE_TAG_BITS, bucket_of, case_key, case_tag, store_key
from cluster.model import Kind, Record
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_codec import shown_record, stored_thing, whole_row
from cluster.stores.falkor_rows import Group, Page, group_of, key_of, label_of, pages
from cluster.stores.falkor_text import header, literal, overlay_owner
from cluster.stores.falkor_upserts import REFUSED, Upserts
from cluster.stores.graph import Cursor, CursorMove, Fence, Outcomes, ShardState, StoredThing, WriteCounts

_PAGE = 1_000


def _flags(buckets: Iterable[int]) -> str:
    flags = ["0"] * BUCKETS
    for bucket in buckets:
        flags[bucket] = "1"
    return "".join(flags)


def _buckets(flags: str) -> frozenset[int]:
    return frozenset(bucket for bucket, flag in enumerate(flags) if flag == "1")


class FalkorShard:
    """See `graph.GraphShard`. For one thread; `begin` and `finish` overlap building text with the store's work."""

    def __init__(self, client: FalkorClient, write_rows: int = 1_000) -> None:
        self._client = client
        self._write_rows = write_rows
        self._indexed: set[str] = set()
        self._known_cases: set[tuple[str, str]] = set()
        self._upserts = Upserts(client, write_rows)

    # --- the shard itself

    def prepare(self) -> None:
        """Create indexes of nodes and of every relationship type that is there. Safe to call twice."""
        for label, name in dialect.INDEXES:
            self._client.create_index(f"(x:{label})", name)
        self._indexed.clear()
        self._known_cases.clear()
        for (type_,) in self._client.read(dialect.RELATIONSHIP_TYPES, {}):
            self._index_type(type_)

    def _index_type(self, type_: str) -> None:
        if type_ not in self._indexed:
            self._client.create_index(f"()-[x:`{type_}`]-()", "_k")
            self._indexed.add(type_)

    def state(self) -> ShardState | None:
        rows = self._client.read(dialect.SHARD, {})
        if not rows:
            return None
        raised, serving, owned, lacking = rows[0]
        return ShardState(raised, serving, _buckets(owned), _buckets(lacking))

    def raise_epoch(self, epoch: int) -> None:
        if not self._client.write(dialect.RAISE, {"epoch": epoch, "none": "0" * BUCKETS}):
            raise Fenced(f"the shard knows an epoch of {epoch} or later already; reload the shard map")

    def own(self, epoch: int, buckets: Iterable[int], lacking: Iterable[int] = (), fence: Fence | None = None) -> None:
        held = self._fenced(fence or Fence(epoch, 0, ()), ())
        owned = _flags(buckets)
        parameters = {**held, "owned": owned, "owns": [f == "1" for f in owned], "lacking": _flags(lacking)}
        if not self._client.write(dialect.OWN, parameters):
            raise Fenced("the shard's epoch, or a partition's lease, is another; reload the shard map")

    def serve(self, epoch: int) -> None:
        if not self._client.write(dialect.SERVE, {"epoch": epoch}):
            raise Fenced("the shard's epoch is another; reload the shard map")

    def take_lease(self, fence: Fence) -> None:
        parameters = {"epoch": fence.epoch, "lease": fence.lease, "partitions": list(map(str, fence.partitions))}
        if self._client.write(dialect.LEASE, parameters) != [[len(fence.partitions)]]:
            raise Fenced("another writer holds a later lease of a partition, or the shard's epoch is another")

    def cursors(self) -> dict[int, Cursor]:
        rows = self._client.read(dialect.CURSORS, {})
        return {int(r[0]): Cursor(int(r[0]), *r[1:]) for r in rows}

    def cases(self) -> list[tuple[str, str]]:
        return [(tenant, case) for tenant, case in self._client.read(dialect.CASES, {})]

    # --- writing

    def _fenced(self, fence: Fence, buckets: Iterable[int]) -> dict[str, Any]:
        return {
            "epoch": fence.epoch,
            "lease": fence.lease,
            "partitions": list(map(str, fence.partitions)),
            "held": len(fence.partitions),
            "buckets": sorted(set(buckets)),
        }

    def encode(self, rows: Frame) -> list[Page]:
        return pages(rows, self._write_rows)

    def begin(self, fence: Fence, encoded: Sequence[Page]) -> None:
        for kind, name in {page.group for page in encoded}:
            if kind == Kind.RELATIONSHIP:
                self._index_type(name)
        for page in encoded:
            self._upserts.send(self._fenced(fence, page.rows["bucket"].unique()), page)

    def see_cases(self, fence: Fence, cases: Iterable[tuple[str, str]]) -> None:
        unseen = set(cases) - self._known_cases
        if not unseen:
            return
        rows = [{"_k": case_key(t, c), "_c": case_tag(t, c), "tenant": t, "case": c} for t, c in sorted(unseen)]
        parameters = {**self._fenced(fence, [bucket_of(t, c) for t, c in unseen]), "rows": rows}
        self._write(dialect.SEE_CASES, parameters, len(rows))
        self._known_cases |= unseen

    def finish(self) -> WriteCounts:
        return self._upserts.finish()

    def _write(self, template: str, parameters: Mapping[str, Any], expected: int | None) -> int:
        answer = self._client.write(template, parameters)
        done = int(answer[0][0] or 0) if answer else 0
        if expected is not None and done != expected:
            raise Fenced(REFUSED)
        return done

    def advance(self, fence: Fence, moves: Sequence[CursorMove], counts: WriteCounts) -> None:
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
            for (tenant, source, epoch), o in by_source.items()
        ]  # fmt: skip
        parameters = {"epoch": fence.epoch, "lease": fence.lease, "moves": rows, "expected": len(rows), "counts": added}
        self._write(dialect.ADVANCE, parameters, len(rows))

    def outcomes(self) -> dict[tuple[str, str, int], Outcomes]:
        """What became of every record that was ever applied here, by (tenant, source, epoch)."""
        return {(r[0], r[1], r[2]): Outcomes(*r[3:]) for r in self._client.read(dialect.COUNTS, {})}

    # --- registers of single things

    def fetch(self, records: Iterable[Record]) -> dict[Thing, StoredThing]:
        groups: dict[Group, dict[str, Record]] = defaultdict(dict)
        for record in records:
            groups[group_of(record)][key_of(record)] = record
        found: dict[Thing, StoredThing] = {}
        for (kind, name), by_key in groups.items():
            is_edge = kind == Kind.RELATIONSHIP
            template = dialect.read_relationships(name) if is_edge else dialect.read_nodes(name)
            for (stored,) in self._client.read(template, {"keys": list(by_key)}):
                if stored.get("_s") is not None:
                    r = by_key[stored["_k"]]
                    found[thing_of(r)] = stored_thing(r.tenant, r.case, r.bucket, r.kind, r.type, stored)
        return found

    def replace(self, fence: Fence, things: Sequence[tuple[StoredThing, Record | None]]) -> None:
        rows: dict[Group, list[tuple[int, str]]] = defaultdict(list)
        gone: dict[Group, list[tuple[int, str]]] = defaultdict(list)
        for thing, merged in things:
            kind_label = (
                (Kind.RELATIONSHIP, thing.type)
                if thing.kind == Kind.RELATIONSHIP
                else (thing.kind, label_of(thing.kind))
            )
            bucket = bucket_of(thing.tenant, thing.case)
            if thing.registers:
                rows[kind_label].append((bucket, whole_row(thing, merged)))
            else:
                key = store_key(thing.tenant, thing.case, thing.type, thing.id)
                gone[kind_label].append((bucket, literal(key)))
        for (kind, name), texts in rows.items():
            edge = kind == Kind.RELATIONSHIP
            if edge:
                self._index_type(name)
            template = dialect.replace_relationships(name) if edge else dialect.replace_nodes(name)
            self._pages(fence, texts, "rows", template)
        for (kind, name), texts in gone.items():
            edge = kind == Kind.RELATIONSHIP
            template = dialect.forget_relationships(name) if edge else dialect.forget_nodes(name)
            self._pages(fence, texts, "keys", template)

    def _pages(self, fence: Fence, texts: list[tuple[int, str]], name: str, template: str) -> None:
        for at in range(0, len(texts), self._write_rows):
            page = texts[at : at + self._write_rows]
            parameters = header(self._fenced(fence, [bucket for bucket, _ in page]))
            self._client.send([f"{parameters}{name}=[{','.join(t for _, t in page)}] {template}"])
            answer = self._client.receive()
            if not answer or int(answer[0][0]) != len(page):
                raise Fenced(REFUSED)

    # --- floors and priorities

    def floors(self) -> list[tuple[str, str, str, str, bool]]:
        """(tenant, source, type, version, done) of every floor; one not done has to be applied again."""
        return [(r[0], r[1], r[2], r[3], bool(r[4])) for r in self._client.read(dialect.FLOORS, {})]

    def priorities(self) -> list[tuple[str, str, str, int, bool]]:
        """(tenant, source, stamp, priority, done) of every priority."""
        return [(r[0], r[1], r[2], r[3], bool(r[4])) for r in self._client.read(dialect.PRIORITIES, {})]

    def set_floor(self, fence: Fence, floor: Record, done: bool) -> None:
        """Keep a floor; `done` once every register below it is hidden. Safe to call twice."""
        key = literal_key("floor", floor.tenant, floor.source, floor.type)
        parameters = {
            "key": key, "tenant": floor.tenant, "source": floor.source, "type": floor.type,
            "version": floor.version, "done": done,
        }  # fmt: skip
        self._write(dialect.SET_FLOOR, {**self._fenced(fence, []), **parameters}, 1)

    def set_priority(self, fence: Fence, record: Record, priority: int, done: bool) -> None:
        """Keep a priority; `done` once every thing of several sources is merged anew. Safe to call twice."""
        key = literal_key("priority", record.tenant, record.source, "")
        parameters = {
            "key": key, "tenant": record.tenant, "source": record.source, "stamp": record.stamp,
            "priority": priority, "done": done,
        }  # fmt: skip
        self._write(dialect.SET_PRIORITY, {**self._fenced(fence, []), **parameters}, 1)

    def forget_overlays(self, fence: Fence, floor: Record) -> int:
        """Delete an overlay's registers below its floor; returns how many."""
        gone = 0
        parameters = {
            **self._fenced(fence, []), "owner": overlay_owner(floor.tenant, floor.source), "type": floor.type,
            "version": floor.version, "limit": _PAGE,
        }  # fmt: skip
        while page := self._write(dialect.FORGET_OVERLAYS, parameters, None):
            gone += page
        return gone

    def touched(self, tenant: str, case: str, source: str, version: str) -> Iterator[StoredThing]:
        """Things of a case that a floor may hide or a priority may order anew."""
        yield from self._scan(
            tenant, case, dialect.touched_nodes, dialect.TOUCHED_RELATIONSHIPS,
            (dialect.ENTITY, dialect.CLAIM), {"source": source, "version": version},
        )  # fmt: skip

    def things(self, tenant: str, case: str) -> Iterator[StoredThing]:
        yield from self._scan(tenant, case, dialect.scan_nodes, dialect.SCAN_RELATIONSHIPS, dialect.NODE_LABELS, {})

    def _scan(
        self, tenant: str, case: str, nodes: Any, edges: str, labels: Sequence[str], more: Mapping[str, Any]
    ) -> Iterator[StoredThing]:
        parameters = {"tag": case_tag(tenant, case), "case": case_key(tenant, case), **more}
        bucket = bucket_of(tenant, case)
        for label in labels:
            kind = Kind.CLAIM if label == dialect.CLAIM else Kind.ENTITY
            for (stored,) in self._client.read(nodes(label), parameters):
                yield stored_thing(tenant, case, bucket, kind, stored["_type"], stored)
        for type_, stored in self._client.read(edges, parameters):
            yield stored_thing(tenant, case, bucket, Kind.RELATIONSHIP, type_, stored)

    def shown(self, tenant: str, case: str) -> Iterator[Record]:
        """Everything that is visible in a case, as the graph itself shows it."""
        parameters = {"tag": case_tag(tenant, case), "case": case_key(tenant, case)}
        bucket = bucket_of(tenant, case)
        for label, kind in ((dialect.ENTITY, Kind.ENTITY), (dialect.CLAIM, Kind.CLAIM)):
            for (stored,) in self._client.read(dialect.visible_nodes(label), parameters):
                yield shown_record(tenant, case, bucket, kind, stored["_type"], stored)
        for type_, stored in self._client.read(dialect.VISIBLE_RELATIONSHIPS, parameters):
            yield shown_record(tenant, case, bucket, Kind.RELATIONSHIP, type_, stored)

    def drop_bucket(self, epoch: int, bucket: int) -> None:
        """Delete everything of a bucket that this shard no longer owns. Safe to call twice."""
        low = bucket << CASE_TAG_BITS
        parameters = {"epoch": epoch, "low": low, "high": low + (1 << CASE_TAG_BITS), "limit": _PAGE}
        for label in (*dialect.NODE_LABELS, "_Case"):
            while self._write(dialect.drop_bucket(label), parameters, None):
                pass
        self._known_cases.clear()

    def read(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None) -> list[list[Any]]:
        return self._client.read(template, parameters, timeout_s)

    def close(self) -> None:
        self._client.close()


def literal_key(*parts: str) -> str:
    """One text for several, none of which can be written as another's."""
    if any("\x00" in p for p in parts):
        raise Rejected("a name holds a NUL character; remove it")
    return store_key(*parts) if len(parts) == 4 else "".join(f"{len(p)}:{p}" for p in parts)
