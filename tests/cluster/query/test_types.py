from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import QuerySettings
from cluster.errors import Corrupt, NotFound, Unavailable
from cluster.query.cypher import FALKORDB, Statement, frontier
from cluster.query.hot import Rows, Shard
from cluster.query.ir import NeighboursQuery
from cluster.query.neighbours import read_neighbours
from cluster.query.types import EVERY, GROUP, TENANTS_KEPT, TOTAL_S, HopTypes, grouped
from cluster.stores.control import open_control
from tests.cluster.query.facts import Graph, entity, relationship

SETTINGS = QuerySettings()


class Registry:
    """Names by tenant, and how often the whole list was read."""

    def __init__(self, **names: set[str]) -> None:
        self.names = names
        self.listed = self.counted = 0
        self.down = False

    def count(self, tenant: str, space: str) -> int:
        assert space == "relationship_type"
        self.counted += 1
        if self.down:
            raise Unavailable("down")
        return len(self.names.get(tenant, ()))

    def list(self, tenant: str, space: str) -> frozenset[str]:
        self.listed += 1
        if self.down:
            raise Unavailable("down")
        return frozenset(self.names.get(tenant, ()))


def shard_of(total: Callable[[], int]) -> Shard:
    """A shard that says how many types it has."""

    def read(statement: Statement) -> Rows:
        assert statement.template.startswith("CALL db.relationshipTypes()")
        return [[total()]]

    return Shard(read, 1, name="shard-0")


def many(number: int) -> set[str]:
    return {f"Type_{n}" for n in range(number)}


def test_own_types_are_named_where_the_graph_has_more_of_others() -> None:
    types = HopTypes(Registry(t={"S", "R"}))
    assert types.groups(shard_of(lambda: 500), "t", ()) == (("R", "S"),)
    assert types.groups(shard_of(lambda: 500), "t", ("R", "X", "Y")) == (("R",),)
    assert types.groups(shard_of(lambda: 500), "t", ("X",)) == ()
    assert types.groups(shard_of(lambda: 500), "nobody", ()) == ()


def test_a_tenant_that_has_most_types_hops_untyped_until_they_are_many() -> None:
    assert HopTypes(Registry(t=many(9))).groups(shard_of(lambda: 10), "t", ()) == EVERY
    alone = HopTypes(Registry(t=many(500))).groups(shard_of(lambda: 500), "t", ())
    assert {name for group in alone for name in group} == many(500)
    assert max(map(len, alone)) == GROUP


def test_a_type_registered_a_moment_ago_is_named() -> None:
    registry = Registry(t={"R"})
    types, shard = HopTypes(registry), shard_of(lambda: 500)
    assert types.groups(shard, "t", ()) == (("R",),)
    assert types.groups(shard, "t", ("New",)) == ()
    registry.names["t"].add("New")
    assert types.groups(shard, "t", ()) == (("New", "R"),)
    assert types.groups(shard, "t", ("New",)) == (("New",),)
    assert registry.listed == 2  # only a number is asked for where nothing is new


def test_what_another_process_registers_is_named_at_once(tmp_path: Path) -> None:
    mine, theirs = (open_control(f"sqlite:///{tmp_path}/control.db") for _ in range(2))
    try:
        types, shard = HopTypes(mine.names), shard_of(lambda: 500)
        assert types.groups(shard, "t", ()) == ()
        for known in (["R"], ["R", "S"], ["R", "S", "T"]):
            theirs.names.register("t", "relationship_type", known, 500)
            theirs.names.register("t", "property_name", ["x", "y"], 500)
            theirs.names.register("u", "relationship_type", ["U"], 500)
            assert types.groups(shard, "t", ()) == (tuple(known),)
    finally:
        mine.close()
        theirs.close()


def test_an_old_total_never_hides_a_type() -> None:
    now, total = [0.0], [1]
    registry = Registry(t={"R"})
    types, shard = HopTypes(registry, lambda: now[0]), shard_of(lambda: total[0])
    assert types.groups(shard, "t", ()) == EVERY
    total[0] = 500
    registry.names["t"].add("New")
    assert types.groups(shard, "t", ()) == EVERY  # the total is as old as it may be
    now[0] = TOTAL_S + 1
    assert types.groups(shard, "t", ()) == (("New", "R"),)


