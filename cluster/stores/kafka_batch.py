"""Batches of records as brokers store them: unpacked within a bound, and read record by record where one is bad.

    fetched bytes ─ batches ─► one batch ─ unpacked(most_bytes) ─► the same without compression ─► aiokafka's reader
                                                                   or, where that gives up, one_by_one

A broker takes a batch as its producer made it: how much it is once it is unpacked, and what stands in its records'
headers, nobody has looked at before. Layouts: message formats 0 to 2 of Kafka, as in `aiokafka.record`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from cluster.stores.kafka_varint import Malformed, Varints

CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
_LOG_OVERHEAD, _LEAST_BYTES = 12, 26
_LENGTH, _HEAD = struct.Struct(">qi"), struct.Struct(">qiibIhiqqqhii")
_MAGIC_AT, _ATTRIBUTES_AT = 16, 21
_CODEC_BITS, _APPEND_TIME = 0x07, 0x08
_XERIAL, _XERIAL_HEAD_BYTES = b"\x82SNAPPY\x00", 16
_STEP_BYTES, _SHOWN_CHARACTERS = 1 << 20, 200


class Oversized(Exception):
    """No error by itself: a batch takes more bytes than it may, once it is unpacked."""


class UnknownCodec(Exception):
    """No error by itself: a batch is packed in a way that is not known here.

    Args:
        number: of the protocol.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"codec {number}")
        self.number = number


class BatchHead(NamedTuple):
    """What stands before the records of a batch.

    Args:
        leader_epoch: of the leader that appended it; -1 in formats before 2, which have none.
    """

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_ms: int
    most_ms: int
    producer: int
    producer_epoch: int
    sequence: int
    records: int


class OneRecord(NamedTuple):
    """A record of a batch, by itself.

    Args:
        value: of a bad one whatever can be told of it: its value, or all of its bytes.
        bad: why it is none; empty: it is one.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    bad: str


def batches(records: bytes) -> Iterator[memoryview]:
    """The batches of what was fetched, without a last one that is cut off.

    Raises:
        Malformed: a length is none.
    """
    view, at = memoryview(records), 0
    while len(view) - at >= _LOG_OVERHEAD:
        length = _LENGTH.unpack_from(view, at)[1]
        if length < _LEAST_BYTES - _LOG_OVERHEAD:
            raise Malformed(f"a batch of {length} bytes")
        end = at + _LOG_OVERHEAD + length
        if end > len(view):
            return
        yield view[at:end]
        at = end


def base_offset(batch: memoryview) -> int:
    """Of its first record, in every format but that of compressed ones before 2, where it is the last one's."""
    return int(_LENGTH.unpack_from(batch)[0])


def magic(batch: memoryview) -> int:
    """The batch's format."""
    return batch[_MAGIC_AT]


def head(batch: memoryview) -> BatchHead:
    """Of format 2. Raises Malformed."""
    if len(batch) < _HEAD.size:
        raise Malformed(f"a batch of {len(batch)} bytes")
    return BatchHead(*_HEAD.unpack_from(batch))


def unpacked(batch: memoryview, most_bytes: int) -> memoryview | bytes:
    """A batch of format 2 without compression; itself, if it has none. Its checksum is that of the packed one.

    Raises:
        Oversized: its records take more than `most_bytes`.
        UnknownCodec, Malformed: they cannot be unpacked.
    """
    attributes = head(batch).attributes
    codec = attributes & _CODEC_BITS
    if not codec:
        return batch
    parts = list(_parts(codec, batch[_HEAD.size :], most_bytes))
    plain = bytearray(batch[: _HEAD.size])
    struct.pack_into(">h", plain, _ATTRIBUTES_AT, attributes & ~_CODEC_BITS)
    return b"".join((plain, *parts))


