"""Rows made by the column equal the rows made by the record, whatever the record."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.batch import frame_of, records_of
from cluster.ids import store_key, void_key
from cluster.model import Kind, Op, Record
from cluster.stores.neo4j_rows import pages, row
from cluster.stores.shard_rows import group_of, key_of
from cluster.values import canonical_json
from cluster.versions import epoch_of
from tests.strategies import facts, make


@settings(max_examples=200, deadline=None)
@given(st.lists(facts(), max_size=12), st.integers(1, 5))
def test_rows_by_the_column_are_those_by_the_record(rows: list[Record], write_rows: int) -> None:
    found = pages(frame_of(rows), write_rows)
    assert [page.group for page in found] == sorted(page.group for page in found)
    seen: list[Record] = []
    for page in found:
        of_page = records_of(page.rows)
        assert 0 < len(of_page) <= write_rows
        assert {group_of(record) for record in of_page} == {page.group}
        assert page.body == list(map(row, of_page))
        assert page.keys == list(map(key_of, of_page))
        assert page.mixed == (len({(r.tenant, r.source, epoch_of(r.stamp)) for r in of_page}) > 1)
        seen += of_page
    assert sorted(seen) == sorted(rows)


@pytest.mark.parametrize("value", [1, 1.0, -0.0, 5e-324, 2**63 - 1, "a'\"\\", [], [0.1 + 0.2], [True], ""])
def test_a_value_is_a_parameter_as_it_is(value: object) -> None:
    made = row(make("t", "c", Kind.ENTITY, "person", "p", "crm", 1, props=canonical_json({"v": value})))
    assert repr(made["v"]) == repr(value)
    assert msgspec.json.decode(made["_x"])[7] is None


def test_ends_and_marks() -> None:
    edge = make("t", "c", Kind.RELATIONSHIP, "KNOWS", "r", "crm", 1, ends=("person", "p", "org", "o"))
    ends = store_key("t", "c", "person", "p"), store_key("t", "c", "org", "o")
    assert (row(edge)["a"], row(edge)["b"]) == ends
    gone = row(make("t", "c", Kind.RELATIONSHIP, "KNOWS", "r", "crm", 2, op=Op.DELETE), "[]")
    assert (gone["a"], gone["b"], gone["p"]["_d"], gone["p"]["_m"]) == (*[void_key("t", "c")] * 2, True, "[]")
