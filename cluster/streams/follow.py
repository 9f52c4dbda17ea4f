"""What a look at its topic means for a stream. Pure: the control store does what is decided here.

An epoch belongs to a range: offsets of one partition, of one topic. Offsets compare within it, so whatever breaks their
order opens a new one:

    the topic was made again      at once: what was not read of the old one is gone with it, and is said
    partitions were added         keys may have moved: every partition is read to where it stood while they had not
                                  (the look before), then all begin a new range there
    the broker lost its tail      offsets are given again: that partition begins a new range at its new end
    records were removed unread   nobody can heal that: the stream stops and says what is missing

A new range that begins before the place that was read reads some records twice, the second time as newer ones, which
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.streams.model import Begin, Look, StreamPartition


@dataclass(frozen=True, slots=True)
class Followed:
    """What is to be kept after a look.

    Args:
        partitions: as they stand from now on; those of `fresh` get an epoch that is yet to be drawn.
        fresh: partitions that begin a new range now.
        stop: why the stream stops; empty: it does not.
        notes: what operators should know, once.
    """

    partitions: tuple[StreamPartition, ...]
    fresh: frozenset[int] = frozenset()
    stop: str = ""
    notes: tuple[str, ...] = ()


def follow(topic_id: str, known: Sequence[StreamPartition], look: Look, begin: Begin) -> Followed:
    """What becomes of a stream.

    Args:
        topic_id: of the topic that was read until now; empty at the first look.
        known: its partitions until now.
    """
    if topic_id != look.topic_id:
        return _another_topic(topic_id, known, look, begin)
    if lost := [text for part in known if (text := _removed(part, look))]:
        return Followed(_seen(known, look), stop="; ".join(lost))
    if missing := [part.partition for part in known if part.partition not in look.end]:
        return Followed(tuple(known), stop=f"the topic has lost its partitions {missing}")
    parts, notes = list(known), list[str]()
    if added := sorted(look.end.keys() - {part.partition for part in known}):
        parts = [part if part.cut is not None else replace(part, cut=max(part.end, part.start)) for part in parts]
        parts += [StreamPartition(p, 0, 0, look.first[p], cut=0) for p in added]
        notes.append(
            f"partitions {added} were added: keys may have moved between partitions, so all are read to where they"
            " stood before, then on under a new epoch; while partitions are added, producers should stand still"
        )
    parts = [part if part.cut is None else replace(part, cut=min(part.cut, look.end[part.partition])) for part in parts]
    cut_short = [part for part in parts if look.end[part.partition] < _reached(part, look)]
    for part in cut_short:
        notes.append(
            f"partition {part.partition} ends at offset {look.end[part.partition]:,}, and was read to {part.offset:,}:"
            " its broker lost the rest; what was read of it stays, and what comes next is newer"
        )
    return _with_new_ranges(parts, {part.partition for part in cut_short}, look, notes)


def _reached(part: StreamPartition, look: Look) -> int:
    """How far a partition was read when the look began: what was written and read since is no tail that is lost."""
    return part.offset if look.reached is None else min(part.offset, look.reached.get(part.partition, 0))


def _with_new_ranges(parts: list[StreamPartition], lost: set[int], look: Look, notes: list[str]) -> Followed:
    parts = [replace(part, offset=look.end[part.partition]) if part.partition in lost else part for part in parts]
    fresh = lost
    if all(part.drained or part.partition in lost for part in parts) and any(part.cut is not None for part in parts):
        parts = [replace(part, offset=part.offset if part.cut is None else part.cut, cut=None) for part in parts]
        parts = [replace(part, offset=max(part.offset, look.first[part.partition])) for part in parts]
        fresh = {part.partition for part in parts}
    parts = [replace(part, start=part.offset) if part.partition in fresh else part for part in parts]
    return Followed(_seen(parts, look), frozenset(fresh), notes=tuple(notes))


def _another_topic(topic_id: str, known: Sequence[StreamPartition], look: Look, begin: Begin) -> Followed:
    """All of it is a new range."""
    latest = begin == "latest" and not topic_id
    parts = tuple(
        StreamPartition(p, 0, look.end[p] if latest else 0, look.end[p] if latest else look.first[p], end=look.end[p])
        for p in sorted(look.end)
    )
    notes: tuple[str, ...] = ()
    if topic_id:
        old = {part.partition: part for part in known}
        parts = tuple(_counted_on(part, old.get(part.partition)) for part in parts)
        unread = sum(part.lag_records for part in known)
        told = f"{unread:,} records of the old one were not read and are gone" if unread else "the old one was read"
        notes = (f"the topic was deleted and made again; {told}; the new one is read from its beginning",)
    return Followed(parts, frozenset(part.partition for part in parts), notes=notes)


def _counted_on(part: StreamPartition, old: StreamPartition | None) -> StreamPartition:
    """Counts go on, and so does what change capture carries: the rows are of the same database."""
    return part if old is None else replace(part, carried=old.carried, acked=old.acked, dead=old.dead)


def _removed(part: StreamPartition, look: Look) -> str:
    """What was removed from a partition before it was read; empty if nothing was."""
    first = look.first.get(part.partition, 0)
    if first <= part.offset or part.drained or not part.epoch:
        return ""
    return f"partition {part.partition}: offsets {part.offset:,} to {first - 1:,} were removed before they were read"


def skipped(known: Sequence[StreamPartition], look: Look) -> tuple[StreamPartition, ...]:
    """The partitions when what was removed unread is given up."""
    return tuple(replace(part, offset=max(part.offset, look.first.get(part.partition, 0))) for part in known)


def _seen(parts: Sequence[StreamPartition], look: Look) -> tuple[StreamPartition, ...]:
    return tuple(replace(part, end=look.end.get(part.partition, part.end)) for part in parts)
