"""The lane to one shard: its threads, its connections, its circuit breaker. What hangs there hangs nobody else.

FanOut ─► Lane.call(job) ─► breaker, room ─► a thread of this shard ─► its own connection ─► Reader.read
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cluster.config import QuerySettings
from cluster.errors import IntelGraphError, Overloaded, Unavailable
from cluster.query.cypher import Statement
from cluster.query.hot import Rows
from cluster.routing import Breaker

T = TypeVar("T")
THREADS = 8
STORE_SHARE = 0.9
"""How much of an attempt the store may take: its own time-out, if it can still speak, arrives before the caller's."""


class Reader(Protocol):
    """One connection to one shard, for one thread; `cluster.stores.falkor.FalkorClient` is one."""

    def read(self, template: str, parameters: dict[str, Any], timeout_s: float | None = None) -> Rows:
        """Rows of a reading template. Raises Unavailable, Overloaded, Corrupt."""

    def close(self) -> None:
        """Close the connection."""


Connect = Callable[[str], Reader]
"""A new connection to a shard by its id; called once a thread. Its own time-out bounds how long a thread can hang."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt's clock: statements of a job share what is left of it.

    Args:
        at_s: when it ends, on `time.monotonic`.
    """

    at_s: float

    def left_s(self) -> float:
        """Time left; raises Unavailable when there is none."""
        left = self.at_s - time.monotonic()
        if left <= 0:
            raise Unavailable("the question took too long on its shard; ask for less, or try again", 1.0)
        return left


class Lane:
    """Calls to one shard, from one event loop. At most `ongoing_requests` are under way or wait for a thread."""

    def __init__(self, shard: str, connect: Connect, settings: QuerySettings) -> None:
        self._shard, self._connect = shard, connect
        self._most = settings.ongoing_requests
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
        self._hang_counts = (settings.breaker_failures + 1) // 2
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"shard-{shard}")
        self._mine = threading.local()
        self._readers: list[Reader] = []
        self._under_way = 0

    async def call(self, job: Callable[[Callable[[Statement], Rows]], T], timeout_s: float) -> T:
        """Run a job on one of the lane's threads and connections.

        Raises:
            Unavailable: the breaker is open, or no answer came in time. Overloaded: the lane is full. What the job
            raises.
        """
        now = time.monotonic()
        if not self._breaker.allows(now):
            wait = max(0.1, self._breaker.retry_after_s(now))
            raise Unavailable(f"shard {self._shard} did not answer lately; it is tried again shortly", wait)
        if self._under_way >= self._most:
            raise Overloaded(f"shard {self._shard} has {self._under_way} questions under way; try again", 0.5)
        self._breaker = self._breaker.called(now)
        self._under_way += 1
        future = self._threads.submit(self._run, job, Attempt(now + timeout_s * STORE_SHARE))
        future.add_done_callback(self._left(asyncio.get_running_loop()))
        try:
            answer = await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError as error:
            self._failed(self._hang_counts)
            raise Unavailable(f"shard {self._shard} does not answer; try again", 1.0) from error
        except Unavailable:
            self._failed(1)
            raise
        except IntelGraphError:
            self._breaker = self._breaker.succeeded()
            raise
        self._breaker = self._breaker.succeeded()
        return answer

    def _left(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        def leave(_: object) -> None:
            self._under_way -= 1

        def done(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(leave, None)

        return done

    def _failed(self, times: int) -> None:
        for _ in range(times):
            self._breaker = self._breaker.failed(time.monotonic())

    def _run(self, job: Callable[[Callable[[Statement], Rows]], T], attempt: Attempt) -> T:
        attempt.left_s()
        reader = self._reader()

        def read(statement: Statement) -> Rows:
            return reader.read(statement.template, statement.parameters, attempt.left_s())

        return job(read)

    def _reader(self) -> Reader:
        reader: Reader | None = getattr(self._mine, "reader", None)
        if reader is None:
            reader = self._mine.reader = self._connect(self._shard)
            self._readers.append(reader)
        return reader

    def close(self) -> None:
        """Let no more in, and close connections; a thread that hangs ends with its connection's time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for reader in self._readers:
            reader.close()
