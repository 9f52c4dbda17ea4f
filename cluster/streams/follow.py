"""What a look at its topic means for a stream. Pure: the control store does what is decided here.

An epoch belongs to a range: offsets of one partition, of one topic. Offsets compare within it, so whatever breaks their
order opens a new one:

    the topic was made again      at once: what was not read of the old one is gone with it, and is said
    partitions were added         keys may have moved: every partition is read to where it stood while they had not
                                  (the look before), then all begin a new range there
    the broker lost its tail      offsets are given again: that partition begins a new range where the loss begins, at
                                  its end, or below where it has grown again meanwhile
    records were removed unread   nobody can heal that: the stream stops and says what is missing

A partition of which nobody says where it stands, since no leader answers, stays as it is, and holds up the others only
where all of them have to begin a new range together.

A new range that begins before the place that was read reads some records twice, the second time as newer ones, which
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    there = look.end.keys() | look.unseen
    if missing := [part.partition for part in known if part.partition not in there]:
        return Followed(tuple(known), stop=f"the topic has lost its partitions {missing}")
    parts, notes = list(known), list[str]()
    if added := sorted(there - {part.partition for part in known}):
        parts = [part if part.cut is not None else replace(part, cut=max(part.end, part.start)) for part in parts]
        parts += [StreamPartition(p, 0, 0, look.first.get(p, 0), cut=0) for p in added]
        notes.append(
            f"partitions {added} were added: keys may have moved between partitions, so all are read to where they"
            " stood before, then on under a new epoch; while partitions are added, producers should stand still"
        )
    tails = {part.partition: at for part in parts if (at := _lost_from(part, look)) is not None}
    notes += [_lost(part, tails[part.partition], look) for part in parts if part.partition in tails]
    parts = [_cut_back(part, tails.get(part.partition, look.end.get(part.partition))) for part in parts]
    return _with_new_ranges(parts, tails, look, notes)


def _lost_from(part: StreamPartition, look: Look) -> int | None:
    """The offset at which a lost tail of a partition began; None where none is known to be lost.

    What was written and read since the look began is no tail that is lost.
    """
    end = look.end.get(part.partition)
    if end is None:
        return None
    reached = part.offset if look.reached is None else min(part.offset, look.reached.get(part.partition, 0))
    replaced = look.replaced.get(part.partition, reached)
    return min(end, replaced) if min(end, replaced) < reached else None


def _lost(part: StreamPartition, at: int, look: Look) -> str:
    if at == look.end[part.partition]:
        return (
            f"partition {part.partition} ends at offset {at:,}, and was read to {part.offset:,}: its broker lost the"
            " rest; what was read of it stays, and what comes next is newer"
        )
    return (
        f"partition {part.partition} was read to offset {part.offset:,}, and has other records now from {at:,} on: its"
        " broker lost the rest, and it has grown again; what was read of it stays, and what is there now is newer"
    )


def _cut_back(part: StreamPartition, at: int | None) -> StreamPartition:
    """With its cut where that is still there."""
    return part if part.cut is None or at is None else replace(part, cut=min(part.cut, at))


def _moved(part: StreamPartition, offset: int) -> StreamPartition:
    """At another offset than it was read to: which leader appended the record before that one, nobody has seen."""
    return part if offset == part.offset else replace(part, offset=offset, leader_epoch=-1)


def _with_new_ranges(parts: list[StreamPartition], lost: Mapping[int, int], look: Look, notes: list[str]) -> Followed:
    parts = [_moved(part, lost.get(part.partition, part.offset)) for part in parts]
    waited = {part.partition for part in parts if not part.epoch and part.cut is None and part.partition in look.end}
    parts = [replace(part, offset=look.first[part.partition]) if part.partition in waited else part for part in parts]
    fresh = waited | lost.keys()
    drained = all(part.drained or part.partition in lost for part in parts) and not look.unseen
    if drained and any(part.cut is not None for part in parts):
        parts = [replace(_moved(part, max(_new_start(part), look.first[part.partition])), cut=None) for part in parts]
        fresh = {part.partition for part in parts}
    parts = [replace(part, start=part.offset, note="") if part.partition in fresh else part for part in parts]
    return Followed(_seen(parts, look), frozenset(fresh), notes=tuple(notes))


def _new_start(part: StreamPartition) -> int:
    """Where a partition goes on once all are drained: at its cut. Where change capture carries something, that belongs
    to the offset that was reached, and its records have positions of their own: they are not read again."""
    if part.cut is None:
        return part.offset
    return max(part.cut, part.offset) if part.carried else part.cut


def _another_topic(topic_id: str, known: Sequence[StreamPartition], look: Look, begin: Begin) -> Followed:
    """All of it is a new range; a partition that no leader answers for begins at its first record, once one does."""
    latest = begin == "latest" and not topic_id
    parts = tuple(
        StreamPartition(p, 0, look.end[p] if latest else 0, look.end[p] if latest else look.first[p], end=look.end[p])
        if p in look.end
        else StreamPartition(p, 0, 0, 0)
        for p in sorted(look.end.keys() | look.unseen)
    )
    notes: tuple[str, ...] = ()
    if topic_id:
        old = {part.partition: part for part in known}
        parts = tuple(_counted_on(part, old.get(part.partition)) for part in parts)
        unread = sum(part.lag_records for part in known)
        told = f"{unread:,} records of the old one were not read and are gone" if unread else "the old one was read"
        notes = (f"the topic was deleted and made again; {told}; the new one is read from its beginning",)
    return Followed(parts, frozenset(look.end), notes=notes)


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
    return tuple(_moved(part, max(part.offset, look.first.get(part.partition, 0))) for part in known)


def _seen(parts: Sequence[StreamPartition], look: Look) -> tuple[StreamPartition, ...]:
    return tuple(replace(part, end=look.end.get(part.partition, part.end)) for part in parts)
