"""CSV: the scanner against the csv module, the event format's columns, mappings, and every kind of bad row."""

from __future__ import annotations

import csv
import gzip
import io
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.connectors import BadRaw, FileLimits, FileSource, Item, mapping_from_yaml, open_source
from actors.connectors.csv_scan import BadRow, CsvRow, scan
from actors.connectors.lines import line_blocks
from cluster.errors import Rejected

HEADER = "tenant,case,kind,type,id,props.name,props.age:int\n"


def items(source: FileSource, after: tuple[int, ...] | None = None) -> list[Item]:
    return [item for batch in source.batches(after, 3, 1 << 20) for item in batch]


def written(folder: Path, data: str | bytes, name: str = "in.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def events(found: list[Item]) -> list[Any]:
    return [item.reason if isinstance(item, BadRaw) else json.loads(item.payload) for item in found]


def scanned(data: bytes, block: int, line_bytes: int = 10_000) -> list[CsvRow | BadRow]:
    stream = io.BytesIO(data)
    limits = FileLimits(line_bytes=line_bytes)
    blocks = line_blocks(lambda: stream.read(block), 0, line_bytes, 50)
    return list(chain.from_iterable(scan(blocks, ",", limits)))


def shape(row: CsvRow | BadRow) -> tuple[Any, ...]:
    if isinstance(row, CsvRow):
        return row.start, row.line, tuple(row.cells)
    return row.start, row.line, row.error_class, row.problem


@given(st.lists(st.lists(st.text('ab",\n é\\', max_size=6), min_size=2, max_size=4), max_size=10), st.integers(1, 30))
def test_what_the_csv_module_wrote_comes_back(table: list[list[str]], block: int) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    found = scanned(out.getvalue().encode(), block)
    assert [row.cells for row in found if isinstance(row, CsvRow)] == table
    assert len(found) == len(table)


@given(
    st.lists(
        st.sampled_from([b"a", b"b", b",", b'"', b"\n", b"\r", b"\r\n", b"\x00", b"\xff", "é".encode()]), max_size=40
    ),
    st.integers(1, 12),
    st.integers(3, 12),
)
@example([b"a", b'"', b"\n", b"\r", b"a", b"\n"], 1, 3)
def test_rows_do_not_depend_on_blocks(pieces: list[bytes], block: int, line_bytes: int) -> None:
    data = b"".join(pieces)
    assert list(map(shape, scanned(data, block, line_bytes))) == list(map(shape, scanned(data, 10_000, line_bytes)))


@given(st.lists(st.text("ab,é\r", max_size=8), max_size=8).map("\n".join))
def test_lines_without_quotes_read_as_the_csv_module_reads_them(text: str) -> None:
    plain = scanned(text.encode(), 10_000)
    quoted = scanned(text.encode() + b'\n""', 10_000)
    mine = [shape(row)[:3] for row in plain]
    theirs = [shape(row)[:3] for row in quoted[:-1]]
    assert mine == theirs


def test_events_as_columns(tmp_path: Path) -> None:
    rows = 'acme,c1,entity,person,p1,"Ann ""A"" Lee",7\nacme,c1,entity,person,p2,=cmd|x,\n'
    assert events(items(open_source(written(tmp_path, "\ufeff" + HEADER + rows)))) == [
        {"tenant": "acme", "case": "c1", "kind": "entity", "type": "person", "id": "p1",
         "props": {"name": 'Ann "A" Lee', "age": 7}},
        {"tenant": "acme", "case": "c1", "kind": "entity", "type": "person", "id": "p2", "props": {"name": "=cmd|x"}},
    ]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(max_size=5).filter(lambda t: not set(t) & set('\r\n\0,"')), min_size=3, max_size=3))
