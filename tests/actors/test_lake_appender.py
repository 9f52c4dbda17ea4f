"""The lake appender over a log in memory and a real lake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from actors.lake_appender import LakeAppender
from cluster import batch
from cluster.config import LakeSettings
from cluster.errors import Conflict, Corrupt, Fenced, Unavailable
from cluster.model import Record
from cluster.stores.lake import Lake, Positions
from cluster.stores.log import Entry, LogGap, LogIdentity, LogLostTail, check_range
from tests.cluster.stores.lake_records import entity


class MemoryLog:
    """A log as the appender sees it."""

    def __init__(self, partitions: int = 2) -> None:
        self.identity = LogIdentity("log-a", 1, partitions)
        self.all_partitions = partitions
        self.held: dict[int, dict[int, Entry]] = {p: {} for p in range(partitions)}
        self.ends = dict.fromkeys(range(partitions), 0)

    def append(self, partition: int, records: Sequence[Record]) -> None:
        self.ends[partition] = number = self.ends[partition] + 1
        self.held[partition][number] = Entry(number, batch.encode(records), len(records), 0)

    def trim(self, partition: int, below: int) -> None:
        self.held[partition] = {n: entry for n, entry in self.held[partition].items() if n >= below}

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> Mapping[int, Sequence[Entry]]:
        found = {}
        for partition, at in after.items():
            held = self.held[partition]
            check_range(partition, at, min(held, default=self.ends[partition] + 1), self.ends[partition])
            entries = [held[n] for n in sorted(held) if n > at][:limit_entries]
            kept: list[Entry] = []
            for entry in entries:
                if kept and sum(len(e.data) for e in kept) + len(entry.data) > limit_bytes:
                    break
                kept.append(entry)
            if kept:
                found[partition] = kept
        return found


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake.open(tmp_path / "lake") as opened:
        yield opened


def appender(log: MemoryLog, lake: Lake, clock: Clock, **changed: object) -> tuple[LakeAppender, list[Positions]]:
    reported: list[Positions] = []
    settings = LakeSettings(commit_s=5.0, **{k: v for k, v in changed.items() if k == "commit_bytes"})  # type: ignore[arg-type]
    leased = changed.get("holds_lease", lambda: True)
    intend = changed.get("intend", lambda numbers: None)
    made = LakeAppender(log, lake, settings, 4, leased, reported.append, intend, clock, lambda: 0.0)  # type: ignore[arg-type]
    return made, reported


def people(first: int, count: int) -> list[Record]:
    return [entity(f"p{n}", position=n) for n in range(first, first + count)]


def ids_in(lake: Lake) -> list[str]:
    return sorted(name for part in lake.read() for name in part.column("id").to_pylist())


def test_says_whether_there_may_be_more_to_read(lake: Lake) -> None:
    log, clock = MemoryLog(), Clock()
    made, _ = appender(log, lake, clock)
    for n in range(5):
        log.append(1, people(n, 1))
    assert made.step().more, "four of a partition is what one reading takes"
    assert not made.step().more


def test_commits_when_time_is_up(lake: Lake) -> None:
    log, clock = MemoryLog(), Clock()
    made, reported = appender(log, lake, clock)
    assert made.step().idle
    log.append(0, people(0, 3))
    log.append(1, people(3, 2))
    assert made.step() == (2, 0, False, False)
    clock.now += 4.9
    assert made.step() == (0, 0, True, False)
    assert lake.version() is None
    clock.now += 0.2
    assert made.step() == (0, 5, False, False)
    assert reported[-1] == lake.positions()
    assert {p: tuple(at) for p, at in reported[-1].partitions.items()} == {0: (1, 3), 1: (1, 2)}
    assert made.buffered_bytes == 0


def test_commits_when_there_are_enough_bytes_and_reads_no_further(lake: Lake) -> None:
    log, clock = MemoryLog(1), Clock()
    made, reported = appender(log, lake, clock, commit_bytes=20_000)
    for i in range(40):
        log.append(0, people(i * 10, 10))
    largest = 0
    for _ in range(60):
        made.step()
        largest = max(largest, made.buffered_bytes)
    assert 0 < largest < 40_000
    assert len(reported) == 3  # where it began, and two commits: the clock stands still
    made.flush()
    assert lake.positions().of(0) == (40, 400)
    assert len(ids_in(lake)) == 400
    assert reported[-1].of(0).number == 40


def test_a_new_appender_goes_on_where_the_lake_stands(lake: Lake) -> None:
    log, clock = MemoryLog(), Clock()
    first, _ = appender(log, lake, clock)
    log.append(0, people(0, 3))
    first.step()
    first.flush()
    log.append(0, people(3, 3))
    first.step()
    second, reported = appender(log, lake, clock)
    log.trim(0, 2)
    second.step()
    assert reported[0].of(0).number == 1
    second.flush()
    assert ids_in(lake) == [f"p{n}" for n in range(6)]
    with pytest.raises(Conflict):
        first.flush()
    first.step()
    first.flush()
    assert ids_in(lake) == [f"p{n}" for n in range(6)]


def test_without_its_lease_it_writes_nothing(lake: Lake) -> None:
    log, clock = MemoryLog(), Clock()
    made, _ = appender(log, lake, clock, holds_lease=lambda: False)
    log.append(0, people(0, 3))
    made.step()
    with pytest.raises(Fenced, match="lease"):
        made.flush()
    assert lake.version() is None
    assert made.buffered_bytes == 0


def test_stops_at_a_gap_and_at_a_lost_tail(lake: Lake) -> None:
    log, clock = MemoryLog(), Clock()
    made, _ = appender(log, lake, clock)
    for i in range(3):
        log.append(0, people(i, 1))
    made.step()
    made.flush()
    log.append(0, people(3, 1))
    log.append(0, people(4, 1))
    log.trim(0, 5)
    with pytest.raises(LogGap):
        made.step()
    log.ends[0], log.held[0] = 2, {}
    with pytest.raises(LogLostTail):
        made.step()
    assert lake.positions().of(0).number == 3


def test_another_log_is_refused_and_another_generation_is_not(lake: Lake) -> None:
    log, clock = MemoryLog(), Clock()
    made, _ = appender(log, lake, clock)
    log.append(0, people(0, 1))
    made.step()
    made.flush()
    log.identity = log.identity._replace(generation=2)
    log.append(0, people(1, 1))
    again, _ = appender(log, lake, clock)
    again.step()
    again.flush()
    assert ids_in(lake) == ["p0", "p1"]
    other = MemoryLog()
    other.identity = LogIdentity("log-b", 2, 2)
    refused, _ = appender(other, lake, clock)
    with pytest.raises(Corrupt, match="filled from log 'log-a'; this log is 'log-b'"):
        refused.step()


def test_goes_on_after_a_failed_commit(tmp_path: Path) -> None:
    failing = [True]

    def fail(step: str) -> None:
        if failing and step == "lake.data":
            failing.clear()
            raise OSError(28, "No space left on device")

    log, clock = MemoryLog(), Clock()
    log.append(0, people(0, 3))
    with Lake.open(tmp_path / "lake", failpoint=fail) as lake:
        made, _ = appender(log, lake, clock)
        made.step()
        with pytest.raises(Unavailable, match="Free space"):
            made.flush()
        made.step()
        made.flush()
        assert ids_in(lake) == ["p0", "p1", "p2"]


def test_a_damaged_entry_stops_it(lake: Lake) -> None:
    log, clock = MemoryLog(), Clock()
    log.append(0, people(0, 1))
    log.held[0][1] = log.held[0][1]._replace(data=b"nothing")
    made, _ = appender(log, lake, clock)
    with pytest.raises(Corrupt, match="Arrow"):
        made.step()


def test_how_far_a_commit_goes_is_said_before_it_lands(lake: Lake) -> None:
    log, clock, intended = MemoryLog(), Clock(), list[Mapping[int, int]]()

    def intend(numbers: Mapping[int, int]) -> None:
        assert lake.positions().is_empty
        intended.append(numbers)
        if len(intended) == 1:
            raise Unavailable("the control store does not answer")

    made, reported = appender(log, lake, clock, intend=intend)
    log.append(0, people(0, 1))
    log.append(0, people(1, 1))
    log.append(1, people(2, 1))
    made.step()
    clock.now += 5.0
    with pytest.raises(Unavailable):
        made.step()
    assert lake.positions().is_empty
    made.step()
    clock.now += 5.0
    made.step()
    assert intended == [{0: 2, 1: 1}] * 2
    assert {p: at.number for p, at in reported[-1].partitions.items()} == intended[-1]
