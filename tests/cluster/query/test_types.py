from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import QuerySettings
from cluster.databases import FALKORDB
from cluster.errors import Corrupt, NotFound
from cluster.query.cypher import Statement, frontier
from cluster.query.hot import Rows, Shard
from cluster.query.ir import NeighboursQuery
from cluster.query.neighbours import read_neighbours
from cluster.query.types import GROUP, HUB, LOOK_UPS, TOTAL_S, TypeTotals, few, grouped, split
from tests.cluster.query.facts import Graph, entity, relationship

SETTINGS = QuerySettings()
keys = st.text("abc", min_size=1, max_size=3)


def shard_of(total: list[int]) -> Shard:
    """A shard that says how many types it has."""

    def read(statement: Statement) -> Rows:
        assert statement.template.startswith("CALL db.relationshipTypes()")
        return [[n] for n in total]

    return Shard(read, 1, name="shard-0")


def asking(graph: Graph, asked: list[str]) -> Shard:
    """The shard of a graph, which notes what it is asked."""

    def read(statement: Statement) -> Rows:
        asked.append(statement.template)
        return graph.client.read(statement.template, statement.parameters, 10.0)

    return replace(graph.seen(), read=read, name="shard-0", at_once=None)


def many(number: int) -> list[str]:
    return sorted(f"Type_{n}" for n in range(number))


def test_the_total_is_read_again_after_a_while() -> None:
    now, total = [0.0], [1]
    totals, shard = TypeTotals(lambda: now[0]), shard_of(total)
    assert totals.total(shard) == 1
    total[0] = 500
    assert totals.total(shard) == 1
    now[0] = TOTAL_S + 1
    assert totals.total(shard) == 500


@pytest.mark.parametrize("rows", [[], [0]])
def test_a_graph_without_types_counts_as_one_of_few(rows: list[int]) -> None:
    assert few(TypeTotals().total(shard_of(rows))) == LOOK_UPS


def test_only_hubs_in_graphs_of_many_types_are_asked_for_their_types() -> None:
    degrees = {"leaf": 1, "some": HUB, "hub": HUB + 1}
    assert split(degrees, 1) == (["leaf", "some", "hub"], [])
    assert split(degrees, 500) == (["leaf", "some"], ["hub"])
    assert split({"leaf": 1}, LOOK_UPS + 1) == (["leaf"], [])


@given(st.dictionaries(keys, st.integers(0, 3 * HUB), max_size=20), st.integers(1, 2 * LOOK_UPS))
def test_every_entity_is_gone_from_once(degrees: dict[str, int], total: int) -> None:
    plain, hubs = split(degrees, total)
    assert sorted(plain + hubs) == sorted(degrees)


@given(st.lists(st.text(min_size=1, max_size=3), max_size=200, unique=True))
def test_groups_hold_every_type_once(names: list[str]) -> None:
    groups = grouped(names, ())
    assert [name for group in groups for name in group] == sorted(names)
    assert all(0 < len(group) <= GROUP for group in groups)
    assert grouped(names, tuple(names[:1])) == [(name,) for name in names[:1]]


@pytest.mark.parametrize("name", ["R`]-(x) DELETE x//", "R S", "", "R\n", "é"])
def test_what_is_no_type_is_never_part_of_a_template(name: str) -> None:
    query = NeighboursQuery("t", "c", "T", "0", 1, 10)
    with pytest.raises(Corrupt):
        frontier(query, 1, ["k"], 10, FALKORDB, False, [name])


