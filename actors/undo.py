"""Undo: takes a load back. A floor hides what its source said up to the load; what remains true is said again.

    lease → number of this undo → read the lake → append what remains → append the floor → mark the load

Versions order it without a race. Let `top` be the newest epoch of the source that was ever taken back. The floor and
what is said again are of the version (top, [2^64-1, number of this undo]): after everything of that epoch, before
everything of any later one, whenever that arrives. Taking back a second load works the same way on the source's own
records, so that nothing of an earlier undo is needed. Each step may be repeated: after a crash, undo the load again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from actors.admission import Clock
from actors.retrying import Backoff
from actors.stages.records import restamped
from actors.stages.route import entries_of
from cluster.config import Settings
from cluster.errors import Rejected
from cluster.fold import Floors, fold_batch
from cluster.model import Kind, Record, floor_record
from cluster.shard_map import partition_of
from cluster.stores.control import ControlStore
from cluster.stores.control_loads import Load
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import Append, EventLog
from cluster.versions import MAX_INTEGER, decode, encode

LEASE_S = 600.0
_LOADS_LOOKED_AT = 100_000
_FOLD_RECORDS = 50_000


class LakeReader(Protocol):
    """What undo needs of the lake."""

    def events(self, tenant: str, source: str) -> Iterator[Record]:
        """Everything that the source said and its floors, complete up to the log's ends at the time of the call."""


class Undone(NamedTuple):
    """What an undo did.

    Args:
        said_again: records of the source that were appended again, since the floor hides them.
        reached: log partition → number of the last entry: once the shards are there, the load is gone.
    """

    load: Load
    said_again: int
    reached: dict[int, int]


class Undo:
    """Takes loads back.

    Args:
        clock: seconds since 1970.
        failpoint: called with `before append`, `before floor`, `before mark`.
    """

    def __init__(
        self,
        control: ControlStore,
        log: EventLog,
        lake: LakeReader,
        settings: Settings,
        clock: Clock = time.time,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._control, self._log, self._lake, self._settings = control, log, lake, settings
        self._clock, self._failpoint, self._backoff = clock, failpoint, Backoff.of(settings.ingest)

    def undo(self, tenant: str, load_id: str, actor: str) -> Undone:
        """Takes a load back, with all readings of the same content. Safe to repeat; after a crash, repeat it, and after
        entries of the log were lost for good: what is lacking of it there is appended again.

        Raises:
            NotFound: the tenant has no such load.
            Rejected: it is still running, or its records bring epochs of their own.
            Conflict: another load of the source is being taken back.
        """
        load = self._control.loads.get(tenant, load_id)
        if load.state == "running":
            raise Rejected(f"load {load_id} is not finished: ingest the file again to its end, then undo it")
        name = f"undo/{tenant}/{load.source}"
        token = self._control.leases.acquire(name, uuid.uuid4().hex, LEASE_S, self._clock())
        try:
            done = self._undo(load)
            self._control.leases.check(name, token)
            self._mark(load, actor, done)
        finally:
            self._control.leases.release(name, token)
        return done._replace(load=self._control.loads.get(tenant, load_id))

    def _undo(self, load: Load) -> Undone:
        number = self._control.loads.epoch_of(load.tenant, load.source, f"undo/{load.id}", self._clock())
        taken_back = self._epochs_taken_back(load) | {load.epoch}
        version = encode(max(taken_back), [MAX_INTEGER, number])
        again = load.state == "undone"
        if again and self._is_held(load, version):
            return Undone(load, 0, {})
        found = load.epoch if load.acked and not again else None
        remaining = remains(self._lake.events(load.tenant, load.source), taken_back, found)
        reached: dict[int, int] = {}
        self._failpoint("before append")
        self._append([restamped(record, version) for record in remaining], reached)
        self._failpoint("before floor")
        partitions = range(self._log.identity.partitions)
        self._append([floor_record(load.tenant, load.source, "", version, at) for at in partitions], reached)
        self._failpoint("before mark")
        return Undone(load, len(remaining), reached)

    def _is_held(self, load: Load, version: str) -> bool:
        """Whether every partition has the floor, or that of a later undo. What it says again stands before it, and a
        log loses its tail first."""
        held = {
            record.bucket for record in self._lake.events(load.tenant, load.source)
            if record.kind == Kind.FLOOR and not record.type and record.version >= version
        }  # fmt: skip
        return held.issuperset(range(self._log.identity.partitions))

    def _epochs_taken_back(self, load: Load) -> set[int]:
        loads = self._control.loads.list(load.tenant, _LOADS_LOOKED_AT)
        return {found.epoch for found in loads if found.source == load.source and found.state == "undone"}

    def _append(self, records: list[Record], reached: dict[int, int]) -> None:
        count, limits = self._log.identity.partitions, self._settings
        groups: dict[int, list[Record]] = {}
        for record in records:
            groups.setdefault(partition_of(record.bucket, count), []).append(record)
        for partition, group in sorted(groups.items()):
            for at in range(0, len(group), limits.ingest.batch_records):
                part = group[at : at + limits.ingest.batch_records]
                entries = entries_of(partition, part, limits.log.entry_bytes)
                reached[partition] = self._backoff.call(_appending(self._log, entries))[-1]

    def _mark(self, load: Load, actor: str, done: Undone) -> None:
        if load.state == "undone" and not done.reached:
            return
        now, detail = self._clock(), {"source": load.source, "epoch": load.epoch, "said_again": done.said_again}
        self._control.audit.append(load.tenant, actor, "load.undo", load.id, now, detail)
        same = [
            found for found in self._control.loads.list(load.tenant, _LOADS_LOOKED_AT)
            if found.source == load.source and found.epoch == load.epoch and found.state == "done"
        ]  # fmt: skip
        for found in sorted(same, key=lambda found: found.id == load.id):  # itself last: until then, repeat it all
            self._control.loads.end(load.tenant, found.id, "undone", now)


def remains(events: Iterator[Record], taken_back: set[int], epoch: int | None) -> list[Record]:
    """What a source's records up to the newest epoch taken back say without those: one record a register.

    Args:
        epoch: of the load that is being taken back; None if it brought nothing, or what it brought may be lost.

    Raises:
        Rejected: the lake holds nothing of that epoch: the load's records bring epochs of their own.
    """
    floors, kept, waiting, top, found = Floors(), list[Record](), list[Record](), max(taken_back), False
    for record in events:
        at, position = decode(record.version)
        if position and position[0] == MAX_INTEGER:
            continue  # of an earlier undo: a floor, or what was said again
        if record.kind == Kind.FLOOR:
            floors.raise_to(record.tenant, record.source, record.type, record.version)
        elif record.kind < Kind.FLOOR:
            found = found or at == epoch
            if at <= top and at not in taken_back:
                waiting.append(record)
        if len(waiting) >= _FOLD_RECORDS:
            kept, waiting = fold_batch([*kept, *waiting], floors)[0], []
    if epoch is not None and not found:
        raise Rejected("nothing was said in this load's epoch: its records bring epochs of their own; send deletes")
    return fold_batch([*kept, *waiting], floors)[0]


def _appending(log: EventLog, entries: list[Append]) -> Callable[[], list[int]]:
    return lambda: log.append(entries)
