"""What is lost where the log ends below what its consumers have, and who has it. Pure.

    Held (the log's ends, lake, cursors of shards, what was ever reported) ─► judge ─► Damage (seams, what is lost)

An entry that the log lacks is held by the lake, whole; or by the shards that own its partition, if the cursors of all
of them are behind it: then its facts are there, but for those that were overtaken since. What nobody holds is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.stores.log import Seam, check_tails


@dataclass(frozen=True, slots=True)
class Held:
    """Last entry of each log partition that somebody has; absent: 0.

    Args:
        ends: of the log itself.
        lake: in the lake.
        shards: shard → partition → its cursor.
        whole: shards that hold all of their buckets, so that what their cursors say is there.
        reported: the furthest that any consumer was ever known to have.
    """

    ends: Mapping[int, int]
    lake: Mapping[int, int]
    shards: Mapping[str, Mapping[int, int]]
    whole: frozenset[str]
    reported: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Damage:
    """What a new generation of the log has to make good.

    Args:
        seams: of every partition.
        lost: partition → (first, last) of the entries that nobody holds.
    """

    seams: Mapping[int, Seam]
    lost: Mapping[int, tuple[int, int]]

    @property
    def none(self) -> bool:
        """Whether the log has all that anybody has."""
        return all(seam.resumed == seam.end for seam in self.seams.values())

    def check_tails(self) -> None:
        """Raises LogLostTail of the first partition that lost something."""
        ends = {p: seam.end for p, seam in self.seams.items()}
        check_tails(ends, {p: max(seam.kept, seam.resumed - 1) for p, seam in self.seams.items()})

    @property
    def lost_text(self) -> str:
        """The entries that nobody holds, in words."""
        return ranges_text(self.lost)


def ranges_text(ranges: Mapping[int, tuple[int, int]]) -> str:
    """Entries as `log accept-loss` takes them: `0:61-70,3:5-9`."""
    return ",".join(f"{partition}:{first}-{last}" for partition, (first, last) in sorted(ranges.items()))


def lost_since(
    seams: Mapping[int, Seam], shards: Mapping[str, Mapping[int, int]], owners: Mapping[int, Sequence[str]]
) -> dict[int, tuple[int, int]]:
    """Partition → (first, last) of entries whose facts shards held when the generation was opened, and not any more:
    one that was killed meanwhile comes back as it was saved last.

    Args:
        shards: shard → partition → its cursor.
    """
    lost: dict[int, tuple[int, int]] = {}
    for partition, seam in seams.items():
        least = min((shards[shard].get(partition, 0) for shard in owners.get(partition, ())), default=0)
        if least < seam.held:
            lost[partition] = (max(least, seam.kept) + 1, seam.held)
    return lost


def judge(held: Held, owners: Mapping[int, Sequence[str]]) -> Damage:
    """What is lost.

    Args:
        owners: log partition → shards that it has entries for.
    """
    seams: dict[int, Seam] = {}
    lost: dict[int, tuple[int, int]] = {}
    for partition, end in held.ends.items():
        at = {shard: held.shards.get(shard, {}).get(partition, 0) for shard in owners.get(partition, ())}
        kept = max(end, held.lake.get(partition, 0))
        furthest = max(kept, held.reported.get(partition, 0), *at.values())
        by_shards = min((number if shard in held.whole else 0 for shard, number in at.items()), default=0)
        there = max(kept, by_shards)
        resumed = furthest + 1 if furthest > kept else kept
        seams[partition] = Seam(end, kept, resumed, there if there > kept else 0)
        if furthest > there:
            lost[partition] = (there + 1, furthest)
    return Damage(seams, lost)