def test_the_template_of_full_rows_agrees_with_the_encoder(tmp_path: Path, cells: list[str]) -> None:
    path = written(tmp_path, f"kind,props.a%s,type,id,props.n:float\n{','.join(cells)},x,1.50\n".encode())
    found = events(items(open_source(path, defaults={"tenant": "100%s"})))
    kind, a, type_ = cells
    want = {"tenant": "100%s", "kind": kind, "type": type_, "id": "x", "props": {"a%s": a, "n": 1.5}}
    assert found == [{k: v for k, v in want.items() if v} | {"props": {k: v for k, v in want["props"].items() if v}}]  # type: ignore[attr-defined]


def test_relationships_claims_and_typed_columns(tmp_path: Path) -> None:
    text = (
        "kind,type,id,from.type,from.id,to.type,to.id,subject.type,subject.id,predicate,value:bool,confidence,position,props.t:json\n"
        'relationship,knows,r1,person,a,person,b,,,,,,"[1,2]","[""x"",""y""]"\n'
        "claim,c,k1,,,,,person,a,alive,yes,0.5,3,\n"
    )
    assert events(items(open_source(written(tmp_path, text)))) == [
        {"kind": "relationship", "type": "knows", "id": "r1", "from": {"type": "person", "id": "a"},
         "to": {"type": "person", "id": "b"}, "position": [1, 2], "props": {"t": ["x", "y"]}},
        {"kind": "claim", "type": "c", "id": "k1", "subject": {"type": "person", "id": "a"}, "predicate": "alive",
         "value": True, "confidence": 0.5, "position": 3},
    ]  # fmt: skip


def test_bad_rows_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = [
        b"acme,c1,entity,person,p1,Ann,7",
        b"acme,c1,entity,person,p2,N\x00UL,7",
        b"acme,c1,entity,person,p3,\xff\xfe,7",
        b"acme,c1,entity,person,p4",
        b"acme,c1,entity,person,p5,Bob,seven",
        b'acme,c1,entity,person,p6,"Bob" x,7',
        b"acme,c1,entity,person,p7," + b"z" * 500 + b",7",
        b"acme,c1,entity,person,p8,Zoe,8",
    ]
    path = written(tmp_path, HEADER.encode() + b"\n".join(rows) + b"\n")
    found = items(open_source(path, limits=FileLimits(line_bytes=300, block_bytes=100)))
    assert [item.payload.count(b'"id"') for item in (found[0], found[-1])] == [1, 1]
    bad = [item for item in found if isinstance(item, BadRaw)]
    assert [item.error_class for item in bad] == ["decode", "decode", "schema", "schema", "schema", "too_large"]
    for line, item in enumerate(bad, 3):
        assert f"row on line {line} " in item.reason
    assert "NUL" in bad[0].reason
    assert "UTF-8" in bad[1].reason
    assert "5 cells, and the header has 7 columns" in bad[2].reason
    assert "'props.age:int': 'seven' is no int" in bad[3].reason
    again = items(open_source(path, limits=FileLimits(line_bytes=300, block_bytes=100)), found[3].position)
    assert again == found[4:]  # the line is counted from the file's first, also after resuming


def test_a_quote_that_never_closes_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    rows = [f"t,c,entity,x,i{n},n{n},{n}\n" for n in range(2000)]
    rows[10] = 't,c,entity,x,i10,"open,10\n'
    found = items(
        open_source(written(tmp_path, HEADER + "".join(rows)), limits=FileLimits(line_bytes=400, block_bytes=256))
    )
    bad = [item for item in found if isinstance(item, BadRaw)]
    assert len(bad) == 1
    assert "line 12 " in bad[0].reason
    assert "a quote may be missing" in bad[0].reason
    lost = 2000 - (len(found) - 1)
    assert 1 < lost < 30


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    cells=st.lists(st.text('ab"\n,é', max_size=8), min_size=1, max_size=20),
    parts=st.integers(1, 5),
    block=st.integers(1, 50),
    raw=st.booleans(),
)
def test_parts_and_resumed_reads_give_the_same(
    tmp_path: Path, cells: list[str], parts: int, block: int, raw: bool
) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([["entity", "t", "i", cell] for cell in cells])
    text = "\n".join(cells) if raw else out.getvalue()
    path = written(tmp_path, "kind,type,id,props.x\n" + text)
    source = open_source(path, limits=FileLimits(block_bytes=block, line_bytes=40))
    whole = items(source)
    assert [item for part in source.split(parts) for item in items(part)] == whole
    for at, item in enumerate(whole):
        assert items(source, item.position) == whole[at + 1 :]


