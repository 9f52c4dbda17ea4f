"""Looks at the topics of all streams, keeps what has changed, and shares the partitions out to the workers.

    every look_s: topic.look → control store (`cluster.streams.follow`) → who reads → shares → worker.assign

One thread does it, beside the supervisor. Should two do it for a moment, they say the same: shares are a function of
streams and workers, and a partition has one reader in effect, by its lease.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from actors.admission import Clock
from actors.stream_shares import shared_out
from cluster.errors import IntelGraphError
from cluster.stores.control import ControlStore
from cluster.stores.kafka_stream_records import Reached
from cluster.streams.model import Look, Stream, StreamPartition
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.streams")

Assign = Callable[[str, Mapping[str, Collection[int]], Mapping[str, float]], Mapping[str, str]]
"""(worker, partitions by stream, records a second by stream where it has a cap) → what its readers wait for, by stream.
Does not block for long; raises nothing for a worker that is away, and tells nothing of it."""


class LookedAt(Protocol):
    """A topic as a broker's client gives it."""

    @property
    def id(self) -> str:
        """Hexadecimal."""

    @property
    def first(self) -> Mapping[int, int]:
        """First offset that can be read, by partition."""

    @property
    def end(self) -> Mapping[int, int]:
        """Offset behind the last record, by partition."""

    @property
    def unseen(self) -> frozenset[int]:
        """Partitions whose leaders say nothing."""

    @property
    def replaced(self) -> Mapping[int, int]:
        """Offset from which on there are other records than were read, by partition."""


PARTIAL = (
    "updates come without the row before them: the table's REPLICA IDENTITY is not FULL, so a large value that did not"
    " change is missing, and is a dead letter; ALTER TABLE … REPLICA IDENTITY FULL"
)

SLOWED = "it is read more slowly while a host has no core free (streams.cores_free)"
_EVEN = 0.2
"""Of a cap goes to all partitions alike; the rest by what waits in each."""


class StreamWatch:
    """For one thread. What streams wait for is kept with them, as their notes.

    Args:
        look: at a topic by its name; with how far its partitions are read.
        workers: (partitions of all active streams) → names of those that they go to; asked at each look.
        pace: (records read so far, and records that wait, by tenants) → caps of tenants, records a second; asked at
            each look.
    """

    def __init__(
        self,
        control: ControlStore,
        look: Callable[[str, Mapping[int, Reached]], LookedAt],
        workers: Callable[[Sequence[StreamPartition]], Collection[str]],
        assign: Assign,
        clock: Clock = time.time,
        pace: Callable[[Mapping[str, int], Mapping[str, int]], Mapping[str, float]] = lambda read, unread: {},
    ) -> None:
        self._pace = pace
        self._control, self._look, self._workers, self._assign = control, look, workers, assign
        self._clock = clock

    def run(self, every_s: float, stopping: threading.Event) -> None:
        """`turn` every few seconds until `stopping` is set."""
        while not stopping.is_set():
            try:
                self.turn()
            except Exception as error:  # a thread that dies would share out nothing ever after: say it, look again
                LOG.error("streams_look_failed", error)
            stopping.wait(every_s)

    def turn(self) -> None:
        """One look at everything."""
        known = self._control.streams.list()
        streams = [stream for stream in known if stream.state == "active"]
        problems = {stream.spec.name: self._looked(stream) for stream in streams}
        parts = {stream.spec.name: self._control.streams.partitions(stream.spec.name) for stream in streams}
        waiting: dict[str, str] = {}
        all_parts = [(name, part.partition) for name, mine in parts.items() for part in mine]
        caps = self._caps(known, parts)
        slowed = {name for name, _ in caps}
        workers = self._workers([part for mine in parts.values() for part in mine])
        for worker, mine in shared_out(all_parts, workers).items():
            shares: dict[str, list[int]] = {}
            for name, partition in sorted(mine):
                shares.setdefault(name, []).append(partition)
            held = {name: sum(caps[name, p] for p in own if (name, p) in caps) for name, own in shares.items()}
            waiting |= self._assign(worker, shares, {name: cap for name, cap in held.items() if cap})
        for stream in streams:
            name = stream.spec.name
            against = [problems[name] or waiting.get(name, ""), *_notes(parts[name]), *[SLOWED] * (name in slowed)]
            self._tell(stream, "; ".join(note for note in against if note))

    def _caps(
        self, known: Sequence[Stream], parts: Mapping[str, Sequence[StreamPartition]]
    ) -> dict[tuple[str, int], float]:
        """Records a second, by stream and partition of active streams, where their tenants have a cap."""
        by_owner: dict[str, list[str]] = {}
        for stream in known:
            by_owner.setdefault(",".join(sorted(stream.spec.tenants)), []).append(stream.spec.name)
        counts = {
            stream.spec.name: sum(
                part.acked + part.dead
                for part in parts.get(stream.spec.name) or self._control.streams.partitions(stream.spec.name)
            )
            for stream in known
        }
        read = {owner: sum(counts[name] for name in mine) for owner, mine in by_owner.items()}
        unread = {
            owner: sum(part.lag_records for name in mine for part in parts.get(name, ()))
            for owner, mine in by_owner.items()
        }
        caps: dict[tuple[str, int], float] = {}
        for owner, cap in self._pace(read, unread).items():
            lags = {(name, p.partition): 1 + p.lag_records for name in by_owner[owner] for p in parts.get(name, ())}
            total = sum(lags.values())
            caps |= {at: cap * (_EVEN / len(lags) + (1 - _EVEN) * lag / total) for at, lag in lags.items()}
        return caps

    def _tell(self, stream: Stream, note: str) -> None:
        if note != stream.note:
            LOG.info("stream_waits" if note else "stream_goes_on", stream=stream.spec.name, reason=note)
            self._control.streams.tell(stream.spec.name, note)
            if PARTIAL in note and PARTIAL not in stream.note:
                self._audit(stream, PARTIAL)

    def _looked(self, stream: Stream) -> str:
        """Keeps what a topic is now; what stands against that, in words."""
        name = stream.spec.name
        try:
            parts = self._control.streams.partitions(name)
            at = {part.partition: Reached(part.offset, part.leader_epoch) for part in parts if part.epoch}
            found = self._look(stream.spec.topic, at)
            reached = {part.partition: part.offset for part in parts}
            look = Look(found.id, found.first, found.end, reached, found.unseen, found.replaced)
            notes = self._control.streams.looked(name, look, self._clock())
        except IntelGraphError as error:
            return str(error)
        for note in notes:
            LOG.warning("stream_changed", stream=name, topic=stream.spec.topic, note=note)
            self._audit(stream, note)
        if found.unseen:
            return f"partitions {sorted(found.unseen)} have no leader that answers: see that their brokers run"
        return ""

    def _audit(self, stream: Stream, note: str) -> None:
        self._control.audit.append(
            stream.spec.owner, "system", "stream.changed", stream.spec.name, self._clock(), {"note": note}
        )


def _notes(parts: Sequence[StreamPartition]) -> list[str]:
    """What stands against single partitions, and what is to be known of them."""
    each = dict.fromkeys(part.note for part in parts if part.note)  # many may wait for the same
    return [*each, *([PARTIAL] if any(part.partial for part in parts) else [])]
