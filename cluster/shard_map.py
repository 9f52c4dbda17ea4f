"""The shard map: which shard owns each of the 4,096 buckets, as a value, and how one map follows another.

    initial(shards, partitions) ─► ShardMap ─► add_shard | adopt_empty | drain ─► ShardMap ─► plan(old, new)

A bucket belongs to the log partition bucket % partitions. Maps keep the buckets of a partition on one shard where they
can, so that a partition's writer writes to one shard. Health is no input of this module: a shard that is down still
owns its buckets. Every function is deterministic and changes nothing but what it says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from cluster.errors import Corrupt, Rejected
from cluster.ids import BUCKETS


class Move(NamedTuple):
    """One bucket that changes its owner."""

    bucket: int
    source: str
    target: str


@dataclass(frozen=True)
class ShardMap:
    """Owners of all buckets.

    Args:
        revision: counts the maps from 1.
        partitions: of the log; decides which buckets belong together.
        owners: shard id by bucket, 4,096 of them.
    """

    revision: int
    partitions: int
    owners: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.owners) != BUCKETS or not 1 <= self.partitions <= BUCKETS or not all(self.owners):
            raise ValueError(f"a shard map has {BUCKETS} owners and 1 to {BUCKETS} partitions")

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards that own a bucket, sorted."""
        return tuple(sorted(set(self.owners)))

    def buckets_of(self, shard: str) -> tuple[int, ...]:
        """The buckets that a shard owns, ascending."""
        return tuple(bucket for bucket, owner in enumerate(self.owners) if owner == shard)

    def shards_of_partition(self, partition: int) -> tuple[str, ...]:
        """The shards that entries of a log partition are for, sorted; one, where nothing was moved singly."""
        return tuple(sorted(set(self.owners[partition :: self.partitions])))

    def partitions_of(self, shard: str) -> tuple[int, ...]:
        """The log partitions that have entries for a shard, ascending."""
        return tuple(p for p in range(self.partitions) if shard in self.owners[p :: self.partitions])


def partition_of(bucket: int, partitions: int) -> int:
    """The log partition of a bucket, for ever within a generation of the log."""
    return bucket % partitions


