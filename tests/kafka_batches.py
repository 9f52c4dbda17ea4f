"""Batches as brokers store them, made and changed byte by byte: what no client of ours would send."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from tests.kafka_broker import KafkaBroker

MB = 1 << 20
HEAD_BYTES, CODEC_AT = 61, 22
CONTROL = 0x20

Headers = Sequence[tuple[str, bytes | None]]


def packed(
    first: int,
    values: Mapping[int, bytes | None],
    room: int,
    producer: int = -1,
    codec: int = 0,
    control: bool = False,
    headers: Headers = (("h", None),),
    leader_epoch: int = 0,
) -> bytes:
    """A batch as a broker stores it.

    Args:
        values: by place in the batch; places that are left out were compacted away.
        room: offsets that it takes.
        producer: of a transaction; -1 for none.
        headers: of each record.
    """
    builder: Any = DefaultRecordBatchBuilder(2, codec if values else 0, int(producer >= 0), producer, 0, 0, 64 * MB)
    for place in range(room) if not values else sorted(values):
        key = struct.pack(">HH", 0, int(values[place] or b"0")) if control else b"k"
        builder.append(place, timestamp=7, key=key, value=values.get(place), headers=list(headers))
    batch = bytearray(builder.build())
    if not values:  # compaction leaves the head of a batch that has lost all its records
        batch = batch[:HEAD_BYTES]
        batch[8:12], batch[57:61] = (len(batch) - 12).to_bytes(4, "big"), bytes(4)
    batch[:8], batch[12:16] = first.to_bytes(8, "big"), leader_epoch.to_bytes(4, "big", signed=True)
    batch[23:27] = (room - 1).to_bytes(4, "big")  # the last offset stays, whatever compaction removes
    if control:
        batch[CODEC_AT] |= CONTROL
    return sealed(batch)


def sealed(batch: bytearray) -> bytes:
    """The batch with the checksum that it has to have."""
    batch[17:21] = calc_crc32c(bytes(batch[21:])).to_bytes(4, "big")
    return bytes(batch)


def segment(broker: KafkaBroker, topic: str, partition: int = 0) -> Path:
    """The file of a partition that begins with its first offset."""
    return broker.folder / "data" / f"{topic}-{partition}" / f"{0:020}.log"


def change(file: Path, how: Callable[[bytearray], None], seal: bool = True) -> bytes:
    """Changes the first batch of a broker's file, as long as it stays; returns what was there.

    Args:
        seal: its checksum is right again.
    """
    before = file.read_bytes()
    end = 12 + int.from_bytes(before[8:12], "big")
    batch = bytearray(before[:end])
    how(batch)
    file.write_bytes((sealed(batch) if seal else bytes(batch)) + before[end:])
    return before


def with_text(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    """Replaces a text that is there once by one as long."""

    def how(batch: bytearray) -> None:
        assert (batch.count(old), len(old)) == (1, len(new))
        at = batch.index(old)
        batch[at : at + len(old)] = new

    return how


def with_codec(codec: int) -> Callable[[bytearray], None]:
    """Says that the batch is compressed that way."""

    def how(batch: bytearray) -> None:
        batch[CODEC_AT] |= codec

    return how
