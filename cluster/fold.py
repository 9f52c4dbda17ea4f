"""The fold: what a set of records means. Pure, the oracle that shards, snapshots and moves are held against.

One register per (thing, source) keeps the record with the greatest stamp (version, then content hash). Floors
hide older registers whenever they arrive. A thing is visible while the register of any fact source lives; a
relationship needs both ends visible too; overlays annotate and never make visible. Each property comes from the
live register of the highest source priority, then the least source name. The result is a function of the set of
records: order, batches and repetition do not matter.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from cluster.model import KIND_NAMES, OP_NAMES, Kind, Op, Record
from cluster.values import canonical_json
from cluster.versions import decode as decode_version

Thing = tuple[str, str, int, str, str]
"""(tenant, case, kind, type, id)"""


class Outcome(IntEnum):
    """What became of one record. Each accepted record has exactly one of these, or is a dead letter."""

    NEW = 0
    NEWER = 1
    DUPLICATE = 2
    STALE = 3


def thing_of(record: Record) -> Thing:
    """What a record is about."""
    return record.tenant, record.case, record.kind, record.type, record.id


def compare(stored: str | None, stamp: str) -> Outcome:
    """What a register with the stored stamp (None: there is none) makes of a record with this stamp."""
    if stored is None:
        return Outcome.NEW
    if stored == stamp:
        return Outcome.DUPLICATE
    return Outcome.NEWER if stored < stamp else Outcome.STALE


def is_conflict(stored: str | None, stamp: str) -> bool:
    """Whether two different contents claim one version: the greater hash wins, and it is reported."""
    return stored is not None and stored != stamp and stored.partition(".")[0] == stamp.partition(".")[0]


class Floors:
    """Known floors of sources: (tenant, source, type or "" for every type) → version text."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str, str], str] = {}

    def raise_to(self, tenant: str, source: str, type: str, version: str) -> bool:
        """Whether the floor is higher than it was."""
        key = (tenant, source, type)
        if self._versions.get(key, "") >= version:
            return False
        self._versions[key] = version
        return True

    def hides(self, record: Record) -> bool:
        """Whether the record's register is older than a floor of its source."""
        if not self._versions:
            return False
        version = record.stamp
        every = self._versions.get((record.tenant, record.source, ""), "")
        own = self._versions.get((record.tenant, record.source, record.type), "")
        return version < every or version < own

    def items(self) -> Iterable[tuple[tuple[str, str, str], str]]:
        """((tenant, source, type), version text) of every floor."""
        return self._versions.items()


class Priorities:
    """Priorities of sources: (tenant, source) → (stamp, priority); the greatest stamp counts."""

    def __init__(self) -> None:
        self._by_source: dict[tuple[str, str], tuple[str, int]] = {}

    def set(self, tenant: str, source: str, stamp: str, priority: int) -> bool:
        """Whether this changed the priority's record."""
        old = self._by_source.get((tenant, source))
        if old is not None and old[0] >= stamp:
            return False
        self._by_source[(tenant, source)] = (stamp, priority)
        return True

    def of(self, tenant: str, source: str) -> int:
        """The priority of a source; 0 where none was set."""
        found = self._by_source.get((tenant, source))
        return found[1] if found else 0

    def items(self) -> Iterable[tuple[tuple[str, str], tuple[str, int]]]:
        """((tenant, source), (stamp, priority)) of every priority that was set."""
        return self._by_source.items()


class Merged(NamedTuple):
    """A thing as it is shown: the fields that are one, and properties by source priority."""

    a_type: str
    a_id: str
    b_type: str
    b_id: str
    event_time: str
    props: str
    claim: str


def merge(registers: Iterable[Record], priorities: Priorities) -> Merged | None:
    """What the registers of one thing show together; None while no fact source's register lives."""
    live = [r for r in registers if r.op == Op.UPSERT and not r.is_overlay]
    if not live:
        return None
    live.sort(key=lambda r: (-priorities.of(r.tenant, r.source), r.source))
    first = live[0]
    props = first.props
    if len(live) > 1:
        together: dict[str, Any] = {}
        for register in reversed(live):
            together.update(msgspec.json.decode(register.props))
        props = canonical_json(together)
    return Merged(first.a_type, first.a_id, first.b_type, first.b_id, first.event_time, props, first.claim)


def fold_batch(
    records: Iterable[Record], floors: Floors
) -> tuple[list[Record], list[tuple[Record, Outcome]], Counter[tuple[str, str]]]:
    """One record a register, the newest; what became of the rest.

    Returns:
        the records that stay, in the order of their registers' first appearance; each other record with its
        outcome (older in the batch, below a floor, or the same again); versions with two contents by (tenant, source).
    """
    newest: dict[tuple[str, str, int, str, str, str], Record] = {}
    settled: list[tuple[Record, Outcome]] = []
    conflicts: Counter[tuple[str, str]] = Counter()
    for record in records:
        if floors.hides(record):
            settled.append((record, Outcome.STALE))
            continue
        key = (record[0], record[1], record[3], record[5], record[6], record[11])
        old = newest.setdefault(key, record)
        if old is record:
            continue
        if old.stamp == record.stamp:
            settled.append((record, Outcome.DUPLICATE))
            continue
        if is_conflict(old.stamp, record.stamp):
            conflicts[(record.tenant, record.source)] += 1
        loser, winner = (old, record) if old.stamp < record.stamp else (record, old)
        settled.append((loser, Outcome.STALE))
        newest[key] = winner
    return list(newest.values()), settled, conflicts


