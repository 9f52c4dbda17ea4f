"""What readers see of a partition's batches, without a broker: held against what a log with transactions means."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import pytest
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Corrupt, Rejected
from cluster.stores.kafka_fetch import Part
from cluster.stores.kafka_stream_unread import UnreadRecords
from tests.kafka_batches import packed, sealed, with_codec

MANY, MB = 1000, 1 << 20
ABORT, COMMIT = 0, 1


class Stored(NamedTuple):
    """A batch of the model."""

    first: int
    end: int
    data: bytes
    producer: int
    values: dict[int, bytes | None]


class Model:
    """A partition, as a broker keeps it."""

    def __init__(self) -> None:
        self.end, self.batches = 0, list[Stored]()
        self.open: dict[int, int] = {}
        self.aborted: list[tuple[int, int, int]] = []

    def _put(self, values: dict[int, bytes | None], room: int, producer: int, codec: int = 0, **how: bool) -> None:
        data = packed(self.end, values, room, producer, codec, **how)
        seen = {} if how else {self.end + place: value for place, value in values.items()}
        self.batches.append(Stored(self.end, self.end + room, data, producer, seen))
        self.end += room

    def append(self, producer: int, kept: list[bool], codec: int) -> None:
        """A batch; -1 is a producer without transactions."""
        if producer >= 0:
            self.open.setdefault(producer, self.end)
        values = {place: b"%d" % (self.end + place) for place, stays in enumerate(kept) if stays}
        self._put(values, len(kept), producer, codec)

    def finish(self, producer: int, how: int) -> None:
        """Ends the producer's transaction, if it has one; brokers may also mark the end of an empty one."""
        first = self.open.pop(producer, None)
        if first is not None and how == ABORT:
            self.aborted.append((producer, first, self.end))
        self._put({0: b"%d" % how}, 1, producer, control=True)

    @property
    def stable(self) -> int:
        """Behind the last offset that a reader may see."""
        return min(self.open.values(), default=self.end)

    def visible(self, at: int) -> dict[int, bytes | None]:
        """All that a reader may see from an offset on."""
        gone = {
            offset
            for batch in self.batches
            for producer, first, last in self.aborted
            if batch.producer == producer and first <= batch.first <= last
            for offset in batch.values
        }
        all_of_it = {offset: value for batch in self.batches for offset, value in batch.values.items()}
        return {offset: all_of_it[offset] for offset in all_of_it if at <= offset < self.stable and offset not in gone}

    def fetch(self, at: int, batches: int) -> Part:
        """What a broker answers."""
        some = [batch for batch in self.batches if batch.end > at and batch.end <= self.stable][:batches]
        below = some[-1].end if some else at
        aborted = [(producer, first) for producer, first, last in self.aborted if last >= at and first < below]
        return Part(0, self.stable, b"".join(batch.data for batch in some), aborted)


STEPS = st.one_of(
    st.tuples(
        st.just("append"),
        st.integers(-1, 2),
        st.lists(st.booleans(), min_size=1, max_size=4),
        st.sampled_from(range(5)),
    ),
    st.tuples(st.just("finish"), st.integers(0, 2), st.sampled_from([ABORT, COMMIT])),
)


@given(steps=st.lists(STEPS, max_size=25), data=st.data())
def test_a_reader_sees_what_was_committed_once_and_in_order(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    model = Model()
    for name, *arguments in steps:
        getattr(model, name)(*arguments)
    begun = at = data.draw(st.integers(0, model.stable))
    found: list[tuple[int, bytes | None]] = []
    while at < model.stable:
        unread = UnreadRecords(0, model.fetch(at, data.draw(st.integers(1, 5))), at, MB)
        while True:
            read = unread.taken(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 20)))
            found += [(record.offset, record.value) for record in read.records]
            assert read.next > at
            at = read.next
            if unread.empty():
                break
    assert at == model.stable
    assert found == list(model.visible(begun).items())


def test_transactions_of_one_producer_end_one_by_one() -> None:
    model = Model()
    for how in (ABORT, ABORT, COMMIT, ABORT):
        model.append(1, [True, True], 0)
        model.finish(1, how)
    read = UnreadRecords(0, model.fetch(0, MANY), 0, MB).taken(MANY, MB)
    assert ([record.offset for record in read.records], read.next) == ([6, 7], 12)


