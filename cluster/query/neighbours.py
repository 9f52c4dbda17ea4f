"""The neighbourhood of an entity, breadth first: one statement a hop, then the properties of one page.

    root ─► frontier 1 ─► frontier 2 ─► frontier 3      keys, types, ids: each entity is expanded once
                 └──────── sort, cut to the page ──► entities (properties), links and loops (relationships)

A hop by itself keeps distances exact and lets each bound be seen to bite: paths followed in all
(`neighbours_max`), and supernodes, which are shown but not passed through (`supernode_degree`). No hop is made beyond
the distance at which the page is full: what lies further comes on later pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cluster.config import QuerySettings
from cluster.errors import NotFound
from cluster.ids import bucket_of, store_key
from cluster.query import cypher
from cluster.query.answers import LinkView, NeighboursPage, NeighbourView, RefView
from cluster.query.cypher import Statement
from cluster.query.decode import is_of, properties
from cluster.query.hot import NOT_FOUND, Rows, Shard
from cluster.query.ir import Detail, EntityQuery, NeighboursQuery
from cluster.query.types import GROUP, TypeTotals, are_many, few, grouped, is_broad, sample, split

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
    shard: Shard, query: NeighboursQuery, settings: QuerySettings, totals: TypeTotals | None = None
) -> NeighboursPage:
    """One page of the neighbourhood of an entity.

    Args:
        totals: how many types graphs have; None: few.

    Raises:
        NotFound: the entity is not visible. Fenced: the shard is not who the caller takes it for.
    """
    total = totals.total(shard) if totals else 1
    reached = walk(shard, query, settings, total)
    page, after = page_of(query, reached.places)
    stored, links, cut = _page(shard, query, reached.places, page, are_many(total))
    if cut:
        reached.truncated.add("relationships")
    views = _views(query, reached.places, page, stored)
    return NeighboursPage(views, links, after, sorted(reached.truncated), reached.supernodes)


def walk(shard: Shard, query: NeighboursQuery, settings: QuerySettings, total: int = 1) -> Reached:
    """Everything within `hops`, or up to the distance at which more than a page is there; the root at distance 0.

    Args:
        total: relationship types of the graph; decides how it is asked.
    """
    root = store_key(query.tenant, query.case, query.type, query.id)
    reached = Reached({root: (0, query.type, query.id)})
    degrees, paths, shown = dict[str, int](), settings.neighbours_max, 0
    for hop in range(1, query.hops + 1):
        step = _Step(shard, query, hop < query.hops)
        rows = step.all_from(degrees, paths, total) if degrees else step.all_from_root(root, paths, total)
        if not rows and hop == 1:
            _refuse_unless_visible(shard, query)
        paths -= _paths(rows)
        degrees = {}
        for key, type_, id_, _, degree in rows:
            if key in reached.places:
                continue
            reached.places[key] = place = (hop, type_, id_)
            shown += is_shown(query, place)
            if degree <= settings.supernode_degree:
                degrees[key] = int(degree)
            else:
                _stop_at(reached, RefView(type_, id_))
        if paths <= 0:
            reached.truncated.add("paths")
        if not degrees or paths <= 0 or shown > query.limit:
            break
    return reached


class _Step(NamedTuple):
    """One hop: how it is asked depends on degrees and types (types.py), what it finds does not."""

    shard: Shard
    query: NeighboursQuery
    goes_on: bool

    def all_from_root(self, root: str, paths: int, total: int) -> Rows:
        """Rows from an entity whose degree is not known: an answer without rows is asked again as of a hub."""
        return self._untyped([root], paths, few(total)) or self._from_hubs([root], paths)

    def all_from(self, degrees: Mapping[str, int], paths: int, total: int) -> Rows:
        """Rows from entities by degree; an entity that several lead to may have several."""
        plain, hubs = split(degrees, total)
        rows = self._from_plain({key: degrees[key] for key in plain}, paths, total)
        return rows + self._from_hubs(hubs, paths - _paths(rows))

    def _from_plain(self, degrees: Mapping[str, int], paths: int, total: int) -> Rows:
        if not is_broad(degrees, total):
            return self._untyped(list(degrees), paths)
        names = self._types_at(sample(degrees))
        if len(names) > GROUP:
            return self._untyped(list(degrees), paths)
        asked = cypher.typed_degrees(self.query, self.shard.epoch, list(degrees), names, self.shard.dialect)
        whole = {key for key, degree in self.shard.read(asked) if degree == degrees[key]}
        rows = self._named([key for key in degrees if key in whole], names, paths)
        return rows + self._untyped([key for key in degrees if key not in whole], paths - _paths(rows))

    def _from_hubs(self, hubs: Sequence[str], paths: int) -> Rows:
        return self._named(hubs, self._types_at(hubs), paths) if hubs and paths > 0 else []

    def _types_at(self, keys: Sequence[str]) -> list[str]:
        rows = self.shard.read(cypher.types_at(self.query, self.shard.epoch, keys, self.shard.dialect))
        return [name for (name,) in rows]

    def _untyped(self, keys: Sequence[str], paths: int, most: int | None = None) -> Rows:
        if not keys or paths <= 0:
            return []
        shard = self.shard
        return shard.read(cypher.frontier(self.query, shard.epoch, keys, paths, shard.dialect, self.goes_on, most=most))

    def _named(self, keys: Sequence[str], names: Sequence[str], paths: int) -> Rows:
        shard, rows = self.shard, list[list[Any]]()
        for types in grouped(names, self.query.relationship_types) if keys else ():
            left = paths - _paths(rows)
            if left <= 0:
                break
            rows += shard.read(cypher.frontier(self.query, shard.epoch, keys, left, shard.dialect, self.goes_on, types))
        return rows


def _paths(rows: Rows) -> int:
    return sum(row[3] for row in rows)


def _stop_at(reached: Reached, supernode: RefView) -> None:
    reached.truncated.add("supernodes")
    if len(reached.supernodes) < SUPERNODES_SHOWN:
        reached.supernodes.append(supernode)


def _refuse_unless_visible(shard: Shard, query: NeighboursQuery) -> None:
    entity = EntityQuery(query.tenant, query.case, query.type, query.id)
    rows = shard.admitted(cypher.entity(entity, shard.epoch), [bucket_of(query.tenant, query.case)])
    if not rows or rows[0][0] is None:
        raise NotFound(NOT_FOUND)


def is_shown(query: NeighboursQuery, place: Place) -> bool:
    """Whether what is there belongs to this page or a later one. Pure."""
    return bool(
        place[0]
        and (not query.entity_types or place[1] in query.entity_types)
        and (query.after is None or place > query.after)
    )


def page_of(query: NeighboursQuery, places: dict[str, Place]) -> tuple[list[str], Place | None]:
    """Keys of the page in order, and the place after which the next one begins (None: it is the last). Pure."""
    ordered = sorted((item for item in places.items() if is_shown(query, item[1])), key=lambda item: item[1])
    page = ordered[: query.limit]
    return [key for key, _ in page], page[-1][1] if len(ordered) > len(page) else None


def _page(
    shard: Shard, query: NeighboursQuery, places: dict[str, Place], page: Sequence[str], many_types: bool
) -> tuple[Rows, list[LinkView], bool]:
    """Property maps of the page's entities, its relationships by (type, id), and whether some were left out."""
    most = LINKS_PER_ENTITY * max(len(page), 1)
    statements = _statements(shard.epoch, query, places, page, most + 1, many_types)
    stored: Rows = []
    if page:
        stored, *found = shard.read_all([cypher.entities(query, shard.epoch, page), *statements])
        shard.current(stored, [bucket_of(query.tenant, query.case)])
    else:
        found = shard.read_all(statements)
    links = [_link(places, row) for rows in found for row in rows[:most]]
    links.sort(key=lambda link: (link.type, link.id))
    return stored, links, any(len(rows) > most for rows in found)


def _statements(
    epoch: int, query: NeighboursQuery, places: dict[str, Place], page: Sequence[str], limit: int, many_types: bool
) -> list[Statement]:
    """What shows a page's relationships: those to nearer entities by distance, then those of an entity with itself.

    The entity that was asked for stands on no page; its own are on the first.
    """
    if query.detail is Detail.NONE:
        return []
    made: list[Statement] = []
    for distance in sorted({places[key][0] for key in page}):
        far = [key for key in page if places[key][0] == distance]
        near = [key for key, place in places.items() if place[0] == distance - 1]
        made.append(cypher.links(query, epoch, far, near, limit, many_types))
    own = [*(key for key, place in places.items() if not place[0] and query.after is None), *page]
    if own:
        made.append(cypher.loops(query, epoch, own, limit))
    return made


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
