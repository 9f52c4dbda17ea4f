"""The event, a stable interface, and the record: an event after it was checked, as everything behind the door has it.

`Event` is what a source sends (docs/data-model.md). `Record` is one row of a batch in the log, in the lake and
in a fold: a plain tuple, so that a batch turns into columns and back at the speed of `zip`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Literal, NamedTuple

import msgspec
import xxhash

from cluster import versions
from cluster.errors import BadRecord


class Kind(IntEnum):
    """What a record speaks of. The last two are the system's own, one in every log partition."""

    ENTITY = 0
    RELATIONSHIP = 1
    CLAIM = 2
    FLOOR = 3
    PRIORITY = 4


class Op(IntEnum):
    """What a record does to its register."""

    UPSERT = 0
    DELETE = 1


KINDS = {"entity": Kind.ENTITY, "relationship": Kind.RELATIONSHIP, "claim": Kind.CLAIM}
KIND_NAMES = ("entity", "relationship", "claim", "floor", "priority")
OP_NAMES = ("upsert", "delete")
OVERLAY_PREFIX = "overlay/"
SYSTEM_PREFIX = "system/"


class Ref(msgspec.Struct, forbid_unknown_fields=True):
    """An end of a relationship or the subject of a claim, in the record's own case."""

    type: str
    id: str


class Event(msgspec.Struct, rename={"from_": "from"}, forbid_unknown_fields=True):
    """One event as a source sends it; fields as in docs/data-model.md, not yet checked beyond their types."""

    case: str
    kind: Literal["entity", "relationship", "claim"]
    op: Literal["upsert", "delete"]
    type: str
    id: str
    tenant: str | None = None
    source: str | None = None
    from_: Ref | None = None
    to: Ref | None = None
    subject: Ref | None = None
    predicate: str | None = None
    value: Any = None
    confidence: int | float | None = None
    props: dict[str, Any] | None = None
    epoch: int | None = None
    partition: int | str | None = None
    position: int | list[int] | None = None
    event_time: str | None = None


class Record(NamedTuple):
    """A checked event. Texts are empty where the kind has no such field.

    `a` is a relationship's `from` or a claim's `subject`, `b` a relationship's `to`. `stamp` is the version text,
    a dot and the content hash (15 hexadecimal digits): its order as text is the order of registers, newer version
    first, then the greater hash. `props` is a canonical JSON object, `claim` a canonical JSON array
    [predicate, value, confidence]. A floor has its source, type (empty: every type) and the floor as its version;
    a priority has its source and `props` {"priority": n}; neither has a case or id.
    """

    tenant: str
    case: str
    bucket: int
    kind: int
    op: int
    type: str
    id: str
    a_type: str
    a_id: str
    b_type: str
    b_id: str
    source: str
    stamp: str
    partition: str
    event_time: str
    props: str
    claim: str

    @property
    def version(self) -> str:
        """The version text, without the content hash."""
        return self.stamp.partition(".")[0]

    @property
    def is_overlay(self) -> bool:
        """Whether the record annotates and never makes visible."""
        return self.source.startswith(OVERLAY_PREFIX)


def content_hash(*content: str) -> str:
    """15 hexadecimal digits over everything a register keeps beside its version: ties are broken by it."""
    joined = "\x00".join(content).encode()
    return f"{xxhash.xxh3_64_intdigest(joined) >> 4:015x}"


def stamp_of(version: str, *content: str) -> str:
    """The stamp of a record with this version and content."""
    return f"{version}.{content_hash(*content)}"


def floor_record(tenant: str, source: str, type: str, version: str, partition: int) -> Record:
    """A floor for one log partition: hides the source's registers (of a type, or all) that are older than version."""
    stamp = stamp_of(version, "floor", tenant, source, type)
    return Record(
        tenant, "", partition, Kind.FLOOR, Op.UPSERT, type, "", "", "", "", "", source, stamp, "", "", "{}", ""
    )


def priority_record(tenant: str, source: str, priority: int, revision: int, partition: int) -> Record:
    """A source's priority for one log partition; the greatest revision counts."""
    if not -(2**31) <= priority < 2**31:
        raise BadRecord("schema", f"priority {priority}: give an integer of 32 bits")
    props = f'{{"priority":{priority}}}'
    stamp = stamp_of(versions.encode(0, [revision]), "priority", tenant, source, props)
    return Record(
        tenant, "", partition, Kind.PRIORITY, Op.UPSERT, "", "", "", "", "", "", source, stamp, "", "", props, ""
    )


def from_outside(source: str) -> bool:
    """Whether a source of this name may be written from outside."""
    return not source.startswith((OVERLAY_PREFIX, SYSTEM_PREFIX))