def initial(shards: Sequence[str], partitions: int) -> ShardMap:
    """The first map: whole partitions dealt to the shards in turn; with more shards than partitions, single buckets.

    Raises:
        Rejected: there is no shard, or one is named twice.
    """
    if not shards or len(set(shards)) != len(shards):
        raise Rejected(f"a shard map needs shards, each named once, not {list(shards)}")
    if len(shards) <= partitions:
        owners = [shards[bucket % partitions % len(shards)] for bucket in range(BUCKETS)]
    else:
        owners = [""] * BUCKETS
        for at, bucket in enumerate(_by_partition(range(BUCKETS), partitions)):
            owners[bucket] = shards[at * len(shards) // BUCKETS]
    return ShardMap(1, partitions, tuple(owners))


def add_shard(old: ShardMap, shard: str, weights: Mapping[str, float] | None = None) -> ShardMap:
    """The map with one shard more: it takes its share by weight, about 1/N, from those that have most beyond theirs.

    No other bucket moves. Whole partitions are taken; so the share is met to half a partition's buckets. Only where a
    partition is more than a shard should have are single buckets taken, and then the share is met exactly.

    Args:
        weights: by shard, 1 where absent; the new one's too.

    Raises:
        Rejected: the shard has buckets already, or a weight is not positive.
    """
    return _extend(old, shard, weights or {}, None)


def adopt_empty(
    old: ShardMap, shard: str, empty_buckets: Iterable[int], weights: Mapping[str, float] | None = None
) -> ShardMap:
    """`add_shard` that takes buckets without data only: nothing has to be copied. The share may not be reached.

    Args:
        empty_buckets: those that hold nothing on their owner and have nothing for them in the log.
    """
    return _extend(old, shard, weights or {}, frozenset(empty_buckets))


def drain(old: ShardMap, shard: str, weights: Mapping[str, float] | None = None) -> ShardMap:
    """The map without a shard: its buckets go to those that have least for their weight, partitions kept whole.

    Raises:
        Rejected: it owns nothing, or there is no other shard.
    """
    left = [name for name in old.shards if name != shard]
    if not left or len(left) == len(old.shards):
        raise Rejected(f"shard {shard} cannot be drained: it owns no bucket, or no other shard could take them")
    weight = _weights(left, weights or {})
    sizes, owners = Counter(old.owners), list(old.owners)
    room = (BUCKETS / old.partitions) * len(left) <= BUCKETS
    for partition in range(old.partitions):
        buckets = [bucket for bucket in range(partition, BUCKETS, old.partitions) if owners[bucket] == shard]
        for group in [buckets] if room else [[bucket] for bucket in buckets]:
            target = min(left, key=lambda name: ((sizes[name] + len(group)) / weight[name], name))
            for bucket in group:
                owners[bucket] = target
            sizes[target] += len(group)
    return ShardMap(old.revision + 1, old.partitions, tuple(owners))


def plan(old: ShardMap, new: ShardMap) -> tuple[Move, ...]:
    """What has to be copied before `new` may be published: partition by partition, buckets ascending.

    Raises:
        Rejected: the maps are of logs with different numbers of partitions.
    """
    if old.partitions != new.partitions:
        raise Rejected(f"the maps are for {old.partitions} and {new.partitions} log partitions; make a plan within one")
    changed = (bucket for bucket in range(BUCKETS) if old.owners[bucket] != new.owners[bucket])
    return tuple(Move(b, old.owners[b], new.owners[b]) for b in _by_partition(changed, old.partitions))


def pack(shard_map: ShardMap) -> str:
    """Compact text of a map: names, then runs of [name's index, length] in the order of partitions."""
    names = shard_map.shards
    ordered = [shard_map.owners[bucket] for bucket in _by_partition(range(BUCKETS), shard_map.partitions)]
    runs = [[names.index(owner), len(list(same))] for owner, same in groupby(ordered)]
    body = {"revision": shard_map.revision, "partitions": shard_map.partitions, "shards": names, "runs": runs}
    return json.dumps(body, separators=(",", ":"))


def unpack(text: str) -> ShardMap:
    """The map of a packed text.

    Raises:
        Corrupt: it is none.
    """
    try:
        body = json.loads(text)
        partitions, names = int(body["partitions"]), [str(name) for name in body["shards"]]
        ordered = [names[index] for index, length in body["runs"] for _ in range(length)]
        owners = [""] * BUCKETS
        for bucket, owner in zip(_by_partition(range(BUCKETS), partitions), ordered, strict=True):
            owners[bucket] = owner
        return ShardMap(int(body["revision"]), partitions, tuple(owners))
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise Corrupt(f"not a shard map: {text[:80]!r}; restore the control store") from error


def _by_partition(buckets: Iterable[int], partitions: int) -> list[int]:
    return sorted(buckets, key=lambda bucket: (bucket % partitions, bucket))


def _weights(shards: Iterable[str], given: Mapping[str, float]) -> dict[str, float]:
    weights = {shard: float(given.get(shard, 1.0)) for shard in shards}
    if not all(0 < weight < float("inf") for weight in weights.values()):
        raise Rejected(f"weights have to be positive: {weights}")
    return weights


def _extend(old: ShardMap, shard: str, given: Mapping[str, float], allowed: frozenset[int] | None) -> ShardMap:
    if not shard or shard in old.owners:
        raise Rejected(f"shard {shard!r} owns buckets already; add one that does not")
    weights = _weights([*old.shards, shard], given)
    total = sum(weights.values())
    targets = {name: BUCKETS * weight / total for name, weight in weights.items()}
    taking = _Taking(old, shard, targets)
    if allowed is None:
        taking.take_partitions()
        if taking.took and taking.left * 2 < BUCKETS / old.partitions:
            return taking.result()
    taking.take_buckets(allowed)
    return taking.result()


class _Taking:
    """The state of one extension: who owns what so far, and how much the new shard still lacks."""

    def __init__(self, old: ShardMap, shard: str, targets: Mapping[str, float]) -> None:
        self._old, self._shard, self._targets = old, shard, targets
        self._owners = list(old.owners)
        self._sizes = Counter(old.owners)
        self.left = max(1, round(targets[shard]))

    def take_partitions(self) -> None:
        """Whole partitions, while one fits and its owner keeps at least half of what it should have."""
        stacks: dict[str, list[int]] = {}
        for partition in range(self._old.partitions):
            owners = self._old.shards_of_partition(partition)
            if len(owners) == 1:
                stacks.setdefault(owners[0], []).append(partition)
        while donors := [name for name, stack in stacks.items() if stack and self._fits(stack[-1], name)]:
            donor = max(donors, key=lambda name: (self._excess(name), name))
            self._take(range(stacks[donor].pop(), BUCKETS, self._old.partitions))

    def take_buckets(self, allowed: frozenset[int] | None) -> None:
        """Single buckets from whoever has most beyond its share, until the new shard has its own."""
        stacks: dict[str, list[int]] = {}
        for bucket in _by_partition(range(BUCKETS), self._old.partitions):
            if self._owners[bucket] != self._shard and (allowed is None or bucket in allowed):
                stacks.setdefault(self._owners[bucket], []).append(bucket)
        while self.left > 0:
            donors = [
                name for name, stack in stacks.items() if stack and self._sizes[name] > 1 and self._excess(name) > 0
            ]
            if not donors:
                return
            donor = max(donors, key=lambda name: (self._excess(name), name))
            self._take([stacks[donor].pop()])

    @property
    def took(self) -> bool:
        """Whether the new shard has anything yet."""
        return self._sizes[self._shard] > 0

    def result(self) -> ShardMap:
        """The map as it stands."""
        return ShardMap(self._old.revision + 1, self._old.partitions, tuple(self._owners))

    def _excess(self, name: str) -> float:
        return self._sizes[name] - self._targets[name]

    def _fits(self, partition: int, owner: str) -> bool:
        size = len(range(partition, BUCKETS, self._old.partitions))
        return self.left * 2 >= size and (self._sizes[owner] - size) * 2 >= self._targets[owner]

    def _take(self, buckets: Iterable[int]) -> None:
        for bucket in buckets:
            self._sizes[self._owners[bucket]] -= 1
            self._owners[bucket] = self._shard
            self._sizes[self._shard] += 1
            self.left -= 1
