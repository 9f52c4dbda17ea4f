from __future__ import annotations

from typing import Any

import pytest

from cluster.config import Settings
from cluster.errors import Rejected
from cluster.query import validate
from cluster.query.ir import Detail, Direction, EntityQuery, PropertyFilter
from cluster.query.validate import QueryLimits

LIMITS = QueryLimits(Settings().query, Settings().records)
ENTITY = EntityQuery("t", "c", "T", "x")


@pytest.mark.parametrize(
    ("case", "type", "id"),
    [
        ("", "T", "x"),
        ("c" * 257, "T", "x"),
        ("c", "T", ""),
        ("c", "T", "x" * 1025),
        ("c\x00", "T", "x"),
        ("c", "T", "\ud800"),
    ]
    + [("c", type, "x") for type in ("", "1", "T`", "a b", "T'", "T)-[r]-(", "T" * 65, "T\n", "Ä", "_T", ":T")],
)
def test_names_that_are_refused(case: str, type: str, id: str) -> None:
    with pytest.raises(Rejected):
        validate.entity_query(LIMITS, "t", case, type, id)


def test_longest_names_and_any_characters_pass() -> None:
    query = validate.entity_query(LIMITS, "t", "c/" * 128, "T" * 64, "../`'\"\\\n" * 113)
    assert query.id.startswith("../`")


@pytest.mark.parametrize(
    "wrong",
    [
        {"hops": 0},
        {"hops": 4},
        {"hops": 10**9},
        {"limit": 0},
        {"limit": 1001},
        {"limit": 10**9},
        {"direction": "up"},
        {"detail": "all"},
        {"relationship_types": ["R`"]},
        {"entity_types": ["T|U"]},
        {"relationship_types": [f"R{n}" for n in range(65)]},
    ],
)
def test_neighbourhoods_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        validate.neighbours_query(LIMITS, ENTITY, **wrong)


def test_neighbourhood_is_normal() -> None:
    query = validate.neighbours_query(LIMITS, ENTITY, 2, None, ["S", "R", "S"], [], "out", "full")
    assert (query.relationship_types, query.limit, query.direction, query.detail) == (
        ("R", "S"),
        100,
        Direction.OUT,
        Detail.FULL,
    )


@pytest.mark.parametrize(
    "text", ["name", "=x", "id=1", "tenant=x", "case=c", "_v=1", "_k=x", "a`b=1", "a b=1", "a=\x00", 'a="\x00"']
)
def test_filters_that_are_refused(text: str) -> None:
    with pytest.raises(Rejected):
        validate.property_filter(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=x", ("x",)),
        ("a=", ("",)),
        ("a=1", ("1", 1)),
        ("a=1.5", ("1.5", 1.5)),
        ("a=true", ("true", True)),
        ('a="1"', ("1",)),
        ("a=null", ("null",)),
        ("a=[1]", ("[1]",)),
        ("a=NaN", ("NaN",)),
        ("a=1e999", ("1e999",)),
        (f"a={2**63}", (str(2**63),)),
        ("a=b=c", ("b=c",)),
        ("a=" + "[" * 4000, ("[" * 4000,)),
    ],
)
def test_filter_values_are_read_as_text_and_as_what_they_look_like(text: str, values: tuple[object, ...]) -> None:
    assert validate.property_filter(text) == PropertyFilter("a", values)  # type: ignore[arg-type]


def test_search_is_bounded() -> None:
    with pytest.raises(Rejected):
        validate.search_query(LIMITS, "t", text="x" * 257)
    with pytest.raises(Rejected):
        validate.search_query(LIMITS, "t", filters=["a=1"] * 17)
    assert validate.search_query(LIMITS, "t").limit == LIMITS.query.page_default
