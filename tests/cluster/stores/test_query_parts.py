"""Which pages go as one query. Pure."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from cluster.batch import frame_of
from cluster.databases import FALKORDB, NEO4J
from cluster.dialect import NODE_LABELS
from cluster.model import Kind
from cluster.stores.query_parts import Going, Query, QueryParts, Way, template
from cluster.stores.shard_rows import Group, Page
from tests.strategies import make

EDGE = int(Kind.RELATIONSHIP)
NODES: list[Group] = [(0, "Entity"), (2, "Claim"), (9, "Overlay")]
ROWS = frame_of([make("t", "c", 0, "person", f"p{n}", "crm", n + 1) for n in range(9)])


def going(group: Group, rows: int = 1, way: Way = Way.CREATE) -> Going:
    return Going(Page(group, ROWS[:rows], [str(n) for n in range(rows)], [], False), way)


def named(queries: list[Query]) -> list[tuple[list[str], list[str]]]:
    """Of each query, names of those of its parts that have rows, and of all others."""
    parts = [([part.group for part in query.parts], query.going) for query in queries]
    return [([g[1] for g in groups if g in has], [g[1] for g in groups if g not in has]) for groups, has in parts]


def test_labels_are_named_as_their_rows_are() -> None:
    assert {name for _, name in NODES} == set(NODE_LABELS)


def test_where_a_query_costs_little_each_page_has_its_own() -> None:
    pages = [going(NODES[0]), going((EDGE, "A")), going((EDGE, "B"))]
    assert named(list(QueryParts(0, 9).queries(pages))) == [(["Entity"], []), (["A"], []), (["B"], [])]


def met(*types: str, types_at_once: int = 3, write_rows: int = 9) -> QueryParts:
    parts = QueryParts(types_at_once, write_rows)
    parts.meet(types)
    return parts


def test_types_that_were_met_have_a_part_also_without_rows() -> None:
    parts = met("A", "C")
    first = list(parts.queries([going((EDGE, "A")), going((EDGE, "C"))]))
    assert named(first) == [(["A", "C"], [])]
    parts.meet(["D", "B", "A"])
    assert named(list(parts.queries([going(NODES[0]), going((EDGE, "D"))]))) == [(["Entity", "D"], ["A", "C"])]
    assert named(list(parts.queries([going((EDGE, "A")), going((EDGE, "B"))]))) == [(["A"], ["C", "D"]), (["B"], [])]


def test_what_goes_another_way_or_is_no_entity_goes_in_another_query() -> None:
    pages = [
        going(NODES[0], way=Way.UPSERT), going((EDGE, "A"), way=Way.LOOK), going((EDGE, "B")),
        going((EDGE, "C"), way=Way.LOOK), going(NODES[1]), going(NODES[2]),
    ]  # fmt: skip
    queries = list(met("A", "B", "C").queries(pages))
    alone = [(["Claim"], []), (["Overlay"], [])]
    assert named(queries) == [(["Entity", "B"], ["A", "C"]), (["A", "C"], ["B"]), *alone]
    assert [{part.way for part in query.parts} for query in queries[:2]] == [{Way.UPSERT, Way.CREATE}, {Way.LOOK}]


def test_the_text_has_each_part_under_one_guard() -> None:
    (query,) = met("A#1").queries([going(NODES[0]), going((EDGE, "A#1"))])
    text = template(NEO4J, query.parts)
    assert text.count("raised = $epoch") == 1
    assert text.count("CALL () {") == 2
    assert text.endswith("RETURN o0, o1")
    assert "[n:`A#1`]" in text, "a type is left as it is"
    (alone,) = QueryParts(0, 9).queries([going(NODES[0])])
    assert "CALL" not in template(FALKORDB, alone.parts)


TYPES = [f"T{n}" for n in range(7)]
GROUPS: list[Group] = [*NODES, *((EDGE, name) for name in TYPES)]
SIZES = st.lists(st.tuples(st.sampled_from(GROUPS), st.integers(1, 5)), max_size=30)
WAYS = st.dictionaries(st.sampled_from([name for _, name in GROUPS]), st.sampled_from(Way))


def pages_of(sizes: list[tuple[Group, int]], ways: dict[str, Way]) -> list[Going]:
    return [going(group, rows, ways.get(group[1], Way.CREATE)) for group, rows in sorted(sizes, key=lambda s: s[0])]


@given(SIZES, WAYS, st.integers(0, 4))
def test_each_page_goes_once_and_those_of_a_group_in_their_order(
    sizes: list[tuple[Group, int]], ways: dict[str, Way], types_at_once: int
) -> None:
    pages = pages_of(sizes, ways)
    queries = list(met(*TYPES, types_at_once=types_at_once, write_rows=5).queries(pages))
    sent = [one for query in queries for one in query.going.values()]
    assert len(sent) == len(pages)
    for group, mine in groupby(pages, key=lambda one: one.page.group):
        assert list(map(id, mine)) == [id(one) for one in sent if one.page.group == group]
    for query in queries:
        assert sum(one.page.rows.height for one in query.going.values()) <= 5
        assert query.going.keys() <= {part.group for part in query.parts}
        assert sum(part.group[0] == EDGE for part in query.parts) <= max(1, types_at_once)
        assert all(query.going[part.group].way is part.way for part in query.parts if part.group in query.going)
        assert len({part.way for part in query.parts if part.group[0] == EDGE}) < 2
        assert [part.group[0] for part in query.parts] == sorted(part.group[0] for part in query.parts)


@given(st.lists(st.tuples(SIZES, WAYS), max_size=30))
def test_texts_are_few(batches: list[tuple[list[tuple[Group, int]], dict[str, Way]]]) -> None:
    parts, ways = met(*TYPES, types_at_once=10, write_rows=5), len(Way)
    texts = {query.parts for batch in batches for query in parts.queries(pages_of(*batch))}
    assert len(texts) <= (ways + 1) * (ways + 1) - 1 + 2 * ways
