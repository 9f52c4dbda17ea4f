from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from cluster.config import QuerySettings
from cluster.errors import Fenced, NotFound
from cluster.model import Op, Record
from cluster.query.answers import NeighboursPage
from cluster.query.cypher import Statement
from cluster.query.ir import Detail, Direction, EntityQuery, NeighboursQuery
from cluster.query.neighbours import page_of, read_neighbours
from tests.cluster.query.facts import EPOCH, Graph, Place, distances, entity, leading, relationship

pytestmark = pytest.mark.services
SETTINGS = QuerySettings()
ROOT = EntityQuery("t", "c", "T", "0")


def asked(hops: int = 1, limit: int = 1000, id: str = "0", **more: object) -> NeighboursQuery:
    return NeighboursQuery("t", "c", "T", id, hops, limit, **more)  # type: ignore[arg-type]


def shown(page: NeighboursPage) -> dict[tuple[str, str], int]:
    return {(e.type, e.id): e.hops for e in page.entities}


def carried(pages: list[NeighboursPage]) -> list[tuple[Place, tuple[Place, Place]]]:
    return sorted(
        ((link.type, link.id), ((link.from_.type, link.from_.id), (link.to.type, link.to.id)))
        for page in pages
        for link in page.relationships
    )


def random_graph(seed: int) -> list[Record]:
    rnd = random.Random(seed)
    nodes = [(rnd.choice(["T", "U"]) if n else "T", str(n)) for n in range(25)]
    records = [
        entity("t", "c", *node, op=Op.DELETE if at and rnd.random() < 0.15 else Op.UPSERT)
        for at, node in enumerate(nodes)
        if not at or rnd.random() < 0.9  # the others wait for their record
    ]
    for n in range(45):
        dead = rnd.random() < 0.15
        ends = (rnd.choice(nodes), rnd.choice(nodes))
        records.append(
            relationship("t", "c", rnd.choice(["R", "S-1"]), str(n), *(((("", ""),) * 2) if dead else ends),
                         op=Op.DELETE if dead else Op.UPSERT, source=rnd.choice(["s1", "s2"]))
        )  # fmt: skip
    records.append(relationship("t", "c", "R", "two", nodes[0], nodes[1], source="s1"))
    records.append(relationship("t", "c", "R", "two", nodes[0], nodes[1], source="s2", props={"w": 0.1 + 0.2}))
    return records


@pytest.mark.parametrize("seed", range(6))
def test_neighbourhoods_are_those_of_the_fold(graph: Graph, seed: int) -> None:
    records = random_graph(seed)
    graph.write(records)
    graph.write([entity("t", "other", "T", "0"), relationship("t", "other", "R", "1", ("T", "0"), ("T", "99"))])
    for hops in (1, 2, 3):
        for direction in Direction:
            for types in ((), ("R",), ("S-1",)):
                query = asked(hops, relationship_types=types, direction=direction)
                page = read_neighbours(graph.seen(), query, SETTINGS)
                assert shown(page) == distances(records, ROOT, hops, direction, types)
                assert page.truncated == []
                assert [(e.hops, e.type, e.id) for e in page.entities] == sorted(
                    (e.hops, e.type, e.id) for e in page.entities
                )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pairs", [0, 10**6])
