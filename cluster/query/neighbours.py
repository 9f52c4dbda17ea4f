"""The neighbourhood of an entity, breadth first: one statement a hop, then the properties of one page.

    root ─► frontier 1 ─► frontier 2 ─► frontier 3      keys, types, ids: each entity is expanded once
                 └──────── sort, cut to the page ──► entities (properties) and links (relationships)

A hop by itself keeps distances exact and lets each bound be seen to bite: paths followed in all
(`neighbours_max`), and supernodes, which are shown but not passed through (`supernode_degree`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.config import QuerySettings
from cluster.errors import NotFound
from cluster.ids import bucket_of, store_key
from cluster.query import cypher
from cluster.query.answers import LinkView, NeighboursPage, NeighbourView, RefView
from cluster.query.decode import is_of, properties
from cluster.query.hot import NOT_FOUND, Shard
from cluster.query.ir import Detail, EntityQuery, NeighboursQuery

LINKS_PER_ENTITY = 20
SUPERNODES_SHOWN = 20
Place = tuple[int, str, str]
"""(distance, type, id): the order of a neighbourhood."""


@dataclass
class Reached:
    """What a walk has reached so far: place by key, and what stopped it."""

    places: dict[str, Place]
    truncated: set[str] = field(default_factory=set)
    supernodes: list[RefView] = field(default_factory=list)


def read_neighbours(shard: Shard, query: NeighboursQuery, settings: QuerySettings) -> NeighboursPage:
    """One page of the neighbourhood of an entity.

    Raises:
        NotFound: the entity is not visible. Fenced: the shard is not who the caller takes it for.
    """
    reached = walk(shard, query, settings)
    page, after = page_of(query, reached.places)
    views = _views(shard, query, reached.places, page)
    links, cut = _links(shard, query, reached.places, page)
    if cut:
        reached.truncated.add("relationships")
    return NeighboursPage(views, links, after, sorted(reached.truncated), reached.supernodes)


def walk(shard: Shard, query: NeighboursQuery, settings: QuerySettings) -> Reached:
    """Everything within `hops`, the root at distance 0."""
    root = store_key(query.tenant, query.case, query.type, query.id)
    reached = Reached({root: (0, query.type, query.id)})
    keys, paths = [root], settings.neighbours_max
    for hop in range(1, query.hops + 1):
        goes_on = hop < query.hops
        statement = cypher.frontier(query, shard.epoch, keys, paths, shard.dialect, goes_on)
        rows = shard.read(statement)
        if not rows and hop == 1:
            _refuse_unless_visible(shard, query)
        paths -= sum(row[3] for row in rows)
        keys = []
        for key, type_, id_, _, degree in rows:
            if key in reached.places:
                continue
            reached.places[key] = (hop, type_, id_)
            if degree <= settings.supernode_degree:
                keys.append(key)
            else:
                _stop_at(reached, RefView(type_, id_))
        if paths <= 0:
            reached.truncated.add("paths")
        if not keys or paths <= 0:
            break
    return reached


def _stop_at(reached: Reached, supernode: RefView) -> None:
    reached.truncated.add("supernodes")
    if len(reached.supernodes) < SUPERNODES_SHOWN:
        reached.supernodes.append(supernode)


def _refuse_unless_visible(shard: Shard, query: NeighboursQuery) -> None:
    entity = EntityQuery(query.tenant, query.case, query.type, query.id)
    rows = shard.admitted(cypher.entity(entity, shard.epoch), [bucket_of(query.tenant, query.case)])
    if not rows or rows[0][0] is None:
        raise NotFound(NOT_FOUND)


def page_of(query: NeighboursQuery, places: dict[str, Place]) -> tuple[list[str], Place | None]:
    """Keys of the page in order, and the place after which the next one begins (None: it is the last). Pure."""
    shown = frozenset(query.entity_types)
    wanted: Iterable[tuple[str, Place]] = (
        (key, place)
        for key, place in places.items()
        if place[0] and (not shown or place[1] in shown) and (query.after is None or place > query.after)
    )
    ordered = sorted(wanted, key=lambda item: item[1])
    page = ordered[: query.limit]
    return [key for key, _ in page], page[-1][1] if len(ordered) > len(page) else None


def _views(shard: Shard, query: NeighboursQuery, places: dict[str, Place], page: Sequence[str]) -> list[NeighbourView]:
    if not page:
        return []
    rows = shard.admitted(cypher.entities(query, shard.epoch, page), [bucket_of(query.tenant, query.case)])
    by_key = {row[0]["_k"]: row[0] for row in rows if is_of(row[0], query.tenant, query.case)}
    return [
        NeighbourView(by_key[key]["_type"], by_key[key]["_id"], places[key][0], properties(by_key[key]))
        for key in page
        if key in by_key
    ]


def _links(
    shard: Shard, query: NeighboursQuery, places: dict[str, Place], page: Sequence[str]
) -> tuple[list[LinkView], bool]:
    """Relationships to the page's entities from nearer ones, ordered by (type, id); whether some were left out."""
    if query.detail is Detail.NONE:
        return [], False
    found: list[LinkView] = []
    most = LINKS_PER_ENTITY * max(len(page), 1)
    cut = False
    for distance in sorted({places[key][0] for key in page}):
        far = [key for key in page if places[key][0] == distance]
        near = [key for key, place in places.items() if place[0] == distance - 1]
        full = query.detail is Detail.FULL
        rows = shard.read(cypher.links(query, shard.epoch, far, near, most + 1, full))
        cut = cut or len(rows) > most
        found += [_link(places, row) for row in rows[:most]]
    found.sort(key=lambda link: (link.type, link.id))
    return found, cut


def _link(places: dict[str, Place], row: list[Any]) -> LinkView:
    far, near, starts_far, type_, id_, *stored = row
    a, b = (far, near) if starts_far else (near, far)
    props = properties(stored[0]) if stored else None
    return LinkView(type_, id_, RefView(*places[a][1:]), RefView(*places[b][1:]), props)
