"""Neighbourhoods of small random graphs on a real shard against those computed from the fold."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config import QuerySettings
from cluster.model import Op, Record
from cluster.query.answers import NeighboursPage
from cluster.query.ir import Direction, EntityQuery, NeighboursQuery
from cluster.query.neighbours import read_neighbours
from cluster.query.types import TypeTotals
from tests.cluster.query.facts import Graph, Place, distances, entity, leading, relationship

pytestmark = pytest.mark.services
SETTINGS = QuerySettings()
NODES = (("T", "0"), ("T", "1"), ("T", "2"), ("U", "0"), ("U", "1"), ("U", "2"))
TYPES = ("R", "S-1", "T_2")
_cases = itertools.count()


nodes = st.sampled_from(NODES)
edge_lists = st.lists(st.tuples(st.sampled_from(TYPES), nodes, nodes, st.booleans()), max_size=14)


def records_of(case: str, lost: set[Place], edges: list[tuple[str, Place, Place, bool]]) -> list[Record]:
    """Every node but the lost ones, and edges, some of them deleted; the root is never lost."""
    records = [entity("t", case, *node) for node in NODES if node not in lost - {NODES[0]}]
    for number, (type_, a, b, dead) in enumerate(edges):
        records.append(
            relationship("t", case, type_, str(number), a, b, op=Op.DELETE if dead and number % 3 == 0 else Op.UPSERT)
        )
    return records


def all_pages(graph: Graph, query: NeighboursQuery, totals: TypeTotals | None) -> list[NeighboursPage]:
    pages = [read_neighbours(graph.seen(), query, SETTINGS, totals)]
    while (after := pages[-1].after) is not None:
        following = NeighboursQuery(**{name: getattr(query, name) for name in query.__slots__} | {"after": after})
        pages.append(read_neighbours(graph.seen(), following, SETTINGS, totals))
    return pages


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lost=st.sets(nodes, max_size=2),
    edges=edge_lists,
    hops=st.integers(1, 3),
    direction=st.sampled_from(Direction),
    wanted=st.sets(st.sampled_from((*TYPES, "Never"))),
    shown=st.sampled_from([(), ("T",), ("U",)]),
    limit=st.sampled_from([1, 2, 100]),
    group=st.sampled_from([None, 1, 2, 32]),
    hub=st.sampled_from([0, 2, 5]),
    broad=st.sampled_from([0, 1000]),
    pairs=st.sampled_from([0, 1000]),
)
def test_pages_are_the_neighbourhood_and_its_relationships_once(
    graph: Graph,
    lost: set[Place],
    edges: list[tuple[str, Place, Place, bool]],
    hops: int,
    direction: Direction,
    wanted: set[str],
    shown: tuple[str, ...],
    limit: int,
    group: int | None,
    hub: int,
    broad: int,
    pairs: int,
) -> None:
    case = f"case {next(_cases)}"
    records = records_of(case, lost, edges)
    graph.write(records)
    root, types = EntityQuery("t", case, *NODES[0]), tuple(sorted(wanted))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cluster.query.cypher.PAIRS_MAX", pairs)
        if group is not None:  # as if the graph had very many types
            for name, value in (
                ("GROUP", group),
                ("HUB", hub),
                ("MANY", 0),
                ("LOOK_UPS", hub),
                ("BROAD", broad),
                ("SAMPLE", 1),
            ):
                patch.setattr(f"cluster.query.types.{name}", value)
        query = NeighboursQuery("t", case, *NODES[0], hops, limit, types, shown, direction)
        pages = all_pages(graph, query, TypeTotals() if group else None)

    def is_shown(place: Place) -> bool:
        return not shown or place[0] in shown

    reached = distances(records, root, hops, direction, types)
    assert [(e.hops, e.type, e.id) for page in pages for e in page.entities] == sorted(
        (far, *place) for place, far in reached.items() if is_shown(place)
    )
    found = sorted(
        ((link.type, link.id), ((link.from_.type, link.from_.id), (link.to.type, link.to.id)))
        for page in pages
        for link in page.relationships
    )
    assert found == sorted(leading(records, root, hops, direction, types, is_shown).items())
    assert all(page.truncated == [] for page in pages)


def test_a_relationship_with_itself_shows_once_however_it_is_asked_for(graph: Graph) -> None:
    graph.write([entity("t", "c", "T", "0"), entity("t", "c", "T", "1")])
    graph.write(
        [
            relationship("t", "c", "R", "own", ("T", "0"), ("T", "0")),
            relationship("t", "c", "R", "there", ("T", "0"), ("T", "1")),
            relationship("t", "c", "R", "far", ("T", "1"), ("T", "1")),
        ]
    )
    for direction in Direction:
        for hops in (1, 2, 3):
            page = read_neighbours(
                graph.seen(), NeighboursQuery("t", "c", "T", "0", hops, 10, direction=direction), SETTINGS
            )
            led = {"there", "far"} if direction != Direction.IN else set()
            assert [link.id for link in page.relationships] == sorted({"own", *led})
            assert page.truncated == []
    alone = read_neighbours(graph.seen(), NeighboursQuery("t", "c", "T", "0", 1, 10, ("Never",)), SETTINGS)
    assert (alone.entities, alone.relationships) == ([], [])
