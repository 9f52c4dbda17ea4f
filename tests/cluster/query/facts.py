"""Small graphs on a real shard, written as the product writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cluster import versions
from cluster.batch import frame_of
from cluster.fold import Fold, Priorities, merge, thing_of
from cluster.ids import BUCKETS, bucket_of
from cluster.model import Kind, Op, Record, stamp_of
from cluster.query.hot import Shard
from cluster.query.ir import Direction, EntityQuery
from cluster.stores.graph import Fence, StoredThing
from cluster.values import canonical_json
from tests.graph_stores import GraphStore

EPOCH = 3
FENCE = Fence(EPOCH, 1, (0,))
ALL = tuple(range(BUCKETS))


def record(
    tenant: str,
    case: str,
    kind: Kind,
    type: str,
    id: str,
    props: dict[str, Any] | None = None,
    *,
    a: tuple[str, str] = ("", ""),
    b: tuple[str, str] = ("", ""),
    source: str = "s1",
    at: int = 1,
    op: Op = Op.UPSERT,
    claim: Sequence[Any] | None = None,
    event_time: str = "2026-01-02T03:04:05Z",
) -> Record:
    """A checked record."""
    text, said = canonical_json(props or {}), canonical_json(list(claim)) if claim else ""
    stamp = stamp_of(versions.encode(0, [at]), str(int(op)), *a, *b, text, said)
    return Record(
        tenant, case, bucket_of(tenant, case), kind, op, type, id, *a, *b, source, stamp, "", event_time, text, said
    )


def entity(tenant: str, case: str, type: str, id: str, **more: Any) -> Record:
    """An entity's record."""
    return record(tenant, case, Kind.ENTITY, type, id, more.pop("props", {"name": id}), **more)


def relationship(
    tenant: str, case: str, type: str, id: str, a: tuple[str, str], b: tuple[str, str], **more: Any
) -> Record:
    """A relationship's record."""
    return record(tenant, case, Kind.RELATIONSHIP, type, id, more.pop("props", {}), a=a, b=b, **more)


class Graph:
    """One graph on a server, with everything owned and served under EPOCH."""

    def __init__(self, store: GraphStore, name: str) -> None:
        self._store, self._name = store, name
        self.client = store.client(name)
        self.shard = store.shard(self.client)
        self.shard.prepare()
        self.shard.raise_epoch(EPOCH)
        self.shard.own(EPOCH, ALL)
        self.shard.serve(EPOCH)
        self.shard.take_lease(FENCE)

    def write(self, records: Iterable[Record]) -> None:
        """Write records; things of several sources are folded and written whole."""
        folded: dict[tuple[Any, str], Record] = {}
        for r in records:
            folded[(thing_of(r), r.source)] = r
        by_thing: dict[Any, dict[str, Record]] = {}
        singles = []
        for (thing, source), r in folded.items():
            if r.is_overlay:
                singles.append(r)
            else:
                by_thing.setdefault(thing, {})[source] = r
        singles += [next(iter(by.values())) for by in by_thing.values() if len(by) == 1]
        self.shard.see_cases(FENCE, {(r.tenant, r.case) for r in folded.values()})
        self.shard.begin([(FENCE, self.shard.encode(frame_of(singles)))])
        counts = self.shard.finish()
        assert not counts.others
        several = [(t, by) for t, by in by_thing.items() if len(by) > 1]
        if several:
            self.shard.replace(FENCE, [_whole(t, by) for t, by in several])

    def seen(self, epoch: int = EPOCH, buckets: tuple[int, ...] = ALL) -> Shard:
        """The shard as a question sees it."""
        return Shard(
            lambda s: self.client.read(s.template, s.parameters, 10.0), epoch, buckets, self.client.dialect,
            at_once=lambda statements: self.client.read_all(statements, 10.0),
        )  # fmt: skip

    def close(self) -> None:
        """Remove the graph."""
        self.client.close()
        self._store.drop(self._name)


def _whole(thing: Any, by: dict[str, Record]) -> tuple[StoredThing, Record | None]:
    tenant, case, kind, type, id = thing
    merged = merge(by.values(), Priorities())
    stored = StoredThing(kind, tenant, case, type, id, by)
    if merged is None:
        return stored, None
    first = next(iter(by.values()))
    return stored, first._replace(
        a_type=merged.a_type, a_id=merged.a_id, b_type=merged.b_type, b_id=merged.b_id,
        event_time=merged.event_time, props=merged.props, claim=merged.claim, op=Op.UPSERT,
    )  # fmt: skip


Place = tuple[str, str]
"""(type, id) of an entity."""


def edges(records: Iterable[Record], root: EntityQuery, types: Sequence[str] = ()) -> dict[Place, tuple[Place, Place]]:
    """(type, id) → ends of each relationship of the root's case that the fold shows."""
    return {
        (type, id): ((shown.a_type, shown.a_id), (shown.b_type, shown.b_id))
        for (tenant, case, kind, type, id), shown in Fold().apply_all(records).visible()
        if kind == Kind.RELATIONSHIP and (tenant, case) == (root.tenant, root.case) and (not types or type in types)
    }


def leading(
    records: Iterable[Record],
    root: EntityQuery,
    hops: int,
    direction: Direction,
    types: Sequence[str] = (),
    shown: Callable[[Place], bool] = lambda _: True,
) -> dict[Place, tuple[Place, Place]]:
    """The oracle: relationships that a whole neighbourhood carries, with their ends.

    They are those that lead to an entity that is shown from a nearer one, and those of the root and of the shown ones
    with themselves.
    """
    records = list(records)
    at = {(root.type, root.id): 0, **distances(records, root, hops, direction, types)}

    def leads(a: Place, b: Place) -> bool:
        if a not in at or b not in at:
            return False
        if a == b:
            return not at[a] or shown(a)
        out = direction != Direction.IN and at[b] == at[a] + 1 and shown(b)
        return out or (direction != Direction.OUT and at[a] == at[b] + 1 and shown(a))

    return {name: ends for name, ends in edges(records, root, types).items() if leads(*ends)}


def distances(
    records: Iterable[Record], root: EntityQuery, hops: int, direction: Direction, types: Sequence[str] = ()
) -> dict[tuple[str, str], int]:
    """The oracle: (type, id) → distance from the root over what the fold shows, without the root."""
    steps: dict[Place, set[Place]] = {}
    for a, b in edges(records, root, types).values():
        if direction in (Direction.OUT, Direction.ANY):
            steps.setdefault(a, set()).add(b)
        if direction in (Direction.IN, Direction.ANY):
            steps.setdefault(b, set()).add(a)
    found = {(root.type, root.id): 0}
    frontier = [(root.type, root.id)]
    for hop in range(1, hops + 1):
        frontier = [n for at in frontier for n in steps.get(at, ()) if n not in found and not found.update({n: hop})]
    return {place: hop for place, hop in found.items() if hop}
