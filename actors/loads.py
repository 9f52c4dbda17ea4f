"""Loads: files into the log, resumable, and seen before they are done.

    FileLoads.preview(file)      what would happen; nothing is written
    FileLoads.ingest(file)       epoch of the content → load row → ranges → `actors.ingest` → done
                                 called again after a crash, it goes on     (`actors.undo` takes a load back)

The epoch belongs to the content: the same file read again gives the same versions, so its records are duplicates.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from actors.admission import Admission, Clock, StageTimes, dry_admission, open_admission
from actors.connectors import BadRaw, ColumnMapping, FileLimits, FileSource, Position, RawRecord, open_source
from actors.ingest import DeadRecord, IngestCounts, IngestWorker
from actors.letter_rows import EVENT, HOLDS, ROW
from actors.retrying import Backoff
from actors.stages import Bad, Enrichers, Origin
from cluster.config import Settings
from cluster.errors import Conflict, Fenced, Forbidden, Rejected
from cluster.fold import state_line
from cluster.model import KIND_NAMES, Record
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.control_loads import Load
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import EventLog

PREVIEW_RECORDS, PREVIEW_ERRORS = 5, 20
_NUMBER_BITS = 20
_LOADS_LOOKED_AT = 100_000


@dataclass(frozen=True)
class LoadFile:
    """What to load and as what.

    Args:
        source: its facts' source; registered on first use.
        format: one of `actors.connectors.FORMATS`; None: by the file's name.
        mapping: how rows become events; None: they are events.
        case: of records that name none.
    """

    path: Path
    tenant: str
    source: str
    format: str | None = None
    mapping: ColumnMapping | None = None
    case: str | None = None

    def open(self, limits: FileLimits) -> FileSource:
        """The file's records. Raises Rejected."""
        defaults = {} if self.case is None else {"case": self.case}
        return open_source(self.path, format=self.format, mapping=self.mapping, defaults=defaults, limits=limits)

    def described(self) -> dict[str, Any]:
        """For the load's row."""
        mapping = self.mapping.model_dump(mode="json") if self.mapping else None
        return {"format": self.format, "mapping": mapping, "case": self.case}


@dataclass(frozen=True)
class LoadProgress:
    """How far a running load is. `records` counts since the start of this call; `waiting` says what for, if it does."""

    records: int
    dead: int
    bytes_done: int
    bytes_total: int
    seconds: float
    waiting: str = ""

    @property
    def records_per_s(self) -> float:
        """Rate since the start of this call."""
        return self.records / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class LoadResult:
    """A load that is done.

    Args:
        counts: of this call; the load's row has those of all calls.
        reached: log partition → number of the last entry: once the shards are there, its outcomes can be counted.
    """

    load: Load
    counts: IngestCounts
    reached: dict[int, int]
    times: StageTimes


@dataclass
class Preview:
    """What a load would do.

    Args:
        kinds: records by "kind type".
        first: the first records as they would be kept.
        errors: the first bad ones: {"position", "class", "reason"}; `dead` counts all, by class.
    """

    records: int = 0
    bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    first: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