@pytest.mark.services
@pytest.mark.parametrize("look_ups", [0, LOOK_UPS])
def test_tenants_of_one_graph_see_their_own_types_whatever_is_named(
    graph: Graph, look_ups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.query.types.LOOK_UPS", look_ups)
    monkeypatch.setattr("cluster.query.types.HUB", 1)
    mine, others = many(GROUP + 3), sorted(f"Other{n}" for n in range(3 * GROUP))
    for tenant, names in (("t", mine), ("u", others)):
        graph.write([entity(tenant, "c", "T", str(n)) for n in range(len(names) + 1)])
        graph.write(
            [relationship(tenant, "c", name, "r", ("T", "0"), ("T", str(n + 1))) for n, name in enumerate(names)]
        )
    asked: list[str] = []
    shard, totals = asking(graph, asked), TypeTotals()
    for tenant, names in (("t", mine), ("u", others)):
        for wanted in ((), tuple(names[:2]), (names[0], "Never"), ("Never",)):
            query = NeighboursQuery(tenant, "c", "T", "0", 2, 1000, wanted)
            page = read_neighbours(shard, query, SETTINGS, totals)
            assert {link.type for link in page.relationships} == (set(names) & set(wanted) if wanted else set(names))
            assert page == read_neighbours(shard, query, SETTINGS)
    assert not any("Other" in template and "Type_" in template for template in asked)
    assert any("`Type_1`" in template for template in asked) == (look_ups == 0)
    for tenant, case in (("empty", "c"), ("t", "no case")):
        with pytest.raises(NotFound):
            read_neighbours(shard, NeighboursQuery(tenant, case, "T", "0", 1, 10), SETTINGS, totals)


@pytest.mark.services
def test_a_type_that_only_the_shard_knows_shows(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a control store was put back: whatever other stores lack, and whoever else has the type, it is there."""
    monkeypatch.setattr("cluster.query.types.LOOK_UPS", 0)
    monkeypatch.setattr("cluster.query.types.HUB", 0)
    graph.write([entity(tenant, "c", "T", n) for tenant in ("t", "u") for n in ("0", "1", "2")])
    graph.write([relationship("u", "c", "Shared", "r", ("T", "0"), ("T", "1"))])
    totals = TypeTotals()
    for number, name in enumerate(("First", "Shared", "Later"), 1):
        graph.write([relationship("t", "c", name, name, ("T", "0"), ("T", str(number % 2 + 1)))])
        for wanted in ((), (name,)):
            query = NeighboursQuery("t", "c", "T", "0", 2, 10, wanted)
            page = read_neighbours(graph.seen(), query, SETTINGS, totals)
            assert {link.type for link in page.relationships} == set(wanted or ("First", "Shared", "Later")[:number])


@pytest.mark.services
def test_a_small_question_is_three_round_trips_however_many_types_there_are(graph: Graph) -> None:
    graph.write([entity("t", "c", "T", str(n)) for n in range(400)])
    graph.write(
        [relationship("t", "c", name, "r", ("T", "300"), ("T", str(301 + n % 9))) for n, name in enumerate(many(90))]
    )
    graph.write([relationship("t", "c", "Type_0", str(n), ("T", "0"), ("T", str(n))) for n in (1, 2, 3)])
    rounds: list[int] = []

    def at_once(statements: list[Statement]) -> list[Rows]:
        rounds.append(len(statements))
        return graph.client.read_all(statements, 10.0)

    totals = TypeTotals()
    shard = replace(graph.seen(), read=lambda s: at_once([s])[0], at_once=at_once)  # type: ignore[arg-type]
    assert totals.total(shard) >= 90
    rounds.clear()
    page = read_neighbours(shard, NeighboursQuery("t", "c", "T", "0", 2, 10), SETTINGS, totals)
    assert len(page.entities) == 3
    assert rounds == [1, 1, 3]


@pytest.mark.services
def test_a_statement_that_was_planned_before_its_type_existed_sees_it_afterwards(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.query.types.LOOK_UPS", 0)
    graph.write([entity("t", "c", "T", "0"), entity("t", "c", "T", "1")])
    graph.write([relationship("t", "c", "R", "r", ("T", "0"), ("T", "0"))])
    query = NeighboursQuery("t", "c", "T", "0", 1, 10, ("Later", "Never", "R"))
    for wanted in (["r"], ["late", "r"]):
        for _ in range(3):
            page = read_neighbours(graph.seen(), query, SETTINGS, TypeTotals())
            assert sorted(link.id for link in page.relationships) == wanted
        graph.write([relationship("t", "c", "Later", "late", ("T", "1"), ("T", "0"))])


@pytest.mark.services
def test_entities_with_other_types_than_those_asked_about_are_gone_from_untyped(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LOOK_UPS", 3), ("BROAD", 0), ("SAMPLE", 1)):
        monkeypatch.setattr(f"cluster.query.types.{name}", value)
    graph.write([entity("t", "c", "T", str(n)) for n in range(13)])
    graph.write([relationship("t", "c", "R", f"near{n}", ("T", "0"), ("T", str(n))) for n in (1, 2, 3)])
    far = [("R", 1), ("R", 2), ("S", 3), ("U", 2), ("S", 1)]
    graph.write(
        [
            relationship("t", "c", name, f"far{at}", ("T", str(n)), ("T", str(4 + at)))
            for at, (name, n) in enumerate(far)
        ]
    )
    asked: list[str] = []
    for wanted, ids in (((), "45678"), (("R",), "45"), (("R", "U"), "457")):
        query = NeighboursQuery("t", "c", "T", "0", 2, 100, wanted)
        page = read_neighbours(asking(graph, asked), query, SETTINGS, TypeTotals())
        assert [e.id for e in page.entities if e.hops == 2] == list(ids)
    degree = graph.client.dialect.typed_degree.format("a", "$names")
    assert any(f"a._k, {degree}" in template for template in asked)


@pytest.mark.services
@pytest.mark.parametrize("pairs", [0, 1000])
def test_relationships_both_ways_show_once_each(graph: Graph, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.query.types.MANY", 0)
    monkeypatch.setattr("cluster.query.cypher.PAIRS_MAX", pairs)
    graph.write([entity("t", "c", "T", n) for n in ("0", "1")])
    there, back = (("T", "0"), ("T", "1")), (("T", "1"), ("T", "0"))
    graph.write([relationship("t", "c", name, name + str(n), *ends) for n in (1, 2) for name, ends in
                 (("R", there), ("S", there), ("R2", back))])  # fmt: skip
    page = read_neighbours(graph.seen(), NeighboursQuery("t", "c", "T", "0", 1, 100), SETTINGS, TypeTotals())
    assert [link.id for link in page.relationships] == ["R1", "R2", "R21", "R22", "S1", "S2"]
