"""The lane to one shard: its threads, its connections, its circuit breaker. What hangs there hangs nobody else.

FanOut ─► Lane.call(job) ─► breaker, room ─► a thread of this shard ─► its own connection ─► Reader.read_all

The breaker is for a shard that does not answer. A question that takes too long (`TooCostly`) and one that no thread
took in time (`Overloaded`, `TooLate`) say nothing against it. Nor does an answer that is late because others keep the
shard's threads busy: `Reader.answers` asks what no question can delay. So nobody's questions close a shard to others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cluster.config import QuerySettings
from cluster.databases import Dialect
from cluster.errors import ASK_FOR_LESS, IntelGraphError, Overloaded, TooCostly, Unavailable
from cluster.query.cypher import Statement
from cluster.query.hot import Rows
from cluster.routing import Breaker

T = TypeVar("T")
THREADS = 8
SUSPECT_S = 1.0
"""A shard that owes an answer for so long is asked whether it answers at all."""
PING_S = 1.0
"""A shard that does not answer a ping for so long does not answer at all."""
STORE_SHARE = 0.9
"""How much of an attempt the store may take: its own time-out, if it can still speak, arrives before the caller's."""

DEADLINE_PASSED = "the deadline has passed; ask for less, or try again"


class Reader(Protocol):
    """One connection to one shard, for one thread; `cluster.stores.falkor.FalkorClient` is one."""

    dialect: Dialect
    """Of the shard's database."""

    def read_all(self, queries: Sequence[tuple[str, dict[str, Any]]], timeout_s: float | None = None) -> list[Rows]:
        """Rows of each reading template, sent at once. Raises Unavailable, TooCostly after `timeout_s`, Overloaded,
        Corrupt."""

    def answers(self) -> bool:
        """Whether the shard answers at all, however busy it is with queries. May block as long as `read_all`."""

    def close(self) -> None:
        """Close the connection."""


Connect = Callable[[str], Reader]
"""A new connection to a shard by its id; called once a thread. Its own time-out bounds how long a thread can hang."""


@dataclass(slots=True)
class Attempt:
    """One attempt's clock: statements of a job share what is left of it.

    Args:
        at_s: when it ends, on `time.monotonic`.
        queued: others had every thread of the lane when it came.
        begun: a thread has taken it.
        asking: a statement is at the shard, which owes an answer by `at_s`.
    """

    at_s: float
    queued: bool = False
    begun: bool = False
    asking: bool = False

    def left_s(self) -> float:
        """Time left for a statement; raises TooCostly when those before it have taken all."""
        left = self.at_s - time.monotonic()
        if left <= 0:
            raise TooCostly(f"the question took too long on its shard; {ASK_FOR_LESS}")
        return left

    def late(self, shard: str) -> IntelGraphError:
        """Why there is no answer when the caller stops waiting."""
        if not self.begun and not self.queued:
            return TooLate(DEADLINE_PASSED, 1.0)
        if not self.begun:
            return Overloaded(f"shard {shard} is busy with other questions; try again", 0.5)
        if self.asking:
            return Unavailable(f"shard {shard} does not answer; try again", 1.0)
        return TooCostly(f"the answer took too long to put together; {ASK_FOR_LESS}")


class Shunned(Unavailable):
    """The shard's breaker is open: it is not asked before a trial is due, so trying again sooner is of no use."""


class TooLate(Unavailable):
    """So little time was left that the shard was not asked: what it has said before says more."""


class Asking:
    """How a job reads: a `Read`, on one connection and within one attempt's time."""

    def __init__(self, reader: Reader, attempt: Attempt) -> None:
        self._reader, self._attempt = reader, attempt
        self.dialect = reader.dialect

    def __call__(self, statement: Statement) -> Rows:
        """Rows of one statement."""
        return self.at_once([statement])[0]

    def at_once(self, statements: Sequence[Statement]) -> list[Rows]:
        """Rows of several statements, in one round trip."""
        left_s = self._attempt.left_s()
        self._attempt.asking = True
        rows = self._reader.read_all(statements, left_s)
        self._attempt.asking = False
        return rows


