"""What a fault run measures of a running installation, in threads and on connections of its own.

with Waiting(system) as waiting:             # how long what is in the log waits for its shards
    …
    waiting.longest_s
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import suppress
from types import TracebackType

from cluster.errors import IntelGraphError
from tests.faults.harness import DEADLINE_S, Installation
from tests.faults.producer import Producer

_LOOK_S = 0.05


class Waiting:
    """Looks all the time how old the oldest entry is that a shard has not applied yet, for each log partition."""

    def __init__(self, system: Installation) -> None:
        self._system = system
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waiting", daemon=True)
        self.longest_s: dict[int, float] = defaultdict(float)
        self.looks = 0

    def __enter__(self) -> Waiting:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            with suppress(IntelGraphError):
                for partition, age_s in ages_s(self._system).items():
                    self.longest_s[partition] = max(self.longest_s[partition], age_s)
                self.looks += 1


def ages_s(system: Installation) -> dict[int, float]:
    """By log partition: how old the oldest entry is that a shard has not applied; 0 where there is none."""
    ages: dict[int, float] = dict.fromkeys(range(system.partitions), 0.0)
    log, current = system.stack.open_log(), system.stack.current_map()
    try:
        now = time.time()  # what is not applied a moment later was not either
        at = {shard: system.positions(shard) for shard in system.shard_ids}
        for partition, end in log.ends().items():
            least = min(at[shard].get(partition, 0) for shard in current.shards_of_partition(partition))
            if least < end:
                (entry,) = log.read(partition, least, 1, 1)
                ages[partition] = max(0.0, now - entry.appended_ms / 1000)
    finally:
        log.close()
    return ages


def lag_s(system: Installation, producer: Producer) -> float:
    """How long the oldest event waits that was sent and is not in its shard: for the log, or in it."""
    unsent_s = time.time() - producer.invoked_at if producer.sent < producer.total else 0.0
    return max(unsent_s, *ages_s(system).values())


def longest_between_appends_s(system: Installation) -> float:
    """The longest time between two entries that follow each other in one log partition."""
    longest_ms = 0
    for partition, end in system.ends().items():
        before_ms, after = 0, 0
        while after < end:
            for entry in system.log.read(partition, after, 64, 8 << 20):
                longest_ms = max(longest_ms, entry.appended_ms - (before_ms or entry.appended_ms))
                before_ms, after = entry.appended_ms, entry.number
    return longest_ms / 1000