def test_without_the_control_store_hops_are_untyped() -> None:
    registry = Registry(t={"R"})
    types, shard = HopTypes(registry), shard_of(lambda: 500)
    types.groups(shard, "t", ())
    registry.down = True
    assert types.groups(shard, "t", ()) == EVERY
    assert types.groups(shard, "t", ("R",)) == EVERY


def test_what_is_kept_is_bounded() -> None:
    registry = Registry(**{f"t{n}": {"R"} for n in range(TENANTS_KEPT + 5)})
    types = HopTypes(registry)
    for n in range(TENANTS_KEPT + 5):
        assert types.groups(shard_of(lambda: 500), f"t{n}", ()) == (("R",),)
    assert len(types._kept) <= TENANTS_KEPT


@given(st.lists(st.text(min_size=1, max_size=3), max_size=200, unique=True))
def test_groups_hold_every_type_once(names: list[str]) -> None:
    groups = grouped(tuple(names))
    assert [name for group in groups for name in group] == names
    assert all(0 < len(group) <= GROUP for group in groups)


@pytest.mark.parametrize("name", ["R`]-(x) DELETE x//", "R S", "", "R\n", "é"])
def test_what_is_no_type_is_never_part_of_a_template(name: str) -> None:
    query = NeighboursQuery("t", "c", "T", "0", 1, 10)
    with pytest.raises(Corrupt):
        frontier(query, 1, ["k"], 10, FALKORDB, False, [name])


@pytest.mark.services
def test_tenants_of_one_graph_see_their_own_types_whatever_is_named(graph: Graph) -> None:
    mine, others = sorted(many(GROUP + 3)), [f"Other{n}" for n in range(3 * GROUP)]
    for tenant, names in (("t", mine), ("u", others)):
        graph.write([entity(tenant, "c", "T", str(n)) for n in range(len(names) + 1)])
        graph.write(
            [relationship(tenant, "c", name, "r", ("T", "0"), ("T", str(n + 1))) for n, name in enumerate(names)]
        )
    registry = Registry(t=set(mine), u=set(others), empty=set())
    asked: list[str] = []

    def read(statement: Statement) -> Rows:
        asked.append(statement.template)
        return graph.client.read(statement.template, statement.parameters, 10.0)

    shard = Shard(read, graph.seen().epoch, name="shard-0")
    types = HopTypes(registry)
    for tenant, names in (("t", mine), ("u", others)):
        for wanted in ((), tuple(names[:2]), (names[0], "Never"), ("Never",)):
            query = NeighboursQuery(tenant, "c", "T", "0", 2, 1000, wanted)
            page = read_neighbours(shard, query, SETTINGS, types)
            assert {link.type for link in page.relationships} == (set(names) & set(wanted) if wanted else set(names))
            assert page == read_neighbours(shard, query, SETTINGS)
    assert not any("Other" in template and "Type_" in template for template in asked)
    assert any("`Type_1`" in template for template in asked)
    for tenant, case in (("empty", "c"), ("t", "no case")):
        with pytest.raises(NotFound):
            read_neighbours(shard, NeighboursQuery(tenant, case, "T", "0", 1, 10), SETTINGS, types)


@pytest.mark.services
def test_a_statement_that_was_planned_before_its_type_existed_sees_it_afterwards(graph: Graph) -> None:
    graph.write([entity("t", "c", "T", "0"), entity("t", "c", "T", "1")])
    graph.write([relationship("t", "c", "R", "r", ("T", "0"), ("T", "0"))])
    types = HopTypes(Registry(t={"R", "Later", "Never"}))
    query = NeighboursQuery("t", "c", "T", "0", 1, 10, ("Later", "Never", "R"))
    for wanted in (["r"], ["late", "r"]):
        for _ in range(3):
            page = read_neighbours(graph.seen(), query, SETTINGS, types)
            assert sorted(link.id for link in page.relationships) == wanted
        graph.write([relationship("t", "c", "Later", "late", ("T", "1"), ("T", "0"))])
