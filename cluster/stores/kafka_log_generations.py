"""Generations of the log on Kafka: what the topic `<prefix>.log-meta` says of them, and how one is opened.

    {name, generation, partitions}                           the first: there is nothing to fill
    {name, generation, partitions, seams, drawn}             one that was opened; of two, the first record counts
    {name, generation, partitions, filled: true}             it is filled

The topic of entries stays the same one, and its offsets go on; it gets more partitions where a generation has more, and
keeps those that one has given up. While a generation is filled, everybody else is kept
from appending by the time of their batches, which is 0: the topic refuses batches that are older than an hour, unless
the broker stamps them itself, as it does otherwise. Brokers have no other switch that refuses some appenders only.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cluster.errors import Corrupt
from cluster.stores.kafka_errors import WHAT
from cluster.stores.log import Generation, LogIdentity, Seam

_TYPE, _OLDEST = "message.timestamp.type", "message.timestamp.before.max.ms"
KEPT_OUT: Mapping[str, str | None] = {_TYPE: "CreateTime", _OLDEST: "3600000"}
"""Settings of the topic of entries while only who stamps batches may append."""
LET_IN: Mapping[str, str | None] = {_TYPE: "LogAppendTime", _OLDEST: None}


class Said(NamedTuple):
    """One record of the topic."""

    identity: LogIdentity
    seams: Mapping[int, Seam] | None = None
    drawn: str = ""
    filled: bool = False


class Known(NamedTuple):
    """What the topic says.

    Args:
        identity: of the newest generation.
        generations: after the first, in order.
        unfinished: whether the newest is not filled.
        drawn: what who opened the newest has drawn.
    """

    identity: LogIdentity
    generations: tuple[Generation, ...] = ()
    unfinished: bool = False
    drawn: str = ""


def parsed(value: bytes, topic: str) -> Said:
    """A record's words.

    Raises:
        Corrupt: it is none of ours.
    """
    try:
        said = json.loads(value)
        identity = LogIdentity(str(said["name"]), int(said["generation"]), int(said["partitions"]))
        seams = said.get("seams")
        read = None if seams is None else {int(p): Seam(*map(int, numbers)) for p, numbers in seams.items()}
        return Said(identity, read, str(said.get("drawn", "")), bool(said.get("filled")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{WHAT}: topic {topic} is not readable; restore it") from error


def known(records: Iterable[Said]) -> Known | None:
    """What the records say together, in their order: of each generation, the first counts."""
    first: dict[int, Said] = {}
    filled: set[int] = set()
    for said in records:
        if said.filled:
            filled.add(said.identity.generation)
        else:
            first.setdefault(said.identity.generation, said)
    if not first:
        return None
    newest = first[max(first)]
    later = tuple(
        Generation(number, said.seams, said.identity.partitions)
        for number, said in sorted(first.items())
        if said.seams is not None
    )
    unfinished = newest.seams is not None and newest.identity.generation not in filled
    return Known(newest.identity, later, unfinished, newest.drawn)


def opening(identity: LogIdentity, new: Generation) -> tuple[dict[str, Any], str]:
    """(the record that opens a generation, what it has drawn)."""
    drawn = secrets.token_hex(16)
    seams = {str(partition): list(seam) for partition, seam in new.seams.items()}
    opened = identity._replace(generation=new.number, partitions=new.partitions or identity.partitions)
    return {**opened._asdict(), "seams": seams, "drawn": drawn}, drawn


def filling(identity: LogIdentity) -> dict[str, Any]:
    """The record that says that a generation is filled."""
    return {**identity._asdict(), "filled": True}
