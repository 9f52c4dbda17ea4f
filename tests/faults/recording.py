"""What a report shows of a fault run: what its checks counted, and throughput and lag over time with its faults marked.

recordings.begin()           # a test begins; without it nothing looks, and marks are kept for nobody
… Installation(folder) …     # looks twice a second from its servers' start to its end
recordings.end()             # the recordings of that test
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.errors import IntelGraphError

if TYPE_CHECKING:
    from cluster.stores.log import EventLog
    from cluster.stores.shard import StoredShard
    from tests.faults.harness import Installation
    from tests.faults.producer import History

LOOK_S = 0.5
HEALED_S = 5.0
"""Lag below which a fault is over."""


@dataclass
class Outcome:
    """What the last check of a run found. `dead` counts dead letters; of a record's effects in the shards `lost` are
    missing or were never sent, `doubled` are there twice."""

    events: int = 0
    acked: int = 0
    unknown: int = 0
    applied: int = 0
    duplicate: int = 0
    stale: int = 0
    dead: int = 0
    lost: int = 0
    doubled: int = 0
    checked: bool = False

    def verified(self, histories: Sequence[History]) -> None:
        """A check held for these histories."""
        self.checked = True
        self.events = len(set().union(*(h.invoked for h in histories)))
        self.acked = len(set().union(*(h.ok for h in histories)))
        self.unknown = len(set().union(*(h.info for h in histories)) - set().union(*(h.ok for h in histories)))


class Mark(NamedTuple):
    """Something was done to the system, `at_s` after its start; `fault`: it went wrong by that; else it healed."""

    at_s: float
    what: str
    fault: bool


class Point(NamedTuple):
    """One look.

    Args:
        records: that the shards' cursors have counted so far.
        lag_s: how long the oldest waits that was sent and is not in its shard; None where nobody can tell.
        memory_bytes: of all processes; None where nobody asked.
    """

    at_s: float
    records: int
    lag_s: float | None
    memory_bytes: int | None = None


@dataclass
class Recording:
    """Of one installation. Its thread has connections of its own, and looks again where one breaks."""

    system: Installation
    looks: bool
    marks: list[Mark] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    memory: Callable[[], int] | None = None
    """Bytes of all processes, where somebody wants them in the points."""

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Time counts from now, what was marked before is forgotten, and looking begins. Safe to call twice."""
        if self.looks and self._thread is None:
            self._began = time.monotonic()
            self.marks.clear()
            self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """No more looks. Safe to call twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(30.0)

    def mark(self, what: str, fault: bool = True) -> None:
        """Something was done to the system; from any thread."""
        self.marks.append(Mark(round(time.monotonic() - self._began, 3), what, fault))

    def _run(self) -> None:
        gauge = Gauge(self.system)
        while not self._stopping.wait(LOOK_S):
            records, lag_s = gauge.look()
            at_s = round(time.monotonic() - self._began, 3)
            self.points.append(Point(at_s, records, lag_s, self.memory() if self.memory else None))
        gauge.close()


class Gauge:
    """Reads cursors and the log's ends over connections that it keeps. For one thread."""

    def __init__(self, system: Installation) -> None:
        self._system = system
        self._log: EventLog | None = None
        self._shards: dict[str, StoredShard] = {}
        self._at: dict[str, dict[int, int]] = {}
        self._records: dict[str, int] = {}
        self._waiting: dict[int, tuple[int, float]] = {}

    def close(self) -> None:
        """Close connections."""
        for shard in self._shards.values():
            shard.close()
        if self._log is not None:
            self._log.close()

    def look(self) -> tuple[int, float | None]:
        """Records that shards have counted, and lag in seconds; a shard that does not answer is where it was."""
        for name in self._system.shard_ids:
            try:
                shard = self._shards.get(name) or self._system.open_beside(name)
                self._shards[name] = shard
                cursors = shard.cursors()
                self._at[name] = {p: c.at for p, c in cursors.items()}
                self._records[name] = sum(c.records for c in cursors.values())
            except (IntelGraphError, OSError):
                if (broken := self._shards.pop(name, None)) is not None:
                    broken.close()
        return sum(self._records.values()), self._lag_s()

    def _lag_s(self) -> float | None:
        answered = True
        try:
            self._log = self._log or self._system.open_log_beside()
            self._waiting = self._oldest(self._log)
        except (IntelGraphError, OSError):
            answered = False
            if self._log is not None:
                self._log.close()
            self._log = None
        sending = [p for p in self._system.producers if p.begun and p.sent < p.total and not p.stopping]
        since = [*(p.invoked_at for p in sending), *(at_s for _, at_s in self._waiting.values())]
        if not since:
            return 0.0 if answered else None
        return max(0.0, time.time() - min(since))

    def _oldest(self, log: EventLog) -> dict[int, tuple[int, float]]:
        """By partition that has one: the entry before the oldest that a shard has not applied, and when that came."""
        current, found = self._system.stack.current_map(), dict[int, tuple[int, float]]()
        begins = log.begins()
        for partition, end in log.ends().items():
            owners = current.shards_of_partition(partition)
            least = max(min(self._at.get(s, {}).get(partition, 0) for s in owners), begins[partition] - 1)
            if least >= end:
                continue
            if self._waiting.get(partition, (-1, 0.0))[0] == least:
                found[partition] = self._waiting[partition]
                continue
            entries = log.read(partition, least, 1, 1)
            if entries:
                found[partition] = least, entries[0].appended_ms / 1000
        return found


class Recordings:
    """Of the test that runs now."""

    def __init__(self) -> None:
        self._made: list[Recording] = []
        self._active = False

    def begin(self) -> None:
        """From now on every installation is looked at."""
        self._made, self._active = [], True

    def of(self, system: Installation) -> Recording:
        """A recording of a new installation."""
        self._made.append(Recording(system, self._active))
        return self._made[-1]

    def end(self) -> list[Recording]:
        """All of this test, the longest one first."""
        made, self._made, self._active = self._made, [], False
        for one in made:
            with suppress(RuntimeError):
                one.stop()
        return sorted(made, key=lambda one: -len(one.points))


recordings = Recordings()


def worst_lag_s(points: Sequence[Point]) -> float:
    """The longest lag that was seen."""
    return max((p.lag_s for p in points if p.lag_s is not None), default=0.0)


def heal_s(points: Sequence[Point], marks: Sequence[Mark], healed_s: float = HEALED_S) -> float:
    """The longest time from a fault until lag stayed below `healed_s`, up to the next fault; 0 where it always was."""
    faults = [m.at_s for m in marks if m.fault]
    worst = 0.0
    for begin, end in pairwise([*faults, float("inf")]):
        high = [p.at_s for p in points if begin <= p.at_s < end and (p.lag_s is None or p.lag_s >= healed_s)]
        worst = max(worst, max(high, default=begin) - begin)
    return worst


def as_lines(recording: Recording) -> list[dict[str, Any]]:
    """Points and marks in the order of time, as plain values."""
    points = [{"at_s": p.at_s, "records": p.records, "lag_s": p.lag_s, "memory_bytes": p.memory_bytes}
              for p in recording.points]  # fmt: skip
    marks = [{"at_s": m.at_s, "mark": m.what, "fault": m.fault} for m in recording.marks]
    return sorted([*points, *marks], key=lambda line: line["at_s"])


def counted(recording: Recording) -> dict[str, Any]:
    """What a row says of it."""
    return {
        **asdict(recording.outcome),
        "worst_lag_s": round(worst_lag_s(recording.points), 2),
        "heal_s": round(heal_s(recording.points, recording.marks), 2),
    }
