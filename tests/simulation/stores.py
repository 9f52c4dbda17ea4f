"""What the simulation has in place of servers: clock, log, lake and control store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cluster import batch
from cluster.errors import Conflict, Fenced, OutcomeUnknown
from cluster.model import Record
from cluster.shard_map import ShardMap
from cluster.stores.lake_files import LakeEntry
from cluster.stores.lake_positions import PartitionPosition, Positions
from cluster.stores.log import Append, Entry, Generation, LogIdentity, check_range
from tests.simulation.network import Network

PARTITIONS = 4
LEASE_S = 30.0
_APPENDED_MS = 4_102_444_800_000
"""In 2100: to a writer no entry is old, however slowly the machine plays, so what it does depends on the seed alone."""


class Broken(AssertionError):
    """A check failed; the seed replays the run."""


class Clock:
    """Fake wall clock, seconds: goes on by a second a turn, and jumps when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.turns = 0

    def tick(self) -> None:
        """One turn has passed."""
        self.now += 1
        self.turns += 1

    def __call__(self) -> float:
        return self.now


class SimLog:
    """The event log: what is appended is in memory first and durable after its sync; readers see what is durable."""

    def __init__(self, network: Network) -> None:
        self.identity = LogIdentity("sim", 1, PARTITIONS)
        self.generations: tuple[Generation, ...] = ()
        self.all_partitions = PARTITIONS
        self._network = network
        self.history: dict[int, list[Entry]] = {p: [] for p in range(PARTITIONS)}
        self.begin = dict.fromkeys(range(PARTITIONS), 1)
        self.up = True

    def append(self, entries: Sequence[Append]) -> list[int]:
        """Returns when everything is synced. Raises OutcomeUnknown, with some of it durable or none."""
        if self._network.rnd.random() < self._network.trouble / 4:
            for entry in entries[: self._network.rnd.randrange(len(entries) + 1)]:
                self._sync(entry)
            raise OutcomeUnknown("power was lost: what was not synced is gone")
        return self._network.call(lambda: self.up, lambda: [self._sync(entry) for entry in entries], True)

    def _sync(self, entry: Append) -> int:
        entries = self.history[entry.partition]
        entries.append(Entry(len(entries) + 1, entry.data, entry.records, _APPENDED_MS))
        return len(entries)

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        """A reading has some of what there is: the rest comes while its reader's shard is at work."""
        some = self._network.waits.randint(1, limit_entries)

        def effect() -> dict[int, list[Entry]]:
            found = {}
            for p, at in after.items():
                check_range(p, at, self.begin[p], len(self.history[p]))
                if entries := self.history[p][at : at + some]:
                    found[p] = entries
            return found

        return self._network.call(lambda: self.up, effect, False)

    def read(self, partition: int, after: int, limit_entries: int, limit_bytes: int, block_ms: int = 0) -> list[Entry]:
        return self.read_many({partition: after}, limit_entries, limit_bytes).get(partition, [])

    def ends(self) -> dict[int, int]:
        return self._network.call(
            lambda: self.up, lambda: {p: len(entries) for p, entries in self.history.items()}, False
        )

    def begins(self) -> dict[int, int]:
        return self._network.call(lambda: self.up, lambda: dict(self.begin), False)

    def trim(self, partition: int, below: int) -> None:
        self.begin[partition] = max(self.begin[partition], min(below, len(self.history[partition]) + 1))

    def truth(self) -> list[Record]:
        """Every record that was ever durable, partition by partition."""
        return [r for entries in self.history.values() for e in entries for r in batch.decode(e.data)]


class SimLake:
    """The lake's table: a commit is refused unless it starts from the positions that are there."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.kept: dict[int, list[LakeEntry]] = {p: [] for p in range(PARTITIONS)}
        self.at = Positions()

    def __enter__(self) -> SimLake:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def positions(self) -> Positions:
        return self._network.call(lambda: True, lambda: self.at, False)

    def append(self, entries: Sequence[LakeEntry], parent: Positions) -> Positions:
        return self._network.call(lambda: True, lambda: self._append(entries, parent), True)

    def _append(self, entries: Sequence[LakeEntry], parent: Positions) -> Positions:
        if self.at != parent and not (self.at.is_empty and parent.is_empty):
            raise Conflict("its positions are others")
        taken: dict[int, PartitionPosition] = {}
        for e in entries:
            before = taken.get(e.partition) or parent.of(e.partition)
            if e.number != before.number + 1:
                raise Broken("the lake was given a gap")
            taken[e.partition] = PartitionPosition(e.number, before.records + e.batch.num_rows)
            self.kept[e.partition].append(e)
        self.at = parent.advanced(taken)
        return self.at

    def entries(self, partition: int, after: int, upto: int | None = None) -> Iterator[LakeEntry]:
        found = self.kept[partition][after:upto]
        if upto is not None and len(found) != upto - after:
            raise Broken(f"the lake lacks entries of {after + 1}..{upto}: the log was trimmed too far")
        return iter(found)

    def maintain(self, now_s: float) -> None:
        return None


@dataclass
class Control:
    """The control store: registry, map, leases, acceptance, source positions, durable positions."""

    clock: Clock
    map: ShardMap
    epochs: dict[str, int]
    leases: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    durable: dict[str, dict[int, int]] = field(default_factory=dict)
    dead_letters: set[int] = field(default_factory=set)

    def acquire(self, name: str, holder: str) -> int:
        """As `Leases.acquire`."""
        held, token, expires = self.leases.get(name, ("", 0, 0.0))
        if held not in ("", holder) and self.clock.now < expires:
            raise Conflict("held by another")
        self.leases[name] = (holder, token + 1, self.clock.now + LEASE_S)
        return token + 1

    def renew(self, name: str, token: int) -> None:
        """As `Leases.renew`."""
        holder, current, expires = self.leases[name]
        if current != token:
            raise Fenced("another has taken over")
        self.leases[name] = (holder, token, max(expires, self.clock.now + LEASE_S))

    def least(self) -> dict[int, int]:
        """As `ConsumerPositions.least`."""
        found: dict[int, int] = {}
        for numbers in self.durable.values():
            for p, n in numbers.items():
                found[p] = min(found.get(p, n), n)
        return found
