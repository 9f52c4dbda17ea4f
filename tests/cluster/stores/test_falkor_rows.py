"""Texts made by the column equal the texts made by the record, whatever the record."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.batch import frame_of, records_of
from cluster.errors import Rejected
from cluster.model import Kind, Op, Record
from cluster.stores.falkor_rows import _PLAIN, pages
from cluster.stores.falkor_text import row
from cluster.stores.shard_rows import group_of, key_of
from cluster.values import canonical_json
from cluster.versions import epoch_of
from tests.strategies import facts, make, names

texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1, max_size=8)
awkward = st.sampled_from(
    ["it's", 'say "x":1', "back\\slash", "tab\t", "del\x7f", "é$1`{}", "[1,2]", "-0.0", "1e-300", "x,y:z"]
)
floats = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(
    floats,
    st.floats(-1, 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**53).map(float),
    st.sampled_from([0.1, -0.0, 0.0, 1e14, 1e15, 1e16, 1e17, 1e22, 123456789012345680.0, 123456789012345.0]),
    st.sampled_from([123456789012345.6, 1234567890123456.5, 100000000000000.02, 0.00012345678901234]),
    st.sampled_from([0.000123456789012345678, 1.2345678901234567e-5, 5e-324, 2.5e-308]),
)  # fmt: skip
properties = st.dictionaries(
    st.one_of(names, st.sampled_from(["A", "long_name-with.dots", "x1"])),
    st.one_of(
        numbers,
        texts,
        awkward,
        st.booleans(),
        st.lists(floats, max_size=3),
        st.lists(awkward, max_size=3),
    ),
    max_size=5,
).map(canonical_json)


@st.composite
def records(draw: st.DrawFn) -> Record:
    record: Record = draw(facts())
    changed = {
        "id": draw(texts | awkward),
        "props": draw(properties),
        "source": draw(st.sampled_from(("crm", "a'b", 'q"q'))),
    }
    if record.a_type and draw(st.booleans()):
        changed |= {"a_id": draw(texts | awkward), "b_id": draw(texts | awkward)}
    return record._replace(**changed)


@settings(max_examples=300, deadline=None)
@given(st.lists(records(), max_size=12), st.integers(1, 5))
@example([], 3)
def test_texts_by_the_column_are_those_by_the_record(rows: list[Record], write_rows: int) -> None:
    found = pages(frame_of(rows), write_rows)
    assert [page.group for page in found] == sorted(page.group for page in found)
    seen: list[Record] = []
    for page in found:
        of_page = records_of(page.rows)
        assert 0 < len(of_page) <= write_rows
        assert {group_of(record) for record in of_page} == {page.group}
        assert page.body == ",".join(map(row, of_page))
        assert page.keys == list(map(key_of, of_page))
        assert page.mixed == (len({(r.tenant, r.source, epoch_of(r.stamp)) for r in of_page}) > 1)
        seen += of_page
    assert sorted(seen) == sorted(rows)


def test_ordinary_records_are_made_by_the_column() -> None:
    rnd = random.Random(3)
    props = canonical_json({"name": "Zoë O'Neil", "score": rnd.random(), "tags": ["a", "b"], "n": 12, "ok": True})
    entity = make("t", "c", Kind.ENTITY, "person", "p-1", "crm", 7, props=props, time="2026-01-01T00:00:00Z")
    edge = make("t", "c", Kind.RELATIONSHIP, "KNOWS", "r'1", "crm", 8, ends=("person", "p-1", "org", "o"), props=props)
    gone = make("t", "c", Kind.ENTITY, "person", "p-2", "crm", 9, op=Op.DELETE)
    frame = frame_of([entity, edge, gone])
    assert frame.select(_PLAIN).to_series().all()
    assert {page.body for page in pages(frame, 1)} == {row(entity), row(edge), row(gone)}


@pytest.mark.parametrize("value", [-0.0, 5e-324, -2.5e-308, 1e17, 123456789012345680.0, [0.1, 2.0], "a\\b"])
def test_values_that_the_parser_does_not_take_are_rewritten(value: object) -> None:
    record = make("t", "c", Kind.ENTITY, "person", "p", "crm", 1, props=canonical_json({"v": value}))
    assert [page.body for page in pages(frame_of([record]), 10)] == [row(record)]


def test_what_the_store_cannot_take_is_refused_as_by_the_record() -> None:
    record = make("t", "c", Kind.ENTITY, "person", "p", "crm", 1, props='{"bad name\\u0020":"a\\\\b"}')
    with pytest.raises(Rejected):
        row(record)
    with pytest.raises(Rejected):
        pages(frame_of([record]), 10)
