"""Batches unpacked within a bound, and read record by record, held against aiokafka's reader."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from cluster.stores.kafka_batch import (
    CODECS,
    Oversized,
    UnknownCodec,
    batches,
    check_old,
    head,
    one_by_one,
    unpacked,
)
from cluster.stores.kafka_varint import Malformed
from tests.kafka_batches import HEAD_BYTES, MB, packed, sealed, with_codec, with_text

HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3)


def with_body(codec: int, body: bytes, records: int = 1) -> memoryview:
    """A batch whose packed records are these bytes."""
    batch = bytearray(packed(0, {0: b""}, 1)[:HEAD_BYTES]) + body
    batch[8:12], batch[57:61] = (len(batch) - 12).to_bytes(4, "big"), records.to_bytes(4, "big")
    with_codec(codec)(batch)
    return memoryview(sealed(batch))


def bodies(plain: bytes) -> dict[int, bytes]:
    """Some bytes in each codec, as Kafka's clients pack them."""
    return {1: gzip.compress(plain), 2: snappy_encode(plain), 3: lz4_encode(plain), 4: zstd_encode(plain)}


@given(
    values=st.lists(st.none() | st.binary(max_size=200), min_size=1, max_size=9),
    codec=st.sampled_from([0, *CODECS]), headers=HEADERS, first=st.integers(0, 1 << 40),
)  # fmt: skip
def test_each_record_by_itself_is_what_the_library_reads(
    values: list[bytes | None], codec: int, headers: Any, first: int
) -> None:
    batch = memoryview(packed(first, dict(enumerate(values)), len(values), codec=codec, headers=headers))
    plain = unpacked(batch, MB)
    wanted = [(r.offset, r.timestamp, r.key, r.value, r.headers, "") for r in DefaultRecordBatch(bytes(batch))]
    assert one_by_one(plain) == wanted
    assert [r.value for r in DefaultRecordBatch(plain)] == values


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1 << 10, 5 << 20])
def test_what_is_unpacked_is_bounded(codec: int, size: int) -> None:
    batch = with_body(codec, bodies(bytes(size))[codec])
    assert len(unpacked(batch, size)) == HEAD_BYTES + size
    with pytest.raises(Oversized):
        unpacked(batch, size - 1)


def test_a_block_of_snappy_by_itself_is_bounded_too() -> None:
    batch = with_body(2, snappy_encode(bytes(5000), xerial_compatible=False))
    assert len(unpacked(batch, 5000)) == HEAD_BYTES + 5000
    with pytest.raises(Oversized):
        unpacked(batch, 4999)


def test_a_bomb_is_not_unpacked() -> None:
    batch = with_body(1, gzip.compress(bytes(64 * MB), 1))
    tracemalloc.start()
    with pytest.raises(Oversized):
        unpacked(batch, 2 * MB)
    assert tracemalloc.get_traced_memory()[1] < 8 * MB
    tracemalloc.stop()


@pytest.mark.parametrize("codec", [5, 7])
def test_a_codec_that_is_not_known_is_named(codec: int) -> None:
    with pytest.raises(UnknownCodec) as raised:
        unpacked(with_body(codec, b"x"), MB)
    assert raised.value.number == codec


@given(codec=st.sampled_from([*CODECS]), plain=st.binary(min_size=1, max_size=100), data=st.data())
def test_packed_bytes_that_are_damaged_are_malformed_or_something_else(
    codec: int, plain: bytes, data: st.DataObject
) -> None:
    body = bytearray(bodies(plain)[codec])
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(Malformed, Oversized):
        unpacked(with_body(codec, bytes(body[: data.draw(st.integers(0, len(body)))])), MB)


@given(values=st.lists(st.binary(max_size=20), min_size=1, max_size=4), data=st.data())
def test_records_that_are_damaged_are_bad_or_the_batch_is_malformed(values: list[bytes], data: st.DataObject) -> None:
    batch = bytearray(packed(0, dict(enumerate(values)), len(values)))
    batch[data.draw(st.integers(HEAD_BYTES, len(batch) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = one_by_one(bytes(batch))
    except Malformed:
        return
    assert len(found) == len(values)


def test_a_header_whose_name_is_no_text_is_of_one_record() -> None:
    batch = bytearray(packed(5, {0: b"a", 1: b"b"}, 2, headers=[("h\u00e4", b"x")]))
    at = batch.index("h\u00e4".encode())
    batch[at + 1] = 0xFF
    bad, good = one_by_one(bytes(batch))
    assert (bad.offset, bad.key, bad.value, good.value, good.bad) == (5, b"k", b"a", b"b", "")
    assert bad.bad == r"the name of a header is not UTF-8: h\xff\xa4"


def test_a_record_that_is_malformed_keeps_its_bytes() -> None:
    batch = bytearray(packed(5, {0: b"first", 1: b"b"}, 2, headers=[]))
    with_text(b"\x0afirst", b"\x7ffirst")(batch)  # a value of 64 bytes less than none
    with_text(b"\x7ffirst", b"\x7efirst")(batch)  # a value of 63 bytes
    bad, good = one_by_one(bytes(batch))
    assert (bad.offset, b"first" in (bad.value or b""), good.value, good.bad) == (5, True, b"b", "")
    assert "malformed: 63 bytes" in bad.bad


def test_lengths_that_are_none_are_found() -> None:
    good = packed(0, {0: b"a"}, 1)
    assert list(batches(good + good[:-1])) == [good]
    for length in (-5, 0, 3):
        with pytest.raises(Malformed):
            list(batches(good + struct.pack(">qi", 1, length) + bytes(100)))
    with pytest.raises(Malformed):
        head(memoryview(bytes(40)))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("codec", [0, 1, 2])
def test_batches_of_old_formats_are_bounded(version: int, codec: int) -> None:
    builder: Any = LegacyRecordBatchBuilder(version, codec, MB)
    builder.append(0, timestamp=7, key=b"k", value=bytes(10_000))
    batch = memoryview(bytes(builder.build()))
    check_old(batch, 20_000)
    if codec:
        with pytest.raises(Oversized):
            check_old(batch, 10_000)