def test_every_entity_is_led_to_by_a_relationship_from_a_nearer_one(
    graph: Graph, seed: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.query.cypher.PAIRS_MAX", pairs)
    records = random_graph(seed)
    graph.write(records)
    page = read_neighbours(graph.seen(), asked(3), SETTINGS)
    distance = {**shown(page), ("T", "0"): 0}
    led = set()
    for link in page.relationships:
        a, b = (link.from_.type, link.from_.id), (link.to.type, link.to.id)
        assert abs(distance[a] - distance[b]) == 1 or a == b
        if a != b:
            led.add(max(a, b, key=lambda end: distance[end]))
    assert led == set(shown(page))
    assert carried([page]) == sorted(leading(records, ROOT, 3, Direction.ANY).items())


@pytest.mark.parametrize("pairs", [0, 10**6])
def test_links_have_their_own_direction_and_their_properties_on_demand(
    graph: Graph, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.query.cypher.PAIRS_MAX", pairs)
    ends = ("T", "0"), ("U", "1")
    graph.write([entity("t", "c", *ends[0]), entity("t", "c", *ends[1])])
    graph.write([relationship("t", "c", "R", "ab", *ends, props={"w": 0.1 + 0.2})])
    graph.write(
        [
            relationship("t", "c", "R", "ba", *reversed(ends)),
            relationship("t", "c", "R", "loop", ends[0], ends[0], props={"n": 1}),
        ]
    )
    full = read_neighbours(graph.seen(), asked(detail=Detail.FULL), SETTINGS)
    assert [(link.id, link.from_.id, link.to.id, link.props) for link in full.relationships] == [
        ("ab", "0", "1", {"w": 0.1 + 0.2}),
        ("ba", "1", "0", {}),
        ("loop", "0", "0", {"n": 1}),
    ]
    out = read_neighbours(graph.seen(), asked(direction=Direction.OUT), SETTINGS)
    assert [(link.id, link.props) for link in out.relationships] == [("ab", None), ("loop", None)]
    into = read_neighbours(graph.seen(), asked(direction=Direction.IN), SETTINGS)
    assert [link.id for link in into.relationships] == ["ba", "loop"]
    assert read_neighbours(graph.seen(), asked(detail=Detail.NONE), SETTINGS).relationships == []


def test_pages_make_the_whole(graph: Graph) -> None:
    graph.write(random_graph(1))
    whole = read_neighbours(graph.seen(), asked(3), SETTINGS)
    got, links, after = [], set(), None
    while True:
        page = read_neighbours(graph.seen(), asked(3, limit=4, after=after), SETTINGS)
        got += page.entities
        links |= {(link.type, link.id) for link in page.relationships}
        after = page.after
        if after is None:
            break
    assert got == whole.entities
    assert links == {(link.type, link.id) for link in whole.relationships}


def test_entity_types_choose_what_is_shown_not_the_way(graph: Graph) -> None:
    graph.write([entity("t", "c", *node) for node in (("T", "0"), ("U", "1"), ("T", "2"))])
    graph.write(
        [
            relationship("t", "c", "R", "1", ("T", "0"), ("U", "1")),
            relationship("t", "c", "R", "2", ("U", "1"), ("T", "2")),
        ]
    )
    page = read_neighbours(graph.seen(), asked(2, entity_types=("T",)), SETTINGS)
    assert shown(page) == {("T", "2"): 2}
    assert [link.id for link in page.relationships] == ["2"]


def star(graph: Graph, leaves: int) -> None:
    """0 — hub — many leaves, and 0 — a — b."""
    nodes = [("T", "0"), ("T", "hub"), ("T", "a"), ("T", "b"), *(("T", f"leaf{n}") for n in range(leaves))]
    graph.write([entity("t", "c", *node) for node in nodes])
    edges = [("0", "hub"), ("0", "a"), ("a", "b"), *(("hub", f"leaf{n}") for n in range(leaves))]
    graph.write([relationship("t", "c", "R", f"{a}-{b}", ("T", a), ("T", b)) for a, b in edges])


def test_nothing_is_asked_beyond_the_distance_at_which_the_page_is_full(graph: Graph) -> None:
    star(graph, 30)
    seen = graph.seen()
    asked_for: list[str] = []

    def read(statement: Statement) -> list[list[Any]]:
        asked_for.append(statement.template)
        return seen.read(statement)

    def hops_of(**options: Any) -> tuple[NeighboursPage, int]:
        asked_for.clear()
        page = read_neighbours(replace(seen, read=read), asked(3, **options), SETTINGS)
        return page, sum("count(*) AS paths" in template for template in asked_for)

    page, hops = hops_of(limit=1)
    assert ([e.id for e in page.entities], page.after, hops) == (["a"], (1, "T", "a"), 1)
    page, hops = hops_of(limit=2)
    assert ([e.id for e in page.entities], page.after, hops) == (["a", "hub"], (1, "T", "hub"), 2)
    page, hops = hops_of(limit=2, after=(1, "T", "hub"))
    assert ([e.id for e in page.entities], page.after, hops) == (["b", "leaf0"], (2, "T", "leaf0"), 2)
    page, hops = hops_of(limit=40)
    assert (len(page.entities), page.after, hops) == (33, None, 3)
    page, hops = hops_of(limit=1, entity_types=("U",))
    assert (page.entities, page.after, hops) == ([], None, 3)


def test_supernodes_are_shown_and_not_passed_through(graph: Graph) -> None:
    star(graph, 30)
    settings = QuerySettings(supernode_degree=20)
    page = read_neighbours(graph.seen(), asked(2), settings)
    assert shown(page) == {("T", "hub"): 1, ("T", "a"): 1, ("T", "b"): 2}
    assert (page.truncated, [s.id for s in page.supernodes]) == (["supernodes"], ["hub"])
    of_hub = read_neighbours(graph.seen(), asked(1, id="hub"), settings)
    assert len(of_hub.entities) == 31  # the entity that was asked for is always expanded
    assert of_hub.truncated == []


def test_paths_are_bounded_and_it_says_so(graph: Graph) -> None:
    star(graph, 30)
    page = read_neighbours(graph.seen(), asked(3), QuerySettings(neighbours_max=10))
    assert page.truncated == ["paths"]
    assert 1 <= len(page.entities) <= 10


def test_isolated_absent_and_fenced_are_told_apart(graph: Graph) -> None:
    graph.write([entity("t", "c", "T", "0"), entity("t", "c", "T", "gone", op=Op.DELETE)])
    assert read_neighbours(graph.seen(), asked(3), SETTINGS) == NeighboursPage([], [])
    for id in ("gone", "nobody"):
        with pytest.raises(NotFound):
            read_neighbours(graph.seen(), asked(2, id=id), SETTINGS)
    with pytest.raises(Fenced):
        read_neighbours(graph.seen(EPOCH + 1), asked(2), SETTINGS)


def test_last_page_has_no_successor() -> None:
    places = {"r": (0, "T", "0"), "a": (1, "T", "a"), "b": (1, "T", "b")}
    assert page_of(asked(limit=2), places) == (["a", "b"], None)
    assert page_of(asked(limit=1), places) == (["a"], (1, "T", "a"))
    assert page_of(asked(limit=1, after=(1, "T", "a")), places) == (["b"], None)
