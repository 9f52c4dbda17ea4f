"""An event loop on a thread of its own, for a client that is asynchronous behind an interface that blocks."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for threads that wait for them. Threads may share an instance."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock, self._stopping = threading.Lock(), False
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result or error. Whoever is interrupted while waiting cancels it.

        Raises:
            RuntimeError: the thread is stopped.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def run_within(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """As `run`, for so long at most. Raises TimeoutError, after the coroutine was cancelled."""
        try:
            return self.run(asyncio.wait_for(work, timeout_s))
        finally:
            if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:  # cancelled, or refused, before it began
                work.close()

    def soon(self, call: Callable[[], None]) -> None:
        """Calls it on the loop's thread, unless that is stopped; returns at once."""
        with self._lock:
            if not self._stopping:
                self._loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        """Ends the loop, cancelling what it still runs. Safe to call twice."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(_cancel_others())  # what was begun meanwhile
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
