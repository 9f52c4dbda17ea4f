from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config import Settings
from cluster.errors import Fenced, NotFound
from cluster.ids import bucket_of
from cluster.model import Kind, Op
from cluster.query import hot, validate
from cluster.query.answers import CasesPage
from cluster.query.ir import CasesQuery, EntityQuery, PropertyFilter, SearchQuery
from cluster.query.validate import QueryLimits
from tests.cluster.query.facts import ALL, EPOCH, Graph, entity, record, relationship

pytestmark = pytest.mark.services
LIMITS = QueryLimits(Settings().query, Settings().records)


def found(graph: Graph, tenant: str, case: str | None, **asked: object) -> list[tuple[str, str, str]]:
    query = validate.search_query(LIMITS, tenant, case, **asked)  # type: ignore[arg-type]
    return [(item.case, item.type, item.id) for item in hot.search(graph.seen(), query).items]


def test_entity_shows_properties_exactly_with_its_source(graph: Graph) -> None:
    props = {
        "score": 0.1 + 0.2,
        "big": 1e22,
        "tiny": 5e-324,
        "n": 2**53 + 1,
        "whole": 1.0,
        "list": [0.1 + 0.2, 1.0],
        "text": "a'\"\\\n",
    }
    graph.write([entity("t", "c", "Person", "a/b", props=props, at=7)])
    view = hot.read_entity(graph.seen(), EntityQuery("t", "c", "Person", "a/b"))
    assert msgspec.json.encode(view.props, order="sorted") == msgspec.json.encode(props, order="sorted")
    (source,) = view.sources
    assert (source.source, source.epoch, source.position, source.live) == ("s1", 0, (7,), True)
    assert view.event_time == "2026-01-02T03:04:05Z"


def test_sources_side_by_side_and_merged(graph: Graph) -> None:
    graph.write(
        [
            entity("t", "c", "Person", "p", props={"name": "B", "x": 0.1 + 0.2}, source="b"),
            entity("t", "c", "Person", "p", props={"name": "A"}, source="a", at=4),
            entity("t", "c", "Person", "p", props={}, source="gone", op=Op.DELETE, at=9),
        ]
    )
    view = hot.read_entity(graph.seen(), EntityQuery("t", "c", "Person", "p"))
    assert view.props == {"name": "A", "x": 0.1 + 0.2}
    assert [(s.source, s.live, s.props, s.position) for s in view.sources] == [
        ("a", True, {"name": "A"}, (4,)),
        ("b", True, {"name": "B", "x": 0.1 + 0.2}, (1,)),
        ("gone", False, {}, (9,)),
    ]


def test_claims_and_overlays_of_an_entity(graph: Graph) -> None:
    of = ("Person", "p")
    graph.write(
        [
            entity("t", "c", *of),
            entity("t", "c", "Person", "q"),
            record("t", "c", Kind.CLAIM, "Alias", "1", {"page": 3}, a=of, claim=["known as", "Pea", 0.5]),
            record("t", "c", Kind.CLAIM, "Alias", "2", {}, op=Op.DELETE),
            record("t", "c", Kind.CLAIM, "Alias", "3", {}, a=("Person", "q"), claim=["other", 1, None]),
            entity("t", "c", *of, props={"rank": 1, "score": 0.1 + 0.2}, source="overlay/pagerank", at=5),
            entity("t", "c", *of, props={"community": "x", "asOf": '{"time":"2026-02-01"}'}, source="overlay/louvain"),
        ]
    )
    view = hot.read_entity(graph.seen(), EntityQuery("t", "c", *of))
    (claim,) = view.claims
    assert (claim.predicate, claim.value, claim.confidence, claim.props) == ("known as", "Pea", 0.5, {"page": 3})
    assert claim.sources[0].claim == ("known as", "Pea", 0.5)
    assert view.overlays == {
        "pagerank": {"rank": 1, "score": 0.1 + 0.2, "asOf": "2026-01-02T03:04:05Z", "run": 5},
        "louvain": {"community": "x", "asOf": {"time": "2026-02-01"}, "run": 1},
    }
    assert view.props == {"name": "p"}


@pytest.mark.parametrize("id", ["absent", "deleted", "waiting", "annotated"])
def test_what_is_not_visible_is_not_found(graph: Graph, id: str) -> None:
    graph.write(
        [
            entity("t", "c", "T", "seen"),
            entity("t", "c", "T", "deleted", op=Op.DELETE),
            relationship("t", "c", "R", "r", ("T", "seen"), ("T", "waiting")),
            entity("t", "c", "T", "annotated", source="overlay/pagerank", props={"rank": 1}),
        ]
    )
    with pytest.raises(NotFound):
        hot.read_entity(graph.seen(), EntityQuery("t", "c", "T", id))
    assert found(graph, "t", "c") == [("c", "T", "seen")] == found(graph, "t", None)


def test_another_tenant_or_case_is_not_found(graph: Graph) -> None:
    graph.write([entity("t", "c", "T", "x")])
    for tenant, case in (("u", "c"), ("t", "d"), ("", "tc"), ("tc", "")):
        with pytest.raises(NotFound):
            hot.read_entity(graph.seen(), EntityQuery(tenant, case, "T", "x"))
    assert found(graph, "u", None) == [] == found(graph, "u", "c")
    assert hot.list_cases(graph.seen(), validate.cases_query(LIMITS, "u")).items == []


