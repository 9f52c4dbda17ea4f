"""Small graphs on a real shard, written as the product writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cluster import versions
from cluster.batch import frame_of
from cluster.embedded import operator
from cluster.fold import Fold, Priorities, merge, thing_of
from cluster.ids import BUCKETS, bucket_of
from cluster.model import Kind, Op, Record, stamp_of
from cluster.query.hot import Shard
from cluster.query.ir import Direction, EntityQuery
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.graph import Fence, StoredThing
from cluster.values import canonical_json
from tests.conftest import Running

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
    """One graph on a FalkorDB server, with everything owned and served under EPOCH."""

    def __init__(self, running: Running, name: str) -> None:
        self._running, self._name = running, name
        self.client = FalkorClient(f"unix://{running.socket}", running.password, timeout_s=10.0, graph=name)
        self.shard = FalkorShard(self.client)
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
        self.shard.begin(FENCE, self.shard.encode(frame_of(singles)))
        counts = self.shard.finish()
        assert not counts.others
        several = [(t, by) for t, by in by_thing.items() if len(by) > 1]
        if several:
            self.shard.replace(FENCE, [_whole(t, by) for t, by in several])

    def seen(self, epoch: int = EPOCH, buckets: tuple[int, ...] = ALL) -> Shard:
        """The shard as a question sees it."""
        return Shard(lambda s: self.client.read(s.template, s.parameters, 10.0), epoch, buckets)

    def close(self) -> None:
        """Remove the graph, on the server's main thread: freeing it beside the making of another crashes FalkorDB."""
        self.client.close()
        with operator(self._running.spec) as server:
            server.delete(self._name)


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


def distances(
    records: Iterable[Record], root: EntityQuery, hops: int, direction: Direction, types: Sequence[str] = ()
) -> dict[tuple[str, str], int]:
    """The oracle: (type, id) → distance from the root over what the fold shows, without the root."""
    fold = Fold().apply_all(records)
    steps: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for (tenant, case, kind, type, _), shown in fold.visible():
        if kind != Kind.RELATIONSHIP or (tenant, case) != (root.tenant, root.case) or (types and type not in types):
            continue
        a, b = (shown.a_type, shown.a_id), (shown.b_type, shown.b_id)
        if direction in (Direction.OUT, Direction.ANY):
            steps.setdefault(a, set()).add(b)
        if direction in (Direction.IN, Direction.ANY):
            steps.setdefault(b, set()).add(a)
    found = {(root.type, root.id): 0}
    frontier = [(root.type, root.id)]
    for hop in range(1, hops + 1):
        frontier = [n for at in frontier for n in steps.get(at, ()) if n not in found and not found.update({n: hop})]
    return {place: hop for place, hop in found.items() if hop}
