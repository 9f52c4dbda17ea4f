"""Reads one stream: the partitions that a worker was given, in one thread, into the event log.

    leases → topic.read(offsets) → items → stages → append → dead letters → commit (offset, under the lease)

While the log is full or a store is down the thread waits with one batch in its hands, and the topic is not read on:
that is the back-pressure. Nor is it while all shards have enough to do (`actors.ahead`). What is read twice, after a
crash or by a worker that lost its lease, is a duplicate.

A partition that cannot be read on rests, with the reason in its note, and is tried again after a while, or at once when
the stream is resumed (which takes the note away); the others are read on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from math import inf

from actors.admission import Admission, Clock, open_admission
from actors.ahead import Ahead
from actors.connectors.topic import TopicBatch, topic_batch
from actors.ingest import IngestCounts, IngestWorker
from actors.stages import Origin
from actors.stream_held import Held
from actors.stream_progress import StreamProgress, floor_entries
from actors.stream_schemas import Examined, StreamSchemas
from actors.stream_topic import PartitionRead, TopicReader
from actors.tempo import Tempo
from cluster.config import Settings
from cluster.errors import Conflict, Fenced, IntelGraphError, NotFound, Retryable
from cluster.stores.control import ControlStore
from cluster.stores.control_streams import partition_lease
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import EventLog
from cluster.streams.model import Stream, StreamPartition
from cluster.telemetry import metrics
from cluster.telemetry.logs import Log
from cluster.versions import encode

LOG = Log("intelgraph.stream")
_REFRESH_S, _IDLE_S, _PAUSE_FIRST_S, _PAUSE_MOST_S = 0.5, 0.1, 0.1, 5.0
_CAPPED_S, _FEWEST, _REST_MOST_S, _CAP_LOOKS = 0.05, 100, 1.0, 10
"""With a cap, a reading takes what it lets through in so long, but not fewer records than these; the longest rest after
one, for caps change; and after how many looks without a word there is none any more."""


@dataclass
class ReaderStatus:
    """What a reader tells of itself: `partitions` are those that it holds."""

    stream: str
    state: str = "starting"
    reason: str = ""
    partitions: tuple[int, ...] = ()
    acked: int = 0
    dead: int = 0


class _Stop(Exception):
    """No error: the thread was asked to end."""


class StreamReader:
    """Reads until `stop`. `run` is for one thread; the rest may be called by others.

    Args:
        holder: names whoever reads: a process that is started again takes its own leases over at once.
        ahead: when to read on; None: always.
        open_log: a connection to the event log of one's own.
        failpoint: as `actors.ingest.IngestWorker` calls it.
    """

    def __init__(
        self,
        control: ControlStore,
        settings: Settings,
        open_log: Callable[[], EventLog],
        topic: TopicReader,
        name: str,
        holder: str,
        clock: Clock = time.time,
        failpoint: Failpoint = no_failpoint,
        ahead: Ahead | None = None,
    ) -> None:
        self._ahead = ahead
        self._control, self._settings, self._open_log, self._topic = control, settings, open_log, topic
        self._name, self._holder, self._clock, self._failpoint = name, holder, clock, failpoint
        self._stopping = threading.Event()
        self._wanted: frozenset[int] = frozenset()
        self._cap, self._cap_until = inf, 0.0
        self._held: dict[int, Held] = {}
        self._stream: Stream | None = None
        self._more = True
        """Whether the topic has more behind what was read last; nobody knows before that."""
        self._due = 0.0
        self._partitions_of_log = 0
        self._schemas = StreamSchemas(control, settings.streams.registry, clock)
        self.status = ReaderStatus(name)

    def assign(self, partitions: Collection[int], cap: float = inf) -> None:
        """What has to be read from now on, and how many records a second at most; what is read no longer is given back
        after the batch at hand."""
        self._cap, self._cap_until = cap, time.monotonic() + _CAP_LOOKS * self._settings.streams.look_s
        if self._wanted != frozenset(partitions):
            self._wanted, self._due = frozenset(partitions), 0.0

    @property
    def waits_for(self) -> str:
        """What stands against its reading; empty where nothing does."""
        return self.status.reason if self.status.state in ("waiting", "stopped") else ""

    def stop(self) -> None:
        """End after the batch at hand."""
        self._stopping.set()

    def run(self) -> None:
        """Reads until `stop`. Errors that may pass are waited for; others are shown and looked at again."""
        pause_s = _PAUSE_FIRST_S
        while not self._stopping.is_set():
            before = self.status.acked
            try:
                with closing(self._open_log()) as log:
                    self._loop(log)
            except _Stop:
                pass
            except Retryable as error:
                self._say("waiting", error)
            except IntelGraphError as error:
                self._say("stopped", error)
            except Exception as error:  # a thread that dies says nothing of it: show it, and begin anew
                self._say("stopped", error)
            if self.status.acked != before:
                pause_s = _PAUSE_FIRST_S
            self._give_back(())
            self._due = 0.0
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MOST_S)
        self._schemas.close()

    def _say(self, state: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, IntelGraphError) else f"{type(error).__name__}: {error}"
        self.status.state, self.status.reason = state, reason
        LOG.warning("stream_begins_anew", stream=self._name, state=state, reason=reason)

    def _loop(self, log: EventLog) -> None:
        self._partitions_of_log = log.identity.partitions
        admission = open_admission(self._control, self._settings, self._partitions_of_log)
        ingest, streams = self._settings.ingest, self._settings.streams
        tempo = Tempo()
        while not self._stopping.is_set():
            stream = self._refreshed(log, admission)
            asked = {p: held.progress for p, held in self._held.items() if held.readable}
            if stream is None or not asked:
                self._stopping.wait(_IDLE_S)
                continue
            if self._ahead is not None and self._ahead.enough():
                self._say_how_it_goes()
                self._stopping.wait(_IDLE_S)
                continue
            if rest_s := tempo.left_s():
                self._stopping.wait(min(rest_s, _IDLE_S))
                continue
            offsets = {partition: progress.offset for partition, progress in asked.items()}
            epochs = {partition: progress.leader_epoch for partition, progress in asked.items()}
            most_bytes = min(ingest.batch_bytes, streams.read_ahead_bytes // len(offsets) + 1)
            most = self._most(len(offsets))
            found = self._topic.read(stream.topic_id, offsets, most, most_bytes, streams.block_ms, epochs)
            polled_ms, records = time.time_ns() // 1_000_000, sum(len(read.records) for read in found.values())
            tempo.found(self._rest_s(found, records))
            with metrics.stage("intake", records) if records else nullcontext():
                against = {p: self._take(self._held[p], read, polled_ms) or read.failed for p, read in found.items()}
            for partition in asked.keys() & self._held.keys():
                self._note(self._held[partition], against.get(partition))
            self._more = any(read.next < read.end for read in found.values())
            self._say_how_it_goes()

    def _say_how_it_goes(self) -> None:
        enough = self._ahead.reason if self._ahead is not None and self._more else ""
        self.status.state, self.status.reason = ("waiting", enough) if enough else ("running", "; ".join(self._notes()))

    def _most(self, partitions: int) -> int:
        """Records of one partition in one reading, at most: with a cap, what it lets through in a moment."""
        most, cap = self._settings.ingest.batch_records, self._cap
        if time.monotonic() > self._cap_until:  # who gives caps out says nothing any more
            self._cap = cap = inf
        return min(most, max(1, int(max(_FEWEST, cap * _CAPPED_S) / partitions))) if cap < inf else most

    def _rest_s(self, found: Mapping[int, PartitionRead], records: int) -> float:
        """From this reading to the next: none where more is behind it, unless there is a cap."""
        whole = all(read.next >= read.end for read in found.values())
        interval_s = self._settings.streams.interval_ms / 1e3 if records and whole else 0.0
        return max(interval_s, min(_REST_MOST_S, records / self._cap))

    def _notes(self) -> list[str]:
        return list(dict.fromkeys(held.part.note for held in self._held.values() if held.part.note))

    def _note(self, held: Held, failed: IntelGraphError | None) -> None:
        """Keeps why a partition cannot be read on, and lets it rest; or that nothing stands against it any more."""
        note = "" if failed is None else str(failed)
        if failed is None:
            held.go_on()
        else:
            held.rest(failed)
        if note == held.part.note:
            return
        partition = held.part.partition
        try:
            self._control.streams.tell_partition(self._name, partition, held.token, note)
        except Fenced:
            self._let_go(partition)
            return
        held.part = replace(held.part, note=note)
        held.measure(self._name, self._clock())
        LOG.warning(
            "partition_rests" if note else "partition_goes_on", stream=self._name, partition=partition, reason=note
        )

    def _refreshed(self, log: EventLog, admission: Admission) -> Stream | None:
        """The stream and the partitions that are ours, looked up again now and then; None while nothing is to be
        read."""
        if time.monotonic() < self._due:
            return self._stream
        self._due = time.monotonic() + _REFRESH_S
        self._stream = self._looked_up(log, admission)
        self.status.partitions = tuple(sorted(self._held))
        return self._stream

    def _looked_up(self, log: EventLog, admission: Admission) -> Stream | None:
        try:
            stream = self._control.streams.get(self._name)
        except NotFound:
            self._give_back(())
            return None
        if stream.state != "active":
            self._give_back(())
            self.status.state, self.status.reason = stream.state, stream.note
            return None
        parts = {part.partition: part for part in self._control.streams.partitions(self._name) if part.epoch}
        if self._control.streams.get(self._name).topic_id != stream.topic_id:
            return None  # between the two it became another topic's
        self._give_back(self._wanted & parts.keys())
        for partition in self._wanted & parts.keys():
            self._hold(stream, parts[partition], log, admission)
        for held in self._held.values():
            held.measure(self._name, self._clock())
        return stream

    def _give_back(self, keep: Collection[int]) -> None:
        for partition in [p for p in self._held if p not in keep]:
            held = self._let_go(partition)
            with suppress(IntelGraphError):  # then its time runs out
                self._control.leases.release(partition_lease(self._name, partition), held.token)

    def _let_go(self, partition: int) -> Held:
        self._held[partition].forget(self._name)
        return self._held.pop(partition)

    def _hold(self, stream: Stream, part: StreamPartition, log: EventLog, admission: Admission) -> None:
        """Renew the partition's lease, or take it; one that another holds is tried again at the next look."""
        name, lease_s = partition_lease(self._name, part.partition), self._settings.streams.lease_s
        held = self._held.get(part.partition)
        if held is not None:
            try:
                self._control.leases.renew(name, held.token, lease_s, self._clock())
            except Fenced:
                self._let_go(part.partition)
                held = None
        if held is not None and (held.part.epoch, held.progress.offset) == (part.epoch, part.offset):
            held.seen(part)
            return
        try:
            token = self._control.leases.acquire(name, self._holder, lease_s, self._clock())
        except Conflict:
            return
        for now in self._control.streams.partitions(self._name):  # under the lease; it may be gone meanwhile
            if (now.partition, now.epoch) == (part.partition, part.epoch):
                self._held[now.partition] = self._begun(stream, now, token, log, admission)

    def _begun(self, stream: Stream, part: StreamPartition, token: int, log: EventLog, admission: Admission) -> Held:
        ingest = self._settings.ingest
        progress = StreamProgress(self._control, stream, part, token, self._clock, ingest.dead_letter_payload_bytes)
        worker = IngestWorker(admission, log, progress, ingest, failpoint=self._failpoint, report=self._waiting)
        origin = Origin(frozenset(stream.spec.tenants), frozenset({stream.spec.name}), epoch=progress.origin_epoch)
        return Held(part, token, progress, worker, origin, part.record_ms)

    def _waiting(self, counts: IngestCounts) -> None:
        self.status.state, self.status.reason = "waiting", counts.waiting
        if self._stopping.is_set():
            raise _Stop

    def _take(self, held: Held, read: PartitionRead, polled_ms: int) -> IntelGraphError | None:
        """Brings what was read into the log; or says why its schemas do not let it: that is this partition's affair."""
        cut, progress, stream = held.part.cut, held.progress, self._stream
        records = read.records if cut is None else [record for record in read.records if record.offset < cut]
        upto = read.next if cut is None else min(read.next, cut)
        if upto <= progress.offset or stream is None:
            return None
        try:
            examined = self._schemas.examine(stream, held.part.partition, records, upto)
            found = self._read_by(stream, examined, progress.carried)
        except IntelGraphError as error:
            return error
        if examined.upto > progress.offset:
            self._take_examined(held, stream, examined, found, read, polled_ms)
        if examined.drift is not None and held.part.partition in self._held:
            self._schemas.stop(stream, examined.drift)
            self._due = 0.0
        return None

    def _read_by(self, stream: Stream, examined: Examined, carried: int) -> TopicBatch:
        kept_bytes = self._settings.ingest.dead_letter_payload_bytes
        return topic_batch(stream.spec, examined.records, carried, kept_bytes, examined.decode)

    def _take_examined(
        self, held: Held, stream: Stream, examined: Examined, found: TopicBatch, read: PartitionRead, polled_ms: int
    ) -> None:
        progress, records, upto = held.progress, examined.records, examined.upto
        record_ms = max((0, *(record.timestamp_ms for record in records)))
        same = upto == read.next or read.leader_epoch == progress.leader_epoch  # they only grow along a partition
        progress.reading(found, upto, record_ms, read.leader_epoch if same else -1)
        versions = [encode(held.origin.epoch, position) for position in found.floors]
        floors = [entry for v in versions for entry in floor_entries(stream.spec, v, self._partitions_of_log)]
        try:
            batch = held.worker.take(found.items, held.origin, held.part.epoch, floors, polled_ms)
        except Fenced as error:
            LOG.warning("partition_left", stream=self._name, partition=held.part.partition, reason=str(error))
            self._let_go(held.part.partition)
            return
        held.record_ms = record_ms or held.record_ms
        self.status.acked += batch.good
        self.status.dead += len(batch.bad())
        if found.partial_updates:
            metrics.STREAM_PARTIAL.labels(self._name).inc(found.partial_updates)
        held.part = replace(held.part, end=max(held.part.end, read.end))
        held.measure(self._name, self._clock())