def test_wrong_epoch_or_bucket_is_fenced_and_nothing_is_told(graph: Graph) -> None:
    graph.write([entity("t", "c", "T", "x")])
    graph.shard.own(EPOCH, set(ALL) - {bucket_of("t", "c")})
    late, moved = graph.seen(EPOCH - 1), graph.seen()
    for shard in (late, moved):
        with pytest.raises(Fenced):
            hot.read_entity(shard, EntityQuery("t", "c", "T", "x"))
        for case in ("c", None):
            with pytest.raises(Fenced):
                hot.search(shard, validate.search_query(LIMITS, "t", case))
        with pytest.raises(Fenced):
            hot.list_cases(shard, validate.cases_query(LIMITS, "t"))
    rest = graph.seen(buckets=tuple(set(ALL) - {bucket_of("t", "c")}))
    assert hot.search(rest, validate.search_query(LIMITS, "t")).items == []
    assert hot.list_cases(rest, validate.cases_query(LIMITS, "t")).items == []


def test_epoch_that_is_raised_but_does_not_serve_refuses_reads(graph: Graph) -> None:
    graph.write([entity("t", "c", "T", "x")])
    graph.shard.raise_epoch(EPOCH + 1)
    for epoch in (EPOCH, EPOCH + 1):
        with pytest.raises(Fenced):
            hot.read_entity(graph.seen(epoch), EntityQuery("t", "c", "T", "x"))


def test_search_finds_text_types_and_properties(graph: Graph) -> None:
    graph.write(
        [
            entity("t", "c1", "Person", "1", props={"name": "Ada LOVELACE", "age": 36}),
            entity("t", "c1", "Person", "2", props={"title": "lovelace's notes", "age": 36.5}),
            entity("t", "c1", "Book", "love", props={"name": 7, "seen": True}),
            entity("t", "c2", "Person", "3", props={"name": "lovelace", "age": "36"}),
            entity("u", "c1", "Person", "4", props={"name": "lovelace"}),
            entity("t", "c2", "Person", "5", props={"label": "ÄRGER", "list": ["a", "b"]}),
        ]
    )
    one, two, book, three, five = (
        ("c1", "Person", "1"),
        ("c1", "Person", "2"),
        ("c1", "Book", "love"),
        ("c2", "Person", "3"),
        ("c2", "Person", "5"),
    )
    assert found(graph, "t", None, text="LoveLace") == [one, two, three]
    assert found(graph, "t", "c1", text="love") == [book, one, two]
    assert found(graph, "t", "c1", text="7") == [book]
    assert found(graph, "t", None, types=["Book"]) == [book]
    assert found(graph, "t", None, filters=["age=36"]) == [one, three]
    assert found(graph, "t", None, filters=['age="36"']) == [three]
    assert found(graph, "t", None, filters=["age=36", "name=lovelace"]) == [three]
    assert found(graph, "t", "c1", filters=["seen=true"]) == [book]
    assert found(graph, "t", None, text="ärger") == [five]
    assert found(graph, "t", None, filters=["absent=1"]) == []


def test_search_pages_visit_everything_once(graph: Graph) -> None:
    wanted = [(f"c{n % 3}", f"T{n % 2}", f"i{n:02}") for n in range(23)]
    graph.write([entity("t", *place) for place in wanted])
    for case in (None, "c1"):
        got: list[tuple[str, str, str]] = []
        query = SearchQuery("t", case, 4)
        while True:
            page = hot.search(graph.seen(), query)
            got += [(f.case, f.type, f.id) for f in page.items]
            if not page.more:
                break
            query = SearchQuery("t", case, 4, after=got[-1])
        assert got == sorted(place for place in wanted if case in (None, place[0]))


def test_cases_page_by_name(graph: Graph) -> None:
    names = ["b", "a/x", "Ünï", "z'\"`", "a"]
    graph.write([entity("t", case, "T", "1") for case in names])
    first = hot.list_cases(graph.seen(), validate.cases_query(LIMITS, "t", 3))
    assert first == CasesPage(sorted(names)[:3], sorted(names)[2])
    rest = hot.list_cases(graph.seen(), CasesQuery("t", 3, after=sorted(names)[2]))
    assert rest == CasesPage(sorted(names)[3:])


_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=_text | st.sampled_from(["`", "'", '"', "\\", "'})//", "$text", "{0}", "\n", "%", "*", "\u202e"]),
    n=st.integers(0, 3),
)
def test_hostile_texts_are_values_and_nothing_else(graph: Graph, text: str, n: int) -> None:
    graph.write([entity("t", "h", "T", text, props={"name": text}), entity("t", "h", "T", "other")])
    before = graph.client.read("MATCH (x) RETURN count(x)", {})
    assert hot.read_entity(graph.seen(), EntityQuery("t", "h", "T", text)).props["name"] == text
    filters = tuple(PropertyFilter("name", (text, n)) for _ in range(n))
    hits = hot.search(graph.seen(), SearchQuery("t", "h", 100, text=text, filters=filters)).items
    assert ("T", text) in {(hit.type, hit.id) for hit in hits}
    for case in (text, None):
        hot.search(graph.seen(), SearchQuery(text, case, 5, text=text, types=(text,), after=(text, text, text)))
    assert graph.client.read("MATCH (x) RETURN count(x)", {}) == before
