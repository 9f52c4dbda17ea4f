"""JSON lines: passed through, filled, mapped, resumed, split."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.connectors import BadRaw, FileLimits, FileSource, Item, RawRecord, mapping_from_pairs, open_source
from cluster.errors import Rejected


def items(source: FileSource, after: tuple[int, ...] | None = None, records: int = 3) -> list[Item]:
    return [item for batch in source.batches(after, records, 1 << 20) for item in batch]


def written(folder: Path, data: bytes, name: str = "in.jsonl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_lines_pass_as_they_stand(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"a": 1}\r\n\n  \nnot json\n{"b":\xff}'
    found = items(open_source(written(tmp_path, data)))
    assert found == [
        RawRecord((0,), b'{"a": 1}\r'),
        RawRecord((17,), b"not json"),
        RawRecord((26,), b'{"b":\xff}'),
    ]


def test_defaults_fill_only_what_lacks(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"tenant":"own","id":"1"}\n{"id":"2","x":1.0}\n[1]\n')
    source = open_source(path, defaults={"tenant": "acme", "source": "s"})
    first, second, third = (item.payload for item in items(source))
    assert json.loads(first) == {"tenant": "own", "id": "1", "source": "s"}
    assert second == b'{"tenant":"acme","source":"s","id":"2","x":1.0}'  # a value keeps its own spelling
    assert third == b"[1]"


def test_a_long_line_is_a_dead_letter_and_the_file_goes_on(tmp_path: Path) -> None:
    limits = FileLimits(line_bytes=100, block_bytes=64, bad_payload_bytes=8)
    path = written(tmp_path, b'{"a":1}\n' + b"y" * 1000 + b'\n{"b":2}\n')
    first, bad, last = items(open_source(path, limits=limits))
    assert isinstance(bad, BadRaw)
    assert (bad.position, bad.payload, bad.error_class) == ((8,), b"y" * 8, "too_large")
    assert "byte 8" in bad.reason
    assert (first.payload, last.payload) == (b'{"a":1}', b'{"b":2}')


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.lists(st.text("ab{}é \r", max_size=12), max_size=12),
    parts=st.integers(1, 6),
    block=st.integers(1, 20),
    ends=st.booleans(),
)
def test_parts_and_resumed_reads_give_the_same(
    tmp_path: Path, lines: list[str], parts: int, block: int, ends: bool
) -> None:
    data = "\n".join(lines).encode() + (b"\n" if ends else b"")
    source = open_source(written(tmp_path, data), limits=FileLimits(block_bytes=block, line_bytes=10))
    whole = items(source)
    assert [item for part in source.split(parts) for item in items(part)] == whole
    positions = [item.position for item in whole]
    assert positions == sorted(set(positions))
    for at, item in enumerate(whole):
        assert items(source, item.position) == whole[at + 1 :]


def test_batches_keep_both_limits(tmp_path: Path) -> None:
    path = written(tmp_path, b"".join(b'{"n":%03d}\n' % n for n in range(100)))
    source = open_source(path)
    assert {len(batch) for batch in source.batches(None, 7, 1 << 20)} == {7, 2}
    assert {len(batch) for batch in source.batches(None, 1000, 25)} == {2}
    assert {len(batch) for batch in source.batches(None, 1000, 1)} == {1}
    assert source.progress_bytes() == source.total_bytes == 1000


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compressed_files_give_the_same_records(tmp_path: Path, codec: str) -> None:
    data = b"".join(b'{"n":%d}\n' % n for n in range(5000))
    plain = items(open_source(written(tmp_path, data)))
    packed = gzip.compress(data) if codec == "gzip" else pa.compress(data, codec="zstd", asbytes=True)
    source = open_source(written(tmp_path, packed, "in.jsonl.gz" if codec == "gzip" else "in.jsonl.zst"))
    assert items(source) == plain
    assert items(source, plain[4000].position) == plain[4001:]
    assert source.split(4) == [source]
    assert source.progress_bytes() == source.total_bytes == len(packed)


def test_a_bomb_stops_at_its_bound(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(b"{}\n" * 1_000_000), "bomb.jsonl.gz")
    with pytest.raises(Rejected, match="expands to more than 100,000 bytes"):
        items(open_source(path, limits=FileLimits(expanded_bytes=100_000, block_bytes=4096)))


def test_a_torn_compressed_file_is_named(tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(b'{"n":%d}\n' % n for n in range(100_000)))
    path = written(tmp_path, packed[: len(packed) // 2], "torn.jsonl.gz")
    with pytest.raises(Rejected, match=r"torn\.jsonl\.gz"):
        items(open_source(path))


def test_the_digest_is_of_bytes_mapping_and_defaults(tmp_path: Path) -> None:
    path, twin = written(tmp_path, b"{}\n"), written(tmp_path, b"{}\n", "twin.jsonl")
    mapping = mapping_from_pairs(["type=person", "id={id}"])
    digests = [
        open_source(path).digest,
        open_source(path, defaults={"tenant": "a"}).digest,
        open_source(path, mapping=mapping).digest,
        open_source(written(tmp_path, b"{} \n", "other.jsonl")).digest,
    ]
    assert len(set(digests)) == 4
    assert open_source(twin).digest == digests[0]


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, b"{}\n" * 10)
    batches = open_source(path).batches(None, 2, 100)
    next(batches)
    path.write_bytes(b"[]\n" * 11)
    with pytest.raises(Rejected, match="changed while it was read"):
        list(batches)


def test_mapped_lines(tmp_path: Path) -> None:
    data = b'{"who":{"mail":"a@x"},"age":3,"tags":["p","q"],"none":null}\n{"who":1}\nnope\n'
    mapping = mapping_from_pairs(["type=person", "id={who.mail}", "case=c{age}", "props=age,tags,none"])
    good, lacking, broken = items(open_source(written(tmp_path, data), mapping=mapping, defaults={"tenant": "t"}))
    assert good.position == (0, 1)
    assert json.loads(good.payload) == {
        "tenant": "t", "case": "c3", "kind": "entity", "op": "upsert", "type": "person", "id": "a@x",
        "props": {"age": 3, "tags": ["p", "q"]},
    }  # fmt: skip
    assert isinstance(lacking, BadRaw)
    assert isinstance(broken, BadRaw)
    assert (lacking.error_class, broken.error_class) == ("schema", "decode")
    assert "'age' is empty" in lacking.reason
    assert items(open_source(tmp_path / "in.jsonl", mapping=mapping, defaults={"tenant": "t"}), (0, 1)) == [
        lacking,
        broken,
    ]
