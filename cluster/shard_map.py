"""The shard map: which shard owns each of the 4,096 buckets, as a value, and how one map follows another.

    initial(shards, partitions) ─► ShardMap ─► add_shard | adopt_empty | drain ─► ShardMap ─► plan(old, new)
                                            └► repartition ─► ShardMap

A bucket belongs to the log partition bucket % partitions. Maps keep the buckets of a partition on one shard where they
can, so that a partition's writer writes to one shard. A log that was given another number of partitions has entries of
a bucket by every number that it had, so a map keeps them: whoever reads takes all of these partitions, in any order,
since versions order; whoever appends takes the one of today. Health is no input of this module: a shard that is down
still owns its buckets. Every function is deterministic and changes nothing but what it says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
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
        earlier: numbers of partitions that the log has had before, in order, each once.
    """

    revision: int
    partitions: int
    owners: tuple[str, ...]
    earlier: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.partitions, *self.earlier)
        if len(self.owners) != BUCKETS or not all(1 <= n <= BUCKETS for n in numbers) or not all(self.owners):
            raise ValueError(f"a shard map has {BUCKETS} owners and 1 to {BUCKETS} partitions")

    @property
    def all_partitions(self) -> int:
        """How many partitions may hold entries: those that were given up too."""
        return max(self.partitions, *self.earlier, 0)

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards that own a bucket, sorted."""
        return tuple(sorted(set(self.owners)))

    def buckets_of(self, shard: str) -> tuple[int, ...]:
        """The buckets that a shard owns, ascending."""
        return tuple(bucket for bucket, owner in enumerate(self.owners) if owner == shard)

    def shards_of_partition(self, partition: int) -> tuple[str, ...]:
        """The shards that entries of a log partition are for, sorted; one, where nothing was moved singly."""
        return tuple(sorted({owner for n in self._numbers(partition) for owner in self.owners[partition::n]}))

    def partitions_of(self, shard: str) -> tuple[int, ...]:
        """The log partitions that have entries for a shard, ascending; earlier generations' too."""
        return tuple(p for p in range(self.all_partitions) if any(shard in self.owners[p::n] for n in self._numbers(p)))

    def owners_of(self, partition: int) -> tuple[str, ...]:
        """The shards that entries are for which are appended to a log partition from now on, sorted."""
        return tuple(sorted(set(self.owners[partition :: self.partitions])))

    def appended_for(self, shard: str) -> tuple[int, ...]:
        """The log partitions that get entries for a shard from now on, ascending."""
        return tuple(p for p in range(self.partitions) if shard in self.owners[p :: self.partitions])

    def new_to(self, shard: str) -> tuple[int, ...]:
        """The log partitions that have entries for a shard since the log has the number that it has, and had none
        before, ascending."""
        if self.partitions in self.earlier:
            return ()
        return tuple(
            p
            for p in (self.appended_for(shard) if self.earlier else ())
            if not any(shard in self.owners[p::n] for n in self.earlier if p < n)
        )

    def partitions_of_bucket(self, bucket: int) -> tuple[int, ...]:
        """The log partitions that may have a bucket's entries, ascending."""
        return tuple(sorted({partition_of(bucket, n) for n in (self.partitions, *self.earlier)}))

    def partitions_beside(self, partition: int) -> tuple[int, ...]:
        """The log partitions that may have entries of the buckets that are appended to one of them, ascending."""
        buckets = range(partition, BUCKETS, self.partitions)
        return tuple(sorted({p for bucket in buckets for p in self.partitions_of_bucket(bucket)}))

    def groups(self) -> list[tuple[int, ...]]:
        """All log partitions, in groups of those that share a bucket: all records of a thing are in one group."""
        group = {p: {p} for p in range(self.all_partitions)}
        for bucket in range(BUCKETS) if self.earlier else ():
            first, *rest = self.partitions_of_bucket(bucket)
            for other in rest:
                if (joined := group[first]) is not group[other]:
                    joined |= group[other]
                    group.update(dict.fromkeys(group[other], joined))
        return sorted({tuple(sorted(one)) for one in group.values()})

    def _numbers(self, partition: int) -> set[int]:
        return {n for n in (self.partitions, *self.earlier) if partition < n}


def partition_of(bucket: int, partitions: int) -> int:
    """The log partition that a bucket's records are appended to, for ever within a generation of the log."""
    return bucket % partitions


def repartition(old: ShardMap, partitions: int) -> ShardMap:
    """The map for a log that gets another number of partitions; nobody's buckets change.

    Raises:
        Rejected: it is the same number.
    """
    if partitions == old.partitions:
        raise Rejected(f"the log has {partitions} partitions already")
    earlier = tuple(dict.fromkeys((*old.earlier, old.partitions)))
    return replace(old, revision=old.revision + 1, partitions=partitions, earlier=earlier)


def initial(shards: Sequence[str], partitions: int) -> ShardMap:
    """The first map: whole partitions dealt to the shards in turn; with more shards than partitions, single buckets.

    Raises:
        Rejected: there is no shard, or one is named twice.
    """
    if not shards or len(set(shards)) != len(shards):
        raise Rejected(f"a shard map needs shards, each named once, not {list(shards)}")
    if len(shards) <= partitions:
        owners = [shards[partition_of(bucket, partitions) % len(shards)] for bucket in range(BUCKETS)]
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
    return replace(old, revision=old.revision + 1, owners=tuple(owners))


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
    if shard_map.earlier:
        body["earlier"] = shard_map.earlier
    return json.dumps(body, separators=(",", ":"))


@lru_cache(maxsize=4)  # it is read from the control store every second, and changes once in months
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
        return ShardMap(int(body["revision"]), partitions, tuple(owners), tuple(map(int, body.get("earlier", ()))))
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise Corrupt(f"not a shard map: {text[:80]!r}; restore the control store") from error


def _by_partition(buckets: Iterable[int], partitions: int) -> list[int]:
    return sorted(buckets, key=lambda bucket: (partition_of(bucket, partitions), bucket))


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
            owners = self._old.owners_of(partition)
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
        return replace(self._old, revision=self._old.revision + 1, owners=tuple(self._owners))

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