def check_old(batch: memoryview, most_bytes: int) -> None:
    """Nothing, if a batch of format 0 or 1 stays within its bound once it is unpacked. Raises as `unpacked` does."""
    version = magic(batch)
    try:
        at = _MAGIC_AT + 2 + (8 if version else 0)
        codec = batch[_MAGIC_AT + 1] & _CODEC_BITS
        key_bytes = struct.unpack_from(">i", batch, at)[0]
        at += 4 + max(0, key_bytes)
        value_bytes = struct.unpack_from(">i", batch, at)[0]
    except (struct.error, IndexError) as error:
        raise Malformed(str(error)) from error
    if codec:
        for _ in _parts(codec, batch[at + 4 : at + 4 + max(0, value_bytes)], most_bytes):
            pass


def _parts(codec: int, packed: memoryview, most_bytes: int) -> Iterator[bytes]:
    if codec not in CODECS:
        raise UnknownCodec(codec)
    steps, total = _snappy(packed, most_bytes) if CODECS[codec] == "snappy" else _framed(CODECS[codec], packed), 0
    try:
        for step in steps:
            total += len(step)
            if total > most_bytes:
                raise Oversized
            yield step
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Malformed(f"{CODECS[codec]}: {error}") from error


def _framed(codec: str, packed: memoryview) -> Iterator[bytes]:
    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(packed)), codec) as stream:
        while step := stream.read(_STEP_BYTES):
            yield step


def _snappy(packed: memoryview, most_bytes: int) -> Iterator[bytes]:
    """One block, or several as Java's library frames them; each says first how much it is."""
    if bytes(packed[: len(_XERIAL)]) != _XERIAL:
        yield _snappy_block(packed, most_bytes)
        return
    at = _XERIAL_HEAD_BYTES
    while at < len(packed):
        if len(packed) - at < 4:
            raise Malformed("a block is cut off")
        size = struct.unpack_from(">i", packed, at)[0]
        at += 4
        if not 0 < size <= len(packed) - at:
            raise Malformed(f"a block of {size} bytes")
        yield _snappy_block(packed[at : at + size], most_bytes)
        at += size


def _snappy_block(block: memoryview, most_bytes: int) -> bytes:
    size = Varints(block).unsigned()
    if size > most_bytes:
        raise Oversized
    plain: bytes = pa.Codec("snappy").decompress(pa.py_buffer(block), decompressed_size=size, asbytes=True)
    return plain


def one_by_one(batch: memoryview | bytes) -> list[OneRecord]:
    """The records of a batch of format 2 without compression, each by itself: a bad one is told from the others.

    Raises:
        Malformed: it cannot be told where its records begin and end.
    """
    view = memoryview(batch)
    about, frames = head(view), Varints(view, _HEAD.size)
    found = [_one(about, frames.taken(frames.signed())) for _ in range(about.records)]
    if frames.left:
        raise Malformed(f"{frames.left} bytes behind the last record")
    return found


def _one(about: BatchHead, frame: memoryview) -> OneRecord:
    inside = Varints(frame)
    inside.taken(1)  # its attributes, which mean nothing
    since, delta = inside.signed(), inside.signed()
    at_ms = about.most_ms if about.attributes & _APPEND_TIME else about.first_ms + since
    offset = about.base_offset + delta
    if not 0 <= delta <= about.last_offset_delta:
        raise Malformed(f"a record {delta} behind the first of its batch")
    try:
        key, value = inside.bytes_or_none(), inside.bytes_or_none()
    except Malformed as error:
        return OneRecord(offset, at_ms, None, bytes(frame), [], f"the record is malformed: {error}")
    try:
        headers = [(inside.some_bytes(), inside.bytes_or_none()) for _ in range(_counted(inside))]
        if inside.left:
            raise Malformed(f"{inside.left} bytes behind the last one")
    except Malformed as error:
        return OneRecord(offset, at_ms, key, value, [], f"the record's headers are malformed: {error}")
    named = [(name.decode(errors="backslashreplace"), held) for name, held in headers]
    bad = [name for (name, _), (raw, _) in zip(named, headers, strict=True) if not _is_text(raw)]
    why = f"the name of a header is not UTF-8: {bad[0][:_SHOWN_CHARACTERS]}" if bad else ""
    return OneRecord(offset, at_ms, key, value, named, why)


def _counted(inside: Varints) -> int:
    count = inside.signed()
    if not 0 <= count <= inside.left:  # each takes two bytes at least
        raise Malformed(f"{count} headers")
    return count


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
