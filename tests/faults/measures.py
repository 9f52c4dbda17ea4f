"""What a fault run measures of a running installation, in threads and on connections of its own.

with Waiting(system) as waiting:             # how long what is in the log waits for its shards
    …
    waiting.longest_s
with Questions(system, "shard-1") as asked:  # how fast a shard answers while another is down
    with asked.marked("calm"): …
    asked.p95_s("calm")
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from cluster.config import QuerySettings
from cluster.errors import IntelGraphError, NotFound
from cluster.ids import bucket_of
from cluster.query.fanout import FanOut
from cluster.query.hot import read_entity
from cluster.query.ir import EntityQuery
from serve_apps.services import ControlDirectory
from tests.faults.harness import DEADLINE_S, Installation
from tests.faults.producer import Producer

_LOOK_S = 0.05
_ASK_S = 0.01
_UNANSWERED_MOST = 8


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


class Questions:
    """Asks for an entity of each shard all the time, as the API does, and times the answers of one of them.

    Those of the other shards may hang: some are always under way.
    """

    def __init__(self, system: Installation, shard: str) -> None:
        self._system, self._shard = system, shard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()), name="questions", daemon=True)
        self._label = ""
        self._took_s: dict[str, list[float]] = defaultdict(list)
        self.failed: list[str] = []

    def __enter__(self) -> Questions:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_S)

    @contextmanager
    def marked(self, label: str) -> Iterator[None]:
        """Answers to what is asked inside count under this label."""
        self._label = label
        try:
            yield
        finally:
            self._label = ""

    def answers(self, label: str) -> int:
        """How many there are."""
        return len(self._took_s[label])

    def p95_s(self, label: str) -> float:
        """The time within which 95 of 100 answers came."""
        return sorted(self._took_s[label])[int(self.answers(label) * 0.95)]

    async def _ask(self) -> None:
        stack = self._system.stack
        fanout = FanOut(ControlDirectory(stack), lambda shard: stack.open_client(shard, 5.0), QuerySettings())
        others: set[asyncio.Task[None]] = set()
        try:
            while not self._stopping.is_set():
                if len(others) < _UNANSWERED_MOST:
                    for shard in self._system.shard_ids:
                        if shard != self._shard:
                            others.add(task := asyncio.create_task(self._asked_of_another(fanout, shard)))
                            task.add_done_callback(others.discard)
                await self._timed(fanout)
                await asyncio.sleep(_ASK_S)
        finally:
            for task in others:
                task.cancel()
            fanout.close()

    async def _timed(self, fanout: FanOut) -> None:
        label, began = self._label, time.perf_counter()
        try:
            await self._one(fanout, self._shard)
        except IntelGraphError as error:
            self.failed.append(f"{type(error).__name__}: {error}")
        else:
            self._took_s[label].append(time.perf_counter() - began)

    async def _asked_of_another(self, fanout: FanOut, shard: str) -> None:
        with suppress(IntelGraphError):
            await self._one(fanout, shard)

    async def _one(self, fanout: FanOut, shard: str) -> None:
        tenant, case = self._case_of(shard)
        query = EntityQuery(tenant, case, "person", "1")
        with suppress(NotFound):  # that is an answer
            await fanout.one(bucket_of(tenant, case), lambda found: read_entity(found, query), fanout.deadline())

    def _case_of(self, shard: str) -> tuple[str, str]:
        owners = self._system.stack.current_map().owners
        cases = ((f"tenant-{t}", f"case-{c}") for t in range(3) for c in range(4))
        return next(pair for pair in cases if owners[bucket_of(*pair)] == shard)