def test_columns_that_are_no_events_need_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"no column 'kind', 'type', 'id'.*--map.*Columns: 'name', 'age'"):
        open_source(written(tmp_path, "name,age\nx,1\n"))
    with pytest.raises(Rejected, match=r"unknown columns 'colour'"):
        open_source(written(tmp_path, "kind,type,id,colour\n"))
    with pytest.raises(Rejected, match=r"'id' more than once"):
        open_source(written(tmp_path, "kind,type,id,id\n"))
    with pytest.raises(Rejected, match="the file is empty"):
        open_source(written(tmp_path, ""))
    with pytest.raises(Rejected, match="the limit is 3"):
        open_source(written(tmp_path, HEADER), limits=FileLimits(columns=3))


def test_a_header_alone_has_no_records(tmp_path: Path) -> None:
    assert items(open_source(written(tmp_path, HEADER))) == []
    assert items(open_source(written(tmp_path, HEADER.strip()))) == []
    wide = HEADER.strip() + "".join(f",props.column_{n}" for n in range(500))
    assert items(open_source(written(tmp_path, gzip.compress(wide.encode()), "h.csv.gz"))) == []


MAPPING = """
types: {age: int, since: string}
delimiter: ";"
events:
  - {kind: entity, type: person, id: "{email}", props: {full_name: name, age: age}}
  - {kind: entity, type: company, id: "{firm}", when: firm, props: {name: firm}}
  - {kind: relationship, type: works_for, id: "{email} at {firm}", when: firm, event_time: "{since}",
     from: {type: person, id: "{email}"}, to: {type: company, id: "{firm}"}, constants: {role: staff}}
  - {kind: claim, type: age, id: "{email}", when: age, subject: {type: person, id: "{email}"},
     predicate: age, value: "{age}", confidence: 0.9}
"""


def test_a_row_may_give_several_events(tmp_path: Path) -> None:
    text = "email;name;age;firm;since\na@x;Ann;41;ACME;\nb@x;Bob;;;\n;Nobody;3;;\nc@x;C;old;;\n"
    source = open_source(
        written(tmp_path, text), mapping=mapping_from_yaml(MAPPING), defaults={"tenant": "t", "case": "c"}
    )
    found = items(source)
    base = {"tenant": "t", "case": "c", "op": "upsert"}
    assert events(found)[:5] == [
        {**base, "kind": "entity", "type": "person", "id": "a@x", "props": {"full_name": "Ann", "age": 41}},
        {**base, "kind": "entity", "type": "company", "id": "ACME", "props": {"name": "ACME"}},
        {**base, "kind": "relationship", "type": "works_for", "id": "a@x at ACME",
         "from": {"type": "person", "id": "a@x"}, "to": {"type": "company", "id": "ACME"}, "props": {"role": "staff"}},
        {**base, "kind": "claim", "type": "age", "id": "a@x", "subject": {"type": "person", "id": "a@x"},
         "predicate": "age", "value": 41, "confidence": 0.9},
        {**base, "kind": "entity", "type": "person", "id": "b@x", "props": {"full_name": "Bob"}},
    ]  # fmt: skip
    assert [item.position for item in found[:5]] == [(26, 1), (26, 2), (26, 3), (26, 4), (43, 1)]
    assert "row on line 4 (byte 54): column 'email' is empty" in events(found)[5]
    assert "column 'age': 'old' is no int" in events(found)[6]
    assert items(source, (26, 2)) == found[2:]
    assert items(source, (26,)) == found
