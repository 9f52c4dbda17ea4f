"""A hot shard over one connection, by the templates of dialect.py: the store interface of graph.py, for any database.

falkor_shard.py and neo4j_shard.py say how rows are written and how indexes are made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from cluster import dialect, dialect_shard
from cluster.batch import Frame
from cluster.errors import Fenced
from cluster.fold import Thing, thing_of
from cluster.ids import BUCKETS, bucket_of, case_key, case_tag, store_key
from cluster.model import Kind, Record
from cluster.stores.graph import Cursor, CursorMove, Fence, Outcomes, ShardState, StoredThing, WriteCounts
from cluster.stores.shard_codec import shown_record, stored_thing, whole
from cluster.stores.shard_parameters import (
    advancing,
    buckets_of,
    fenced,
    flooring,
    of_bucket,
    of_case,
    owning,
    ranking,
)
from cluster.stores.shard_rows import Group, Page, group_of, joined, key_of, label_of, overlay_owner
from cluster.stores.upserts import REFUSED, RowClient, Upserts

_PAGE = 1_000


class ShardClient(RowClient, Protocol):
    """A connection to a shard."""

    def write(self, template: str, parameters: Mapping[str, Any]) -> list[list[Any]]:
        """Run one writing template and wait."""

    def read(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None) -> list[list[Any]]:
        """Run one reading template and wait."""


class StoredShard(ABC):
    """See `graph.GraphShard`. For one thread; `begin` and `finish` overlap making rows with the store's work."""

    def __init__(self, client: ShardClient, write_rows: int) -> None:
        self._client = client
        self._database = client.dialect
        self._write_rows = write_rows
        self._indexed: set[str] = set()
        self._known_cases: set[tuple[str, str]] = set()
        self._upserts = Upserts(client, self.encode, write_rows)

    @abstractmethod
    def _index_labels(self) -> None:
        """Create indexes of nodes, where they are not there; may note in `_indexed` which types have theirs."""

    @abstractmethod
    def _create_indexes(self, types: Sequence[str]) -> None:
        """Create the indexes of relationship types, where they are not there. Safe to call twice."""

    @abstractmethod
    def encode(self, rows: Frame) -> list[Page]:
        """See `graph.GraphShard`."""

    @abstractmethod
    def _bodies(self, first: Any, second: Any) -> Any:
        """The bodies of two pages as one."""

    @abstractmethod
    def _row(self, record: Record, registers: str | None) -> Any:
        """A row that replaces a thing; see `shard_codec.whole`."""

    @abstractmethod
    def _key(self, key: str) -> Any:
        """A store key as an item of `_joined`."""

    @abstractmethod
    def _joined(self, items: Sequence[Any]) -> Any:
        """Rows or keys as one query takes them."""

    # --- the shard itself

    def prepare(self) -> None:
        """Create indexes of nodes and of every relationship type that is there. Safe to call twice."""
        self._indexed.clear()
        self._known_cases.clear()
        self._index_labels()
        self._index_types([type_ for (type_,) in self._client.read(dialect.RELATIONSHIP_TYPES, {})])

    def _index_types(self, types: Iterable[str]) -> None:
        known = list(dict.fromkeys(types))
        unknown = [name for name in known if name not in self._indexed]
        if unknown:
            self._create_indexes(unknown)
            self._indexed |= set(unknown)
        self._upserts.meet(known)

    def state(self) -> ShardState | None:
        rows = self._client.read(dialect_shard.SHARD, {})
        if not rows:
            return None
        raised, serving, owned, lacking = rows[0]
        return ShardState(raised, serving, buckets_of(owned), buckets_of(lacking))

    def raise_epoch(self, epoch: int) -> None:
        parameters = {"epoch": epoch, "none": "0" * BUCKETS}
        if not self._client.write(dialect_shard.raise_epoch(self._database), parameters):
            raise Fenced(f"the shard knows an epoch of {epoch} or later already; reload the shard map")

    def own(self, epoch: int, buckets: Iterable[int], lacking: Iterable[int] = (), fence: Fence | None = None) -> None:
        parameters = owning(fence or Fence(epoch, 0, ()), buckets, lacking)
        if not self._client.write(dialect_shard.own(self._database), parameters):
            raise Fenced("the shard's epoch, or a partition's lease, is another; reload the shard map")

    def serve(self, epoch: int) -> None:
        if not self._client.write(dialect_shard.serve(self._database), {"epoch": epoch}):
            raise Fenced("the shard's epoch is another; reload the shard map")

    def take_lease(self, fence: Fence) -> None:
        parameters = {"epoch": fence.epoch, "lease": fence.lease, "partitions": list(map(str, fence.partitions))}
        if self._client.write(dialect_shard.lease(self._database), parameters) != [[len(fence.partitions)]]:
            raise Fenced("another writer holds a later lease of a partition, or the shard's epoch is another")

    def cursors(self) -> dict[int, Cursor]:
        rows = self._client.read(dialect_shard.CURSORS, {})
        return {int(r[0]): Cursor(int(r[0]), *r[1:]) for r in rows}

    def cases(self) -> list[tuple[str, str]]:
        return [(tenant, case) for tenant, case in self._client.read(dialect_shard.CASES, {})]

    # --- writing

    def joined(self, first: list[Page], second: list[Page]) -> list[Page]:
        return joined(first, second, self._write_rows, self._bodies)

    @property
    def lanes(self) -> int:
        return 1

    def begin(self, parts: Sequence[tuple[Fence, Sequence[Page]]]) -> None:
        edges = [page for _, encoded in parts for page in encoded if page.group[0] == Kind.RELATIONSHIP]
        edges.sort(key=lambda page: (page.rows["tenant"][0], page.group))  # those of one tenant go together
        self._index_types(page.group[1] for page in edges)  # waits, so nothing is sent yet
        for lane, (fence, encoded) in enumerate(parts):
            self._upserts.send(fence, encoded, lane)

    def see_cases(self, fence: Fence, cases: Iterable[tuple[str, str]]) -> None:
        unseen = set(cases) - self._known_cases
        if not unseen:
            return
        rows = [{"_k": case_key(t, c), "_c": case_tag(t, c), "tenant": t, "case": c} for t, c in sorted(unseen)]
        parameters = {**fenced(fence, [bucket_of(t, c) for t, c in unseen]), "rows": rows}
        self._write(dialect_shard.see_cases(self._database), parameters, len(rows))
        self._known_cases |= unseen

    def answered(self, within_s: float) -> bool:
        return self._upserts.answered(within_s)

    def finish(self) -> WriteCounts:
        return self._upserts.finish()

    def _write(self, template: str, parameters: Mapping[str, Any], expected: int | None) -> int:
        answer = self._client.write(template, parameters)
        done = int(answer[0][0] or 0) if answer else 0
        if expected is not None and done != expected:
            raise Fenced(REFUSED)
        return done

    def advance(self, fence: Fence, moves: Sequence[CursorMove], counts: WriteCounts) -> None:
        template = dialect_shard.advance(self._database)
        self._write(template, advancing(fence, moves, counts), len(moves))

    def outcomes(self) -> dict[tuple[str, str, int], Outcomes]:
        """What became of every record that was ever applied here, by (tenant, source, epoch)."""
        return {(r[0], r[1], r[2]): Outcomes(*r[3:]) for r in self._client.read(dialect_shard.COUNTS, {})}

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
        rows: dict[Group, list[tuple[int, Any]]] = defaultdict(list)
        gone: dict[Group, list[tuple[int, Any]]] = defaultdict(list)
        for thing, merged in things:
            edge = thing.kind == Kind.RELATIONSHIP
            group = (thing.kind, thing.type if edge else label_of(thing.kind))
            bucket = bucket_of(thing.tenant, thing.case)
            if thing.registers:
                rows[group].append((bucket, self._row(*whole(thing, merged))))
            else:
                key = store_key(thing.tenant, thing.case, thing.type, thing.id)
                gone[group].append((bucket, self._key(key)))
        self._index_types(name for kind, name in rows if kind == Kind.RELATIONSHIP)
        for (kind, name), whole_rows in rows.items():
            replaces = dialect.replace_relationships if kind == Kind.RELATIONSHIP else dialect.replace_nodes
            self._pages(fence, whole_rows, "rows", replaces(self._database, name))
        for (kind, name), keys in gone.items():
            forgets = dialect.forget_relationships if kind == Kind.RELATIONSHIP else dialect.forget_nodes
            self._pages(fence, keys, "keys", forgets(self._database, name))

    def _pages(self, fence: Fence, items: list[tuple[int, Any]], name: str, template: str) -> None:
        for at in range(0, len(items), self._write_rows):
            page = items[at : at + self._write_rows]
            parameters = fenced(fence, [bucket for bucket, _ in page])
            self._client.send_rows(template, parameters, {name: self._joined([item for _, item in page])})
            answer = self._client.receive()
            if not answer or int(answer[0][0]) != len(page):
                raise Fenced(REFUSED)

    # --- floors and priorities

    def floors(self) -> list[tuple[str, str, str, str, bool]]:
        """(tenant, source, type, version, done) of every floor; one not done has to be applied again."""
        return [(r[0], r[1], r[2], r[3], bool(r[4])) for r in self._client.read(dialect_shard.FLOORS, {})]

    def priorities(self) -> list[tuple[str, str, str, int, bool]]:
        """(tenant, source, stamp, priority, done) of every priority."""
        return [(r[0], r[1], r[2], r[3], bool(r[4])) for r in self._client.read(dialect_shard.PRIORITIES, {})]

    def set_floor(self, fence: Fence, floor: Record, done: bool) -> None:
        """Keep a floor; `done` once every register below it is hidden. Safe to call twice."""
        self._write(dialect_shard.set_floor(self._database), flooring(fence, floor, done), 1)

    def set_priority(self, fence: Fence, record: Record, priority: int, done: bool) -> None:
        """Keep a priority; `done` once every thing of several sources is merged anew. Safe to call twice."""
        self._write(dialect_shard.set_priority(self._database), ranking(fence, record, priority, done), 1)

    def forget_overlays(self, fence: Fence, floor: Record) -> int:
        """Delete an overlay's registers below its floor; returns how many."""
        gone, template = 0, dialect.forget_overlays(self._database)
        parameters = {
            **fenced(fence, []), "owner": overlay_owner(floor.tenant, floor.source), "type": floor.type,
            "version": floor.version, "limit": _PAGE,
        }  # fmt: skip
        while page := self._write(template, parameters, None):
            gone += page
        return gone

    def touched(self, tenant: str, case: str, source: str, version: str) -> Iterator[StoredThing]:
        """Things of a case that a floor may hide or a priority may order anew."""
        yield from self._scan(
            tenant, case, dialect.touched_nodes, dialect.touched_relationships,
            (dialect.ENTITY, dialect.CLAIM), {"source": source, "version": version},
        )  # fmt: skip

    def things(self, tenant: str, case: str) -> Iterator[StoredThing]:
        yield from self._scan(tenant, case, dialect.scan_nodes, dialect.scan_relationships, dialect.NODE_LABELS, {})

    def _scan(
        self, tenant: str, case: str, nodes: Any, edges: Any, labels: Sequence[str], more: Mapping[str, Any]
    ) -> Iterator[StoredThing]:
        parameters = {**of_case(tenant, case), **more}
        bucket = bucket_of(tenant, case)
        for label in labels:
            kind = Kind.CLAIM if label == dialect.CLAIM else Kind.ENTITY
            for (stored,) in self._client.read(nodes(self._database, label), parameters):
                yield stored_thing(tenant, case, bucket, kind, stored["_type"], stored)
        for type_, stored in self._client.read(edges(self._database), parameters):
            yield stored_thing(tenant, case, bucket, Kind.RELATIONSHIP, type_, stored)

    def shown(self, tenant: str, case: str) -> Iterator[Record]:
        """Everything that is visible in a case, as the graph itself shows it."""
        parameters = of_case(tenant, case)
        bucket = bucket_of(tenant, case)
        for label, kind in ((dialect.ENTITY, Kind.ENTITY), (dialect.CLAIM, Kind.CLAIM)):
            for (stored,) in self._client.read(dialect.visible_nodes(self._database, label), parameters):
                yield shown_record(tenant, case, bucket, kind, stored["_type"], stored)
        for type_, stored in self._client.read(dialect.visible_relationships(self._database), parameters):
            yield shown_record(tenant, case, bucket, Kind.RELATIONSHIP, type_, stored)

    def drop_bucket(self, epoch: int, bucket: int) -> None:
        """Delete everything of a bucket that this shard no longer owns. Safe to call twice."""
        self._known_cases.clear()
        parameters = {"epoch": epoch, **of_bucket(bucket), "limit": _PAGE}
        for label in (*dialect.NODE_LABELS, "_Case"):
            while self._write(dialect_shard.drop_bucket(self._database, label), parameters, None):
                pass

    def drop_all(self, fence: Fence) -> Iterator[int]:
        self._known_cases.clear()
        for label in (*dialect.NODE_LABELS, *dialect_shard.KNOWN_LABELS):
            template = dialect_shard.drop_all(self._database, label)
            while gone := self._write(template, {**fenced(fence, ()), "limit": _PAGE}, None):
                yield gone

    def begin_again(self, fence: Fence) -> None:
        if not self._write(dialect_shard.begin_again(self._database), fenced(fence, ()), None):
            raise Fenced(REFUSED)

    def read(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None) -> list[list[Any]]:
        return self._client.read(template, parameters, timeout_s)

    def close(self) -> None:
        self._client.close()
