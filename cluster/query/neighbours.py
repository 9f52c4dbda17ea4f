"""The neighbourhood of an entity, breadth first: one statement a hop, then the properties of one page.

    root ─► frontier 1 ─► frontier 2 ─► frontier 3      keys, types, ids: each entity is expanded once
                 └──────── sort, cut to the page ──► entities (properties), links and loops (relationships)

A hop by itself keeps distances exact and lets each bound be seen to bite: paths followed in all
(`neighbours_max`), and supernodes, which are shown but not passed through (`supernode_degree`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cluster.config import QuerySettings
from cluster.errors import NotFound
from cluster.ids import bucket_of, store_key
from cluster.query import cypher
from cluster.query.answers import LinkView, NeighboursPage, NeighbourView, RefView
from cluster.query.cypher import Statement
from cluster.query.decode import is_of, properties
from cluster.query.hot import NOT_FOUND, Rows, Shard
from cluster.query.ir import Detail, EntityQuery, NeighboursQuery
from cluster.query.types import EVERY, Groups, HopTypes

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


def read_neighbours(
    shard: Shard, query: NeighboursQuery, settings: QuerySettings, types: HopTypes | None = None
) -> NeighboursPage:
    """One page of the neighbourhood of an entity.

    Args:
        types: which relationship types to name; None: hops are untyped.

    Raises:
        NotFound: the entity is not visible. Fenced: the shard is not who the caller takes it for.
    """
    groups = types.groups(shard, query.tenant, query.relationship_types) if types else EVERY
    reached = walk(shard, query, settings, groups)
    page, after = page_of(query, reached.places)
    stored, links, cut = _page(shard, query, reached.places, page, groups)
    if cut:
        reached.truncated.add("relationships")
    views = _views(query, reached.places, page, stored)
    return NeighboursPage(views, links, after, sorted(reached.truncated), reached.supernodes)


def walk(shard: Shard, query: NeighboursQuery, settings: QuerySettings, groups: Groups = EVERY) -> Reached:
    """Everything within `hops`, the root at distance 0."""
    root = store_key(query.tenant, query.case, query.type, query.id)
    reached = Reached({root: (0, query.type, query.id)})
    keys, paths = [root], settings.neighbours_max
    for hop in range(1, query.hops + 1):
        rows = _step(shard, query, keys, paths, hop < query.hops, groups)
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


def _step(shard: Shard, query: NeighboursQuery, keys: Sequence[str], paths: int, goes_on: bool, groups: Groups) -> Rows:
    rows: Rows = []
    for types in groups:
        left = paths - sum(row[3] for row in rows)
        if left <= 0:
            break
        rows += shard.read(cypher.frontier(query, shard.epoch, keys, left, shard.dialect, goes_on, types))
    return rows


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


def _page(
    shard: Shard, query: NeighboursQuery, places: dict[str, Place], page: Sequence[str], groups: Groups
) -> tuple[Rows, list[LinkView], bool]:
    """Property maps of the page's entities, its relationships by (type, id), and whether some were left out."""
    askings = _askings(shard.epoch, query, places, page)
    most = LINKS_PER_ENTITY * max(len(page), 1)
    statements = [asking(most + 1, types) for types in groups[:1] for asking in askings]
    stored: Rows = []
    if page:
        stored, *found = shard.read_all([cypher.entities(query, shard.epoch, page), *statements])
        shard.current(stored, [bucket_of(query.tenant, query.case)])
    else:
        found = shard.read_all(statements)
    for types in groups[1:]:
        for rows, asking in zip(found, askings, strict=True):
            if len(rows) <= most:
                rows += shard.read(asking(most + 1 - len(rows), types))
    links = [_link(places, row) for rows in found for row in rows[:most]]
    links.sort(key=lambda link: (link.type, link.id))
    return stored, links, any(len(rows) > most for rows in found)


Asking = Callable[[int, Sequence[str]], Statement]
"""(limit, types) → the statement for some relationships of a page."""


def _askings(epoch: int, query: NeighboursQuery, places: dict[str, Place], page: Sequence[str]) -> list[Asking]:
    """What shows a page's relationships: those to nearer entities by distance, then those of an entity with itself.

    The entity that was asked for stands on no page; its own are on the first.
    """
    if query.detail is Detail.NONE:
        return []
    made: list[Asking] = []
    for distance in sorted({places[key][0] for key in page}):
        far = [key for key in page if places[key][0] == distance]
        near = [key for key, place in places.items() if place[0] == distance - 1]
        made.append(partial(_to_nearer, query, epoch, far, near))
    own = [*(key for key, place in places.items() if not place[0] and query.after is None), *page]
    if own:
        made.append(lambda limit, types: cypher.loops(query, epoch, own, limit, types))
    return made


def _to_nearer(
    query: NeighboursQuery, epoch: int, far: Sequence[str], near: Sequence[str], limit: int, types: Sequence[str]
) -> Statement:
    return cypher.links(query, epoch, far, near, limit, types)


def _views(query: NeighboursQuery, places: dict[str, Place], page: Sequence[str], stored: Rows) -> list[NeighbourView]:
    by_key = {row[0]["_k"]: row[0] for row in stored if is_of(row[0], query.tenant, query.case)}
    return [
        NeighbourView(by_key[key]["_type"], by_key[key]["_id"], places[key][0], properties(by_key[key]))
        for key in page
        if key in by_key
    ]


def _link(places: dict[str, Place], row: list[Any]) -> LinkView:
    far, near, starts_far, type_, id_, *stored = row
    a, b = (far, near) if starts_far else (near, far)
    props = properties(stored[0]) if stored else None
    return LinkView(type_, id_, RefView(*places[a][1:]), RefView(*places[b][1:]), props)