class FileLoads:
    """Loads files. One thread uses an instance.

    Args:
        clock: seconds since 1970.
    """

    def __init__(
        self,
        control: ControlStore,
        log: EventLog,
        settings: Settings,
        enrichers: Enrichers | None = None,
        clock: Clock = time.time,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._control, self._log, self._settings = control, log, settings
        self._enrichers, self._clock, self._failpoint = enrichers, clock, failpoint
        kept = min(settings.ingest.dead_letter_payload_bytes, settings.ingest.line_bytes)
        self._limits = FileLimits(
            line_bytes=settings.ingest.line_bytes, file_bytes=settings.ingest.file_bytes, bad_payload_bytes=kept
        )

    def preview(self, file: LoadFile) -> Preview:
        """Reads the whole file through the stages and writes nothing. Raises Rejected."""
        source = file.open(self._limits)
        admission = dry_admission(self._settings, self._log.identity.partitions, self._enrichers)
        seen, limits, origin = Preview(), self._settings.ingest, _origin(file, 0)
        for items in source.batches(None, limits.batch_records, limits.batch_bytes):
            payloads = [i.payload if isinstance(i, RawRecord) else Bad(i.error_class, i.reason) for i in items]
            slots = admission.place(admission.examine(payloads, origin), origin, 0, [i.position for i in items])
            for item, slot in zip(items, slots.records, strict=True):
                seen.bytes += len(item.payload)
                _see(seen, item.position, slot)
        return seen

    def start(self, file: LoadFile) -> tuple[Load, FileSource]:
        """The load's row, new or (after a crash) the one that is still running, and the file's records.

        Raises:
            Rejected: the file will not do. Forbidden: the source is killed.
        """
        source, now = file.open(self._limits), self._clock()
        self._control.sources.register(file.tenant, file.source, now, transport="file")
        digest = source.digest + self._taken_back(file, source.digest)
        described = file.described() | {"parts": self._settings.ingest.workers, "row": dict(source.row_form)}
        load = self._control.loads.start(file.tenant, file.source, digest, now, label=str(file.path), mapping=described)
        return load, source

    def ingest(self, file: LoadFile, report: Callable[[LoadProgress], None] = lambda progress: None) -> LoadResult:
        """Loads a file, or goes on with a load of it that was interrupted. Safe to repeat at any time.

        Raises:
            Rejected: the file will not do or changed meanwhile. Retryable: a store stayed down; call again.
        """
        load, source = self.start(file)
        parts = source.split(int(load.mapping.get("parts", 1)))
        admission = open_admission(self._control, self._settings, self._log.identity.partitions, self._enrichers)
        counts, reached = IngestCounts(), dict[int, int]()
        telling = _Telling(report, parts, source.total_bytes)
        for number, part in enumerate(parts):
            worker = self.read_range(load, number, part, admission, telling.told)
            counts = _added(counts, worker)
            reached |= worker.reached
            telling.finished(worker)
        end = partial(self._control.loads.end, load.tenant, load.id, "done", self._clock())
        Backoff.of(self._settings.ingest).call(end)
        return LoadResult(self._control.loads.get(load.tenant, load.id), counts, reached, admission.times)

    def read_range(
        self,
        load: Load,
        number: int,
        part: FileSource,
        admission: Admission,
        report: Callable[[IngestCounts], None] = lambda counts: None,
    ) -> IngestCounts:
        """Reads one range of a load from where it is committed. Several workers may read one range each.

        Raises:
            Fenced: another worker reads this range.
        """
        committed = self._control.loads.positions(load.tenant, load.id).get(number, 0)
        progress = RangeProgress(self._control, load, number, committed, self._clock, self._settings)
        worker = IngestWorker(admission, self._log, progress, self._settings.ingest, failpoint=self._failpoint)
        origin = Origin(frozenset({load.tenant}), frozenset({load.source}), epoch=load.epoch)
        return worker.run(part, origin, load.epoch, unpacked(committed), report)

    def _taken_back(self, file: LoadFile, digest: str) -> str:
        """What makes the content's epoch a new one after its loads were undone: their floor hides the old one."""
        loads = self._control.loads.list(file.tenant, _LOADS_LOOKED_AT)
        undone = {
            found.epoch for found in loads
            if found.state == "undone" and found.source == file.source and found.digest.partition("/")[0] == digest
        }  # fmt: skip
        return f"/{len(undone)}" if undone else ""


class RangeProgress:
    """`actors.ingest.Progress` of one range of a load."""

    def __init__(
        self, control: ControlStore, load: Load, number: int, committed: int, clock: Clock, settings: Settings
    ) -> None:
        self._control, self._load, self._number, self._committed = control, load, number, committed
        self._clock, self._payload_bytes = clock, settings.ingest.dead_letter_payload_bytes

    def keep(self, dead: Sequence[DeadRecord]) -> None:
        """Keep bad records durably. Safe to call twice."""
        if dead:
            letters = [self._letter(record) for record in dead]
            self._control.dead_letters.add(self._load.tenant, letters, self._clock(), self._payload_bytes)

    def commit(self, position: Position, acked: int, dead: int) -> None:
        """Move the range on. Safe to call twice."""
        load, to = self._load, packed(position)
        if self._control.sources.get(load.tenant, load.source).state != "active":
            raise Forbidden(f"source {load.source!r} was killed: the load stops here; nothing more of it is read")
        if to <= self._committed:  # more of a row that is committed to its end
            return
        try:
            self._control.loads.commit(load.tenant, load.id, self._number, self._committed, to, acked=acked, dead=dead)
        except Conflict as error:
            stands = self._control.loads.positions(load.tenant, load.id).get(self._number, 0)
            if stands == self._committed:
                raise
            if stands != to:
                raise Fenced(f"load {load.id}: another worker reads range {self._number}; leave it to it") from error
        self._committed = to

    def _letter(self, dead: DeadRecord) -> NewDeadLetter:
        load, item, bad = self._load, dead.item, dead.bad
        holds = ROW if isinstance(item, BadRaw) else EVENT
        headers = {"file": load.label, "load": load.id, "position": list(item.position), HOLDS: holds}
        return NewDeadLetter(
            load.source, load.epoch, item.position, bad.error_class, bad.reason, item.payload, type=bad.type,
            headers=headers, payload_bytes=item.whole_bytes if isinstance(item, BadRaw) else 0,
        )  # fmt: skip


def packed(position: Position) -> int:
    """A position of a file as one integer above 0 that sorts as it does.

    Raises:
        Rejected: one row has more than 2^20 - 1 events.
    """
    number = position[1] if len(position) > 1 else 1
    if len(position) > 2 or not 0 < number < 1 << _NUMBER_BITS:
        raise Rejected(f"position {position}: one row may give up to {(1 << _NUMBER_BITS) - 1:,} events")
    return (position[0] << _NUMBER_BITS) + number


def unpacked(number: int) -> Position | None:
    """The position behind which to go on; None at the start."""
    return (number >> _NUMBER_BITS, number & ((1 << _NUMBER_BITS) - 1)) if number else None


def _origin(file: LoadFile, epoch: int) -> Origin:
    return Origin(frozenset({file.tenant}), frozenset({file.source}), epoch=epoch)


def _see(seen: Preview, position: Position, slot: Record | Bad) -> None:
    if isinstance(slot, Bad):
        seen.dead[slot.error_class] += 1
        if len(seen.errors) < PREVIEW_ERRORS:
            seen.errors.append({"position": list(position), "class": slot.error_class, "reason": slot.reason})
        return
    seen.records += 1
    seen.kinds[f"{KIND_NAMES[slot.kind]} {slot.type}"] += 1
    if len(seen.first) < PREVIEW_RECORDS:
        shown = msgspec.json.decode(state_line(slot))
        seen.first.append({name: value for name, value in shown.items() if name not in ("stamp", "epoch")})


def _added(total: IngestCounts, more: IngestCounts) -> IngestCounts:
    return IngestCounts(
        total.acked + more.acked, total.dead + more.dead, total.batches + more.batches, total.retries + more.retries,
        total.reached | more.reached,
    )  # fmt: skip


class _Telling:
    """Adds up the progress of a load's ranges."""

    def __init__(self, report: Callable[[LoadProgress], None], parts: Sequence[FileSource], total_bytes: int) -> None:
        self._report, self._parts, self._total_bytes = report, parts, total_bytes
        self._before, self._began = IngestCounts(), time.perf_counter()

    def told(self, counts: IngestCounts) -> None:
        acked, dead = self._before.acked + counts.acked, self._before.dead + counts.dead
        done = sum(part.progress_bytes() for part in self._parts)
        seconds = time.perf_counter() - self._began
        self._report(LoadProgress(acked, dead, done, self._total_bytes, seconds, counts.waiting))

    def finished(self, counts: IngestCounts) -> None:
        self._before = _added(self._before, counts)
