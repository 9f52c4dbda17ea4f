"""Reading one's own writes: a push answers with a position token, a read with `wait_for=TOKEN` waits until it shows.

The token is `partition:entry` of the log, joined by commas, and the generation of the log behind an `@` where it is
not the first: `3:204,5:17@2`. It tells nothing but numbers. Numbers go on from one generation to the next, but what a
log has lost for good is not in the next: a token that names such an entry is refused.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cluster.errors import LostPosition, Overloaded, Rejected, TooCostly, Unavailable
from cluster.query.lane import TooLate
from cluster.routing import Deadline
from cluster.stores.log import Generation
from serve_apps.api.services import AppliedPositions

_ONE = re.compile(r"([0-9]{1,4}):([0-9]{1,19})\Z")
_GENERATION = re.compile(r"[1-9][0-9]{0,8}\Z")
PARTITIONS_MAX = 4096
FIRST_WAIT_S, LONGEST_WAIT_S = 0.005, 0.1
ANSWER_S = 0.1
"""Left of the deadline for one more answer; else nobody is asked any more."""
FIRST_GENERATION = 1


class Waited(NamedTuple):
    """What a token names.

    Args:
        positions: log partition → entry.
    """

    positions: Mapping[int, int]
    generation: int = FIRST_GENERATION


def newest(generations: Sequence[Generation]) -> int:
    """The number of a log's generation.

    Args:
        generations: those after the first, in order.
    """
    return generations[-1].number if generations else FIRST_GENERATION


def token_of(positions: Mapping[int, int], generation: int = FIRST_GENERATION) -> str:
    """The token of log positions."""
    token = ",".join(f"{partition}:{entry}" for partition, entry in sorted(positions.items()))
    return token if generation == FIRST_GENERATION or not token else f"{token}@{generation}"


def waited_for(token: str) -> Waited:
    """What a token names.

    Raises:
        Rejected: it is none.
    """
    named, mark, generation = token.partition("@")
    parts = named.split(",", PARTITIONS_MAX)
    found = [_ONE.match(part) for part in parts]
    positions = {int(one[1]): int(one[2]) for one in found if one}
    if len(positions) != len(parts) or (mark and not _GENERATION.match(generation)):
        raise Rejected("wait_for: give the `position` of a push's answer")
    return Waited(positions, int(generation) if mark else FIRST_GENERATION)


def check_kept(waited: Waited, generations: Iterable[Generation]) -> None:
    """Nothing if a log still has every entry, or what the entry said.

    Args:
        generations: of the log, those after the first, in order.

    Raises:
        LostPosition: an entry was lost; its number may be another's by now.
    """
    for generation in generations:
        if generation.number <= waited.generation or generation.is_whole:  # of another number of partitions alone
            continue
        for partition, entry in waited.positions.items():
            seam = generation.seams.get(partition)
            if seam is not None and entry > max(seam.kept, seam.held):
                raise LostPosition(
                    f"wait_for: entry {entry} of log partition {partition} is lost: a later generation of the log,"
                    f" {generation.number}, does not have it. Push the same again, and wait for the new position"
                )


async def wait_until_applied(applied: AppliedPositions, positions: Mapping[int, int], deadline: Deadline) -> None:
    """Return once shards have applied the positions.

    Raises:
        Unavailable: the deadline came first, or a shard does not answer; what was pushed is durable and will show
            later.
    """
    wait_s = FIRST_WAIT_S
    while positions and not await _reached(applied, positions, deadline):
        left = deadline.left_s(time.monotonic())
        if left <= wait_s + ANSWER_S:
            raise Unavailable("what you wait for is durable but not visible yet; ask again", 1.0)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s = min(LONGEST_WAIT_S, wait_s * 1.5)


async def _reached(applied: AppliedPositions, positions: Mapping[int, int], deadline: Deadline) -> bool:
    try:
        return await applied.reached(positions, deadline)
    except (Overloaded, TooCostly, TooLate):  # a busy shard, or a busy process here, says nothing of what is applied
        return False