@dataclass
class Fold:
    """The state part: every register that no floor hides, floors and priorities."""

    registers: dict[Thing, dict[str, Record]] = field(default_factory=dict)
    floors: Floors = field(default_factory=Floors)
    priorities: Priorities = field(default_factory=Priorities)

    def apply(self, record: Record) -> Outcome:
        """Take one record. Safe to call twice."""
        if record.kind == Kind.FLOOR:
            return self._apply_floor(record)
        if record.kind == Kind.PRIORITY:
            value = int(msgspec.json.decode(record.props)["priority"])
            changed = self.priorities.set(record.tenant, record.source, record.stamp, value)
            return Outcome.NEWER if changed else Outcome.STALE
        if self.floors.hides(record):
            return Outcome.STALE
        by_source = self.registers.setdefault(thing_of(record), {})
        old = by_source.get(record.source)
        outcome = compare(old.stamp if old else None, record.stamp)
        if outcome in (Outcome.NEW, Outcome.NEWER):
            by_source[record.source] = record
        return outcome

    def _apply_floor(self, floor: Record) -> Outcome:
        if not self.floors.raise_to(floor.tenant, floor.source, floor.type, floor.version):
            return Outcome.STALE
        for thing in [t for t in self.registers if t[0] == floor.tenant]:
            by_source = self.registers[thing]
            held = by_source.get(floor.source)
            if held is not None and self.floors.hides(held):
                del by_source[floor.source]
                if not by_source:
                    del self.registers[thing]
        return Outcome.NEWER

    def apply_all(self, records: Iterable[Record]) -> Fold:
        """Take many records; returns itself."""
        for record in records:
            self.apply(record)
        return self

    def visible(self) -> Iterator[tuple[Thing, Merged]]:
        """Every visible thing with what it shows, in no particular order."""
        shown = {thing: merge(by.values(), self.priorities) for thing, by in self.registers.items()}
        for thing, merged in shown.items():
            if merged is None:
                continue
            if thing[2] == Kind.RELATIONSHIP:
                tenant, case = thing[:2]
                ends = ((merged.a_type, merged.a_id), (merged.b_type, merged.b_id))
                if any(shown.get((tenant, case, Kind.ENTITY, *end)) is None for end in ends):
                    continue
            yield thing, merged

    def export_lines(self) -> list[str]:
        """The visible graph as sorted canonical JSON lines, without sources, versions, times and overlays."""
        return sorted(export_line(thing, merged) for thing, merged in self.visible())

    def state_lines(self) -> list[str]:
        """Registers, tombstones, floors and priorities as sorted canonical JSON lines."""
        lines = [state_line(r) for by in self.registers.values() for r in by.values()]
        lines += [floor_line(key, version) for key, version in self.floors.items()]
        lines += [priority_line(key, value) for key, value in self.priorities.items()]
        return sorted(lines)


def _content(kind: int, merged: Merged | Record) -> dict[str, Any]:
    fields: dict[str, Any] = {"props": msgspec.Raw(merged.props.encode())}
    if kind == Kind.RELATIONSHIP and merged.a_type:
        fields["from"] = {"type": merged.a_type, "id": merged.a_id}
        fields["to"] = {"type": merged.b_type, "id": merged.b_id}
    if kind == Kind.CLAIM and merged.claim:
        predicate, value, confidence = msgspec.json.decode(merged.claim)
        fields |= {"subject": {"type": merged.a_type, "id": merged.a_id}, "predicate": predicate, "value": value}
        if confidence is not None:
            fields["confidence"] = confidence
    return fields


def _head(tenant: str, case: str, kind: int, type: str, id: str) -> dict[str, Any]:
    return {"tenant": tenant, "case": case, "kind": KIND_NAMES[kind], "type": type, "id": id}


def export_line(thing: Thing, merged: Merged) -> str:
    """One visible thing as an event without source, position and time."""
    return canonical_json({**_head(*thing), "op": "upsert", **_content(thing[2], merged)})


def state_line(record: Record) -> str:
    """One register with its source, version and content."""
    epoch, position = decode_version(record.version)
    extra: dict[str, Any] = {"op": OP_NAMES[record.op], "source": record.source, "stamp": record.stamp}
    extra |= {"epoch": epoch, "position": list(position)}
    if record.partition:
        extra["partition"] = record.partition
    if record.event_time:
        extra["event_time"] = record.event_time
    return canonical_json({**_head(*thing_of(record)), **extra, **_content(record.kind, record)})


def floor_line(key: tuple[str, str, str], version: str) -> str:
    """One floor."""
    tenant, source, type = key
    return canonical_json({"kind": "floor", "tenant": tenant, "source": source, "type": type, "version": version})


def priority_line(key: tuple[str, str], value: tuple[str, int]) -> str:
    """One source's priority."""
    tenant, source = key
    return canonical_json(
        {"kind": "priority", "tenant": tenant, "source": source, "stamp": value[0], "priority": value[1]}
    )


def hash_lines(lines: Iterable[str]) -> str:
    """SHA-256, in hexadecimal, of lines that are sorted already, each followed by a newline."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
        digest.update(b"\n")
    return digest.hexdigest()
