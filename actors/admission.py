"""Admission: the stages in their order, for every way in: files, pushes, replays.

    events = admission.examine(payloads, origin)             decode → validate → normalise → enrich → names
    batch  = admission.place(events, origin, epoch, positions)   positions → place → route

Between the two, whoever needs positions for its records gets them. Nothing is appended here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.names import KnownNames, PositionModes, Register, UsePositions
from actors.stages import Bad, Enrichers, Origin, Slot, decode, enrich, normalise, place, route, validate
from cluster.config import Settings
from cluster.errors import BadRecord
from cluster.model import Event, Record
from cluster.stores.control import ControlStore
from cluster.stores.log import Append
from cluster.telemetry import metrics


@dataclass
class StageTimes:
    """Seconds and records by stage, since the beginning."""

    seconds: dict[str, float] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, records: int) -> Iterator[None]:
        """Times one batch in a stage, here and in the metrics."""
        began = time.perf_counter()
        with metrics.stage(name, records):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        self.records[name] = self.records.get(name, 0) + records


class Prepared(NamedTuple):
    """A batch that is ready for the log.

    Args:
        entries: to append.
        records: by place in the batch; a Bad where there is none.
        good: how many are in `entries`.
    """

    entries: list[Append]
    records: list[Slot[Record]]
    good: int

    def bad(self) -> list[tuple[int, Bad]]:
        """(place in the batch, why) of each record that is none."""
        return [(index, slot) for index, slot in enumerate(self.records) if isinstance(slot, Bad)]


class Admission:
    """The stages with what they need. One thread uses an instance; it holds caches only.

    Args:
        partitions: of the event log.
    """

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        register: Register,
        use_positions: UsePositions,
        enrichers: Enrichers | None = None,
    ) -> None:
        self._limits, self._entry_bytes, self._partitions = settings.records, settings.log.entry_bytes, partitions
        self._names, self._modes = KnownNames(register, settings.records), PositionModes(use_positions)
        self._enrichers = enrichers or Enrichers()
        self.times = StageTimes()

    def examine(self, payloads: Sequence[bytes | Bad], origin: Origin) -> list[Slot[Event]]:
        """Events that are fit to be placed, by place in the batch.

        Raises:
            Unavailable, Conflict: the control store does not answer; safe to repeat.
        """
        stage, count, limits = self.times.stage, len(payloads), self._limits
        with stage("decode", count):
            slots = decode(payloads, limits)
        with stage("validate", count):
            slots = validate(slots, origin, limits)
        with stage("normalise", count):
            slots = normalise(slots, limits)
        with stage("enrich", count):
            slots = enrich(slots, self._enrichers, limits)
        with stage("names", count):
            return self._names.admit(slots)

    def place(
        self, slots: Sequence[Slot[Event]], origin: Origin, epoch: int, positions: Sequence[Sequence[int]]
    ) -> Prepared:
        """Records at their positions and the entries that hold them. Raises as `examine`.

        Args:
            epoch, positions: for the events that bring none; positions[i] is of slots[i].
        """
        stage, count = self.times.stage, len(slots)
        with stage("place", count):
            records = place(self._modes.admit(slots), origin, epoch, positions, self._limits)
        with stage("route", count):
            routed = route(records, self._partitions, self._entry_bytes)
        return Prepared(routed.entries, records, routed.records)


def open_admission(
    control: ControlStore, settings: Settings, partitions: int, enrichers: Enrichers | None = None
) -> Admission:
    """An admission that registers names and position modes in the control store."""
    return Admission(settings, partitions, control.names.register, control.sources.own_or_assigned, enrichers)


def dry_admission(settings: Settings, partitions: int, enrichers: Enrichers | None = None) -> Admission:
    """An admission that registers nothing: what it says of names and modes holds within the batch's own source only."""
    seen: dict[tuple[str, str], str] = {}
    return Admission(settings, partitions, lambda *_: frozenset(), _first_mode(seen), enrichers)


def _first_mode(seen: dict[tuple[str, str], str]) -> UsePositions:
    def use(tenant: str, source: str, mode: str) -> None:
        if seen.setdefault((tenant, source), mode) != mode:
            raise BadRecord("schema", f"records of source {source!r} come with and without positions: always or never")

    return use


Clock = Callable[[], float]
"""Seconds since 1970; says when, orders nothing."""
