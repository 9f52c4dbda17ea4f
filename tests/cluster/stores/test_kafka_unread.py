"""What is left of fetches, without a broker."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Corrupt
from cluster.stores.kafka_entry import UnreadEntries, encoded, total_of
from cluster.stores.kafka_unread import ReadAhead
from cluster.stores.log import Append

MANY, MB = 1000, 1 << 20


def packed(first: int, sizes: list[int], codec: int = 0) -> bytes:
    """A batch as a broker stores it, of entries with the numbers from `first` on."""
    builder: Any = DefaultRecordBatchBuilder(2, codec, 0, 1, 0, 0, 64 * MB)
    for offset, size in enumerate(sizes):
        message = encoded(Append(0, bytes([(first + offset) % 256]) * size, 2 if size else 0), 7, 2 * (first + offset))
        builder.append(offset, timestamp=0, key=None, value=message.value, headers=message.headers)
    batch = bytearray(builder.build())
    batch[:8] = (first - 1).to_bytes(8, "big")  # the broker sets the first offset, which no checksum covers
    return bytes(batch)


@given(
    batches=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5), max_size=5),
    skip=st.integers(0, 30),
    limits=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 120)), min_size=40, max_size=40),
    codec=st.sampled_from([0, 3, 4]),
)
def test_entries_come_once_in_order_and_within_the_limits(
    batches: list[list[int]], skip: int, limits: list[tuple[int, int]], codec: int
) -> None:
    data, number = b"", 1
    for sizes in batches:
        data += packed(number, sizes, codec)
        number += len(sizes)
    unread, numbers = UnreadEntries(0, data, skip), []
    for limit_entries, limit_bytes in limits:
        taken = unread.take(limit_entries, limit_bytes)
        assert len(taken) <= max(1, limit_entries)
        assert len(taken) <= 1 or sum(len(entry.data) for entry in taken) <= limit_bytes
        numbers += [entry.number for entry in taken]
    assert numbers == list(range(skip + 1, number))
    assert unread.empty()


def test_a_batch_that_is_cut_off_is_left_for_the_next_fetch() -> None:
    whole, half = packed(1, [10, 10]), packed(3, [10])[:-4]
    assert [entry.number for entry in UnreadEntries(0, whole + half, 0).take(MANY, MB)] == [1, 2]


@pytest.mark.parametrize("at", [70, -1])
def test_a_flipped_byte_is_found(at: int) -> None:
    data = bytearray(packed(1, [100]))
    data[at] ^= 1
    with pytest.raises(Corrupt, match="entry 1 is damaged"):
        UnreadEntries(0, bytes(data), 0).take(MANY, MB)


def test_a_record_without_our_headers_is_found() -> None:
    builder: Any = DefaultRecordBatchBuilder(2, 0, 0, 1, 0, 0, MB)
    builder.append(0, timestamp=0, key=None, value=b"x", headers=[("n", b"many")])
    data = bytes(builder.build())
    with pytest.raises(Corrupt, match="entry 1 is not one of ours"):
        UnreadEntries(0, data, 0).take(MANY, MB)
    with pytest.raises(Corrupt, match="entry 1 is not one of ours"):
        total_of(0, data)


def test_the_last_entry_says_the_records_so_far() -> None:
    assert total_of(0, packed(5, [1, 1]) + packed(7, [1])) == (7, 14)


def test_what_waits_is_given_to_one_reader_at_its_position() -> None:
    ahead: ReadAhead[int, UnreadEntries] = ReadAhead(MB)
    unread = UnreadEntries(0, packed(1, [10, 10]), 0)
    assert [entry.number for entry in unread.take(1, MB)] == [1]
    ahead.put(0, 1, unread)
    assert ahead.pop(0, 0) is None
    assert ahead.pop(1, 1) is None
    assert ahead.pop(0, 1) is unread
    assert ahead.pop(0, 1) is None


def test_what_waits_is_bounded_by_bytes_decoded_ones_too() -> None:
    ahead: ReadAhead[int, UnreadEntries] = ReadAhead(100_000)
    for partition in range(10):
        unread = UnreadEntries(partition, packed(1, [30_000, 30_000], codec=3), 0)
        unread.take(1, MB)
        assert 30_000 < unread.size_bytes < 31_000
        ahead.put(partition, 1, unread)
    assert [partition for partition in range(10) if ahead.pop(partition, 1)] == [7, 8, 9]
    ahead.put(0, 0, UnreadEntries(0, packed(1, [200_000]), 0))
    assert ahead.pop(0, 0) is None


def test_what_was_trimmed_is_forgotten() -> None:
    ahead: ReadAhead[int, UnreadEntries] = ReadAhead(MB)
    for after in (3, 5, 8):
        ahead.put(0, after, UnreadEntries(0, packed(after + 1, [10]), after))
    ahead.put(1, 3, UnreadEntries(1, packed(4, [10]), 3))
    ahead.drop(0, 6)
    assert [after for after in (3, 5, 8) if ahead.pop(0, after)] == [8]
    assert ahead.pop(1, 3)