class Lane:
    """Calls to one shard, from one event loop. At most `ongoing_requests` are under way or wait for a thread."""

    def __init__(self, shard: str, connect: Connect, settings: QuerySettings) -> None:
        self._shard, self._connect = shard, connect
        self._most = settings.ongoing_requests
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
        self._failures = settings.breaker_failures
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"shard-{shard}")
        self._mine = threading.local()
        self._readers: list[Reader] = []
        self._under_way = 0
        self._ping_thread = ThreadPoolExecutor(1, thread_name_prefix=f"shard-{shard}-ping")
        self._ping: asyncio.Task[None] | None = None

    async def call(self, job: Callable[[Asking], T], timeout_s: float) -> T:
        """Run a job on one of the lane's threads and connections.

        Raises:
            Unavailable: the shard owes an answer; Shunned where the breaker is open, TooLate where no thread took the
            job in time. Overloaded: the lane is full.
            TooCostly: the shard answers, and the job takes too long. What the job raises.
        """
        now = time.monotonic()
        if not self._breaker.allows(now):
            raise self._shunned(now)
        if self._under_way >= self._most:
            raise Overloaded(f"shard {self._shard} has {self._under_way} questions under way; try again", 0.5)
        self._breaker = self._breaker.called(now)
        self._under_way += 1
        attempt = Attempt(now + timeout_s * STORE_SHARE, queued=self._under_way > THREADS)
        future = self._threads.submit(self._run, job, attempt)
        future.add_done_callback(self._left(asyncio.get_running_loop()))
        try:
            answer = await self._answer(asyncio.wrap_future(future), attempt, timeout_s)
        except Shunned:
            raise
        except TimeoutError as error:
            late = attempt.late(self._shard)
            if attempt.begun and isinstance(late, Unavailable):
                self._suspect()
            raise late from error
        except Unavailable:
            if attempt.begun:
                self._failed(1)
            raise
        except IntelGraphError:
            if attempt.begun:
                self._breaker = self._breaker.succeeded()
            raise
        self._breaker = self._breaker.succeeded()
        return answer

    async def _answer(self, future: asyncio.Future[T], attempt: Attempt, timeout_s: float) -> T:
        """The job's answer. Raises Shunned when the shard turns out not to answer at all, TimeoutError."""
        until = time.monotonic() + timeout_s
        try:
            await asyncio.wait([future], timeout=min(SUSPECT_S, timeout_s))
            if timeout_s > SUSPECT_S and attempt.asking and not future.done():
                ping, left_s = self._suspect(), until - time.monotonic()
                both: list[asyncio.Future[Any]] = [future, ping]
                await asyncio.wait(both, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if ping.done() and not future.done() and not self._breaker.allows(now := time.monotonic()):
                    raise self._shunned(now)
            return await asyncio.wait_for(future, max(0.0, until - time.monotonic()))
        finally:
            future.cancel()

    def _shunned(self, now: float) -> Shunned:
        wait = max(0.1, self._breaker.retry_after_s(now))
        return Shunned(f"shard {self._shard} did not answer lately; it is tried again shortly", wait)

    def _left(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        def leave(_: object) -> None:
            self._under_way -= 1

        def done(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(leave, None)

        return done

    def _suspect(self) -> asyncio.Task[None]:
        """Open the breaker unless the shard answers a ping; one ping at a time."""
        if self._ping is None or self._ping.done():
            self._ping = asyncio.create_task(self._blame())
        return self._ping

    async def _blame(self) -> None:
        asked = asyncio.wrap_future(self._ping_thread.submit(self._answers))
        try:
            alive = await asyncio.wait_for(asked, PING_S)
        except (TimeoutError, IntelGraphError):
            alive = False
        if alive:
            self._breaker = self._breaker.succeeded()
        else:
            self._failed(self._failures)

    def _answers(self) -> bool:
        reader = self._connect(self._shard)
        try:
            return reader.answers()
        finally:
            reader.close()

    def _failed(self, times: int) -> None:
        for _ in range(times):
            self._breaker = self._breaker.failed(time.monotonic())

    def _run(self, job: Callable[[Asking], T], attempt: Attempt) -> T:
        if attempt.at_s <= time.monotonic():
            raise attempt.late(self._shard)
        attempt.begun = attempt.asking = True
        reader = self._reader()
        attempt.asking = False

        return job(Asking(reader, attempt))

    def _reader(self) -> Reader:
        reader: Reader | None = getattr(self._mine, "reader", None)
        if reader is None:
            reader = self._mine.reader = self._connect(self._shard)
            self._readers.append(reader)
        return reader

    def close(self) -> None:
        """Let no more in, and close connections; a thread that hangs ends with its connection's time-out."""
        if self._ping is not None:
            self._ping.cancel()
        for threads in (self._threads, self._ping_thread):
            threads.shutdown(wait=False, cancel_futures=True)
        for reader in self._readers:
            reader.close()
