"""Streams against the log: is what they acknowledged there?

A stream may append a record more than once, by restarts of its own or of what fills its topic, and its source's records
may come other ways too. So nothing is counted as too many here: that each has one outcome is counted by epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_apps.cli.log_counts import Counted, Epoch

if TYPE_CHECKING:
    from cluster.stores.control import ControlStore


@dataclass(frozen=True, slots=True)
class StreamCount:
    """What a stream has acknowledged at one moment: `tenants` are those whose source it is."""

    stream: str
    tenants: tuple[str, ...]
    acked: int
    dead: int


@dataclass(frozen=True, slots=True)
class StreamBalance:
    """One stream.

    Args:
        logged: records of its source in the log, of all its tenants, however often.
        elsewhere: records that loads of the same source acknowledged.
    """

    stream: str
    acked: int
    dead: int
    logged: int
    elsewhere: int

    @property
    def holds(self) -> bool:
        """Whether nothing is missing."""
        return self.logged >= self.acked + self.elsewhere


def stream_counts(control: ControlStore) -> list[StreamCount]:
    """What the streams have acknowledged. To be asked before the log is counted, for it goes on meanwhile."""
    found = []
    for stream in control.streams.list():
        parts = control.streams.partitions(stream.spec.name)
        acked, dead = sum(part.acked for part in parts), sum(part.dead for part in parts)
        found.append(StreamCount(stream.spec.name, stream.spec.tenants, acked, dead))
    return found


def stream_balances(
    control: ControlStore, streams: Iterable[StreamCount], counted: Mapping[Epoch, Counted]
) -> Iterator[StreamBalance]:
    """Each stream against the records counted in the log."""
    for one in streams:
        mine = [found.records for (tenant, source, _), found in counted.items()
                if source == one.stream and tenant in one.tenants]  # fmt: skip
        loads = [load for tenant in one.tenants for load in control.loads.every(tenant) if load.source == one.stream]
        yield StreamBalance(one.stream, one.acked, one.dead, sum(mine), sum(load.acked for load in loads))
