"""Reading one's own writes: a push answers with a position token, a read with `wait_for=TOKEN` waits until it shows.

The token is `partition:entry` of the log, joined by commas: `3:204,5:17`. It tells nothing but numbers.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping

from cluster.errors import Rejected, Unavailable
from cluster.routing import Deadline
from serve_apps.api.services import AppliedPositions

_ONE = re.compile(r"([0-9]{1,4}):([0-9]{1,19})\Z")
PARTITIONS_MAX = 4096
FIRST_WAIT_S, LONGEST_WAIT_S = 0.005, 0.1


def token_of(positions: Mapping[int, int]) -> str:
    """The token of log positions."""
    return ",".join(f"{partition}:{entry}" for partition, entry in sorted(positions.items()))


def positions_of(token: str) -> dict[int, int]:
    """Log positions of a token.

    Raises:
        Rejected: it is none.
    """
    parts = token.split(",", PARTITIONS_MAX)
    found = [_ONE.match(part) for part in parts]
    positions = {int(one[1]): int(one[2]) for one in found if one}
    if len(positions) != len(parts):
        raise Rejected("wait_for: give the `position` of a push's answer")
    return positions


async def wait_until_applied(applied: AppliedPositions, positions: Mapping[int, int], deadline: Deadline) -> None:
    """Return once shards have applied the positions.

    Raises:
        Unavailable: the deadline came first; what was pushed is durable and will show later.
    """
    wait_s = FIRST_WAIT_S
    while positions and not await asyncio.to_thread(applied.reached, positions):
        left = deadline.left_s(time.monotonic())
        if left <= wait_s:
            raise Unavailable("what you wait for is durable but not visible yet; ask again", 1.0)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s = min(LONGEST_WAIT_S, wait_s * 1.5)
