"""What readers see of a partition's batches, without a broker: held against what a log with transactions means."""

from __future__ import annotations

import pickle
import struct
from typing import Any, NamedTuple

import pytest
from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Corrupt, NotFound, Rejected
from cluster.stores.kafka_fetch import Part
from cluster.stores.kafka_stream_records import OffsetLost, StreamGone, UnreadRecords

MANY, MB = 1000, 1 << 20
CONTROL = 0x20
ABORT, COMMIT = 0, 1


def packed(
    first: int, values: dict[int, bytes | None], room: int, producer: int = -1, codec: int = 0, control: bool = False
) -> bytes:
    """A batch as a broker stores it.

    Args:
        values: by place in the batch; places that are left out were compacted away.
        room: offsets that it takes.
        producer: of a transaction; -1 for none.
    """
    builder: Any = DefaultRecordBatchBuilder(2, codec if values else 0, int(producer >= 0), producer, 0, 0, 64 * MB)
    for place in range(room) if not values else sorted(values):
        key = struct.pack(">HH", 0, int(values[place] or b"0")) if control else b"k"
        builder.append(place, timestamp=7, key=key, value=values.get(place), headers=[("h", None)])
    batch = bytearray(builder.build())
    if not values:  # compaction leaves the head of a batch that has lost all its records
        batch = batch[:61]
        batch[8:12], batch[57:61] = (len(batch) - 12).to_bytes(4, "big"), bytes(4)
    batch[:8] = first.to_bytes(8, "big")
    batch[23:27] = (room - 1).to_bytes(4, "big")  # the last offset stays, whatever compaction removes
    if control:
        batch[22] |= CONTROL
    batch[17:21] = calc_crc32c(bytes(batch[21:])).to_bytes(4, "big")
    return bytes(batch)


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
        unread = UnreadRecords(0, model.fetch(at, data.draw(st.integers(1, 5))), at)
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
    read = UnreadRecords(0, model.fetch(0, MANY), 0).taken(MANY, MB)
    assert ([record.offset for record in read.records], read.next) == ([6, 7], 12)


@pytest.mark.parametrize("at", [70, -1])
def test_a_flipped_byte_is_found(at: int) -> None:
    batch = bytearray(packed(5, {0: b"x" * 50}, 1))
    batch[at] ^= 1
    with pytest.raises(Corrupt, match=r"partition 3: the batch at offset 5 is damaged"):
        UnreadRecords(3, Part(0, 6, bytes(batch)), 5).taken(MANY, MB)


def test_a_batch_that_is_cut_off_is_left_for_the_next_fetch() -> None:
    data = packed(0, {0: b"a"}, 1) + packed(1, {0: b"b"}, 1)[:-3]
    read = UnreadRecords(0, Part(0, 2, data), 0).taken(MANY, MB)
    assert ([record.value for record in read.records], read.next, read.end) == ([b"a"], 1, 2)


def test_a_codec_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = packed(4, {0: b"a"}, 1, codec=2)
    monkeypatch.setattr(codec, "cramjam", None)
    with pytest.raises(Rejected, match=r"offset 4: compressed with snappy"):
        UnreadRecords(0, Part(0, 5, batch), 4).taken(MANY, MB)


def test_a_header_without_value_is_empty() -> None:
    read = UnreadRecords(0, Part(0, 1, packed(0, {0: b"a"}, 1)), 0).taken(MANY, MB)
    assert read.records[0].headers == [("h", b"")]


def test_errors_survive_the_way_between_processes() -> None:
    gone = pickle.loads(pickle.dumps(StreamGone("ab")))  # noqa: S301
    assert isinstance(gone, NotFound)
    assert gone.topic_id == "ab"
    lost = pickle.loads(pickle.dumps(OffsetLost(1, 2, 3, 4)))  # noqa: S301
    assert (lost.partition, lost.asked, lost.first, lost.end) == (1, 2, 3, 4)
    assert "retention" in str(lost)
    assert "lost its end" in str(OffsetLost(1, 5, 3, 4))