@pytest.mark.parametrize("at", [70, -1])
def test_a_flipped_byte_is_found(at: int) -> None:
    batch = bytearray(packed(5, {0: b"x" * 50}, 1))
    batch[at] ^= 1
    failed = UnreadRecords(3, Part(0, 6, bytes(batch)), 5, MB).taken(MANY, MB).failed
    assert isinstance(failed, Corrupt)
    assert "partition 3: the batch at offset 5 is damaged" in str(failed)


def test_a_batch_that_is_cut_off_is_left_for_the_next_fetch() -> None:
    data = packed(0, {0: b"a"}, 1) + packed(1, {0: b"b"}, 1)[:-3]
    read = UnreadRecords(0, Part(0, 2, data), 0, MB).taken(MANY, MB)
    assert ([record.value for record in read.records], read.next, read.end) == ([b"a"], 1, 2)


def test_what_comes_before_a_batch_that_cannot_be_read_is_taken_first() -> None:
    """Whatever is wrong with that one; nothing behind it is read."""
    before, behind = packed(0, {0: b"a", 1: b"b"}, 2, leader_epoch=3), packed(5, {0: b"d"}, 1)
    unknown, large = bytearray(packed(4, {0: b"c"}, 1)), packed(4, {0: bytes(MB)}, 1, codec=1)
    with_codec(6)(unknown)
    for bad, why, error in (
        (b"\x00" * 8 + struct.pack(">i", 2) + bytes(60), "damaged", Corrupt),
        (sealed(unknown), "partition 0, offset 4: compressed with codec 6", Rejected),
        (large, "partition 0, offset 4: its batch takes more than 1,000,000 bytes", Rejected),
    ):
        unread = UnreadRecords(0, Part(0, 6, before + bad + behind), 0, 1_000_000)
        first = unread.taken(1, MB)
        assert ([r.value for r in first.records], first.next, first.failed) == ([b"a"], 1, None)
        second = unread.taken(MANY, MB)
        assert ([r.value for r in second.records], second.next, second.leader_epoch) == ([b"b"], 2, 3)
        assert isinstance(second.failed, error)
        assert why in str(second.failed)
        assert unread.empty()


def test_one_bad_record_comes_with_why_among_the_others() -> None:
    batch = bytearray(packed(0, {0: b"a", 1: b"b"}, 2, headers=[("name", b"1")]))
    batch[batch.index(b"name")] = 0xFF
    first, second = UnreadRecords(0, Part(0, 2, sealed(batch)), 0, MB).taken(MANY, MB).records
    assert (first.value, second.value, second.bad) == (b"a", b"b", "")
    assert "not UTF-8" in first.bad


def test_the_leader_epoch_is_that_of_the_record_before_the_next() -> None:
    data = b"".join(packed(n * 2, {0: b"a", 1: b"b"}, 2, leader_epoch=epoch) for n, epoch in enumerate((4, 4, 7)))
    unread, found = UnreadRecords(0, Part(0, 6, data), 0, MB), []
    for _ in range(6):
        read = unread.taken(1, MB)
        found.append((read.next, read.leader_epoch))
    assert found == [(1, 4), (2, 4), (3, 4), (4, 4), (5, 7), (6, 7)]


@pytest.mark.parametrize("codec", [0, 1])
def test_records_of_an_old_format_have_no_leader_epoch(codec: int) -> None:
    builder: Any = LegacyRecordBatchBuilder(1, codec, MB)
    builder.append(0, timestamp=7, key=b"k", value=b"v" * 100)
    data = bytes(builder.build())
    read = UnreadRecords(0, Part(0, 1, data), 0, MB).taken(MANY, MB)
    assert [(r.value, r.timestamp_ms) for r in read.records] == [(b"v" * 100, 7)]
    assert (read.next, read.leader_epoch, read.failed) == (1, -1, None)
    if codec:
        assert isinstance(UnreadRecords(0, Part(0, 1, data), 0, 50).taken(MANY, MB).failed, Rejected)


def test_a_header_without_value_is_empty() -> None:
    read = UnreadRecords(0, Part(0, 1, packed(0, {0: b"a"}, 1)), 0, MB).taken(MANY, MB)
    assert read.records[0].headers == [("h", b"")]
