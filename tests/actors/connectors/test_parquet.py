"""Parquet: values, resuming, parts, bombs, and files that are none."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.connectors import (
    BadRaw,
    FileLimits,
    FileSource,
    Item,
    mapping_from_pairs,
    mapping_from_yaml,
    open_source,
)
from cluster.errors import Rejected

NAIVE = datetime(2024, 1, 2, 3, 4, 5, 600000)  # noqa: DTZ001


def items(source: FileSource, after: tuple[int, ...] | None = None) -> list[Item]:
    return [item for batch in source.batches(after, 5, 1 << 20) for item in batch]


def events(found: list[Item]) -> list[Any]:
    return [item.reason if isinstance(item, BadRaw) else json.loads(item.payload) for item in found]


def test_event_columns_dotted_and_nested(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    end = {"type": "person", "id": "a"}
    table = pa.table(
        {
            "kind": ["relationship", "entity"],
            "type": ["knows", "person"],
            "id": ["r1", "a"],
            "from": pa.array([end, None]),
            "to.type": pa.array(["person", None]),
            "to.id": pa.array(["b", None]),
            "position": pa.array([[1, 2], [3]]),
            "props.n": pa.array([None, 2**62]),
            "props.x": pa.array([1.0, 0.5]),
            "props.flag": pa.array([True, None]),
            "props.tags": pa.array([["p", "q"], None]),
            "props.when": pa.array([NAIVE, None], pa.timestamp("us")),
            "props.zoned": pa.array([datetime(2024, 1, 2, 3, tzinfo=UTC), None], pa.timestamp("s", "Europe/Paris")),
            "props.nanos": pa.array([1, None], pa.timestamp("ns")),
            "props.day": pa.array([date(2024, 2, 29), None]),
            "props.price": pa.array([Decimal("12.30"), None]),
            "props.raw": pa.array([b"\xff", None]),
            "props.took": pa.array([timedelta(seconds=1), None], pa.duration("s")),
            "props.deep": pa.array([{"a": {"b": 1, "c": None}, "t": NAIVE}, None]),
            "props.cat": pa.array(["x", None]).dictionary_encode(),
        }
    )
    pq.write_table(table, path)
    assert events(items(open_source(path, defaults={"tenant": "t"}))) == [
        {"tenant": "t", "kind": "relationship", "type": "knows", "id": "r1", "from": end,
         "to": {"type": "person", "id": "b"}, "position": [1, 2],
         "props": {"x": 1.0, "flag": True, "tags": ["p", "q"], "when": "2024-01-02T03:04:05.600000Z",
                   "zoned": "2024-01-02T03:00:00.000Z", "nanos": "1970-01-01T00:00:00.000000001Z", "day": "2024-02-29",
                   "price": "12.30", "raw": "/w==", "took": "1", "cat": "x",
                   "deep": {"a": {"b": 1}, "t": "2024-01-02T03:04:05.600000Z"}}},
        {"tenant": "t", "kind": "entity", "type": "person", "id": "a", "position": [3],
         "props": {"n": 2**62, "x": 0.5}},
    ]  # fmt: skip


def simple(path: Path, rows: int = 95, group: int = 10, columns: dict[str, list[Any]] | None = None) -> Path:
    table = {"kind": ["entity"] * rows, "type": ["x"] * rows, "id": [f"i{n}" for n in range(rows)], **(columns or {})}
    pq.write_table(pa.table(table), path, row_group_size=group)
    return path


def test_parts_and_resumed_reads_give_the_same(tmp_path: Path) -> None:
    source = open_source(simple(tmp_path / "in.parquet"), limits=FileLimits(parquet_rows=3))
    whole = items(source)
    assert [item.position for item in whole] == [(n,) for n in range(1, 96)]
    assert source.progress_bytes() == source.total_bytes
    for parts in (1, 3, 4, 50):
        split = source.split(parts)
        assert len(split) == min(parts, 10)
        assert [item for part in split for item in items(part)] == whole
    for after in (0, 1, 9, 10, 11, 57, 94, 95):
        assert items(source, (after,)) == whole[after:]


def test_numbers_that_are_none_are_named(tmp_path: Path) -> None:
    path = simple(tmp_path / "in.parquet", rows=3, columns={"props.x": [1.0, float("nan"), float("inf")]})
    good, nan, infinite = items(open_source(path))
    assert isinstance(nan, BadRaw)
    assert isinstance(infinite, BadRaw)
    assert (nan.position, nan.error_class, nan.reason) == (
        (2,),
        "schema",
        "row 2: column 'props.x': nan is no finite number",
    )
    assert good.position == (1,)


def test_mapped_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"who": [{"mail": "a@x"}, None], "n": [1, 2]}), path)
    mapping = mapping_from_yaml('events: [{type: person, id: "{who.mail}", props: {n: n}}, {type: number, id: "{n}"}]')
    found = items(open_source(path, mapping=mapping))
    assert [item.position for item in found] == [(1, 1), (1, 2), (2,)]
    assert events(found)[1] == {"kind": "entity", "op": "upsert", "type": "number", "id": "1"}
    assert "row 2: column 'who.mail' is empty" in events(found)[2]
    with pytest.raises(Rejected, match=r"no column 'whom'. Did you mean 'who'\? Columns: 'who', 'n'"):
        open_source(path, mapping=mapping_from_yaml('{type: person, id: "{whom}"}'))


def test_a_dictionary_bomb_is_read_in_small_slices(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    rows, text = 20_000, "x" * 1_000_000  # 20 GB of text in a file of a few kB
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    table = pa.table({"kind": ["entity"] * rows, "type": ["x"] * rows, "id": ["i"] * rows, "props.x": column})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1_000_000
    before = pa.total_allocated_bytes()
    batches = open_source(path).batches(None, 100, 4 << 20)
    sizes = [sum(len(item.payload) for item in next(batches)) for _ in range(10)]
    assert max(sizes) <= 4 << 20
    assert pa.total_allocated_bytes() - before < 200 << 20


def test_absurd_declarations_are_refused(tmp_path: Path) -> None:
    path = simple(tmp_path / "in.parquet", rows=1000, group=1000)
    with pytest.raises(Rejected, match=r"row group 0 declares .* bytes; the limit is 1,000"):
        open_source(path, limits=FileLimits(row_group_bytes=1000))
    with pytest.raises(Rejected, match="3 columns; the limit is 2"):
        open_source(path, limits=FileLimits(columns=2))


def test_a_broken_row_group_is_one_bad_record(tmp_path: Path) -> None:
    path = simple(tmp_path / "in.parquet", rows=4000, group=1000)
    whole = items(open_source(path))
    group = pq.ParquetFile(path).metadata.row_group(1)
    start = min(group.column(n).dictionary_page_offset or group.column(n).data_page_offset for n in range(3))
    data = bytearray(path.read_bytes())
    data[start : start + 400] = b"\xff" * 400
    path.write_bytes(data)
    found = items(open_source(path))
    bad = [item for item in found if isinstance(item, BadRaw)]
    assert [item.position for item in bad] == [(1001,)]
    assert "rows 1,001 to 2,000 (row group 1) cannot be decoded" in bad[0].reason
    assert [item for item in found if item not in bad] == whole[:1000] + whole[2000:]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1", b"not parquet at all"])
def test_no_parquet_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(data)
    with pytest.raises(Rejected, match=r"in\.parquet is no readable Parquet file"):
        open_source(path)


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.duration("s")])
def test_a_value_out_of_range_within_a_struct_is_one_bad_row(tmp_path: Path, kind: pa.DataType) -> None:
    most = 2**31 - 1 if kind == pa.date32() else 2**62
    inner = pa.array([{"d": 5}, {"d": most}, None], pa.struct([("d", kind)]))
    path = tmp_path / "far.parquet"
    pq.write_table(pa.table({"id": ["1", "2", "3"], "x": inner}), path)
    source = open_source(path, mapping=mapping_from_pairs(["type=t", "id={id}", "props=x"]))
    (found,) = source.batches(None, 10, 1 << 20)
    first, bad, last = found
    assert [isinstance(item, BadRaw) for item in (first, bad, last)] == [False, True, False]
    assert isinstance(bad, BadRaw)
    assert "row 2: column 'x': (a date, time or duration out of range)" in bad.reason
    assert json.loads(bad.payload)["id"] == "2"
