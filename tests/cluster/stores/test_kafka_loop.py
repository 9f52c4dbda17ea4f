"""Coroutines run for threads that wait."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from concurrent.futures import CancelledError

import pytest

from cluster.stores.kafka_loop import LoopThread


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def fail() -> None:
    raise KeyError("it")


def test_results_and_errors_come_back_and_stopping_twice_is_fine() -> None:
    thread = LoopThread("loop-test")
    assert thread.run(answer(7)) == 7
    with pytest.raises(KeyError, match="it"):
        thread.run(fail())
    called = threading.Event()
    thread.soon(called.set)
    assert called.wait(5)
    thread.stop()
    thread.stop()
    assert "loop-test" not in {running.name for running in threading.enumerate()}
    with pytest.raises(RuntimeError):
        thread.run(answer(7))


def test_what_still_runs_is_cancelled_when_it_stops() -> None:
    thread, seen, begun = LoopThread("loop-test"), list[str](), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    def run() -> None:
        with pytest.raises(CancelledError):
            thread.run(wait())
        seen.append("told")

    waiting = threading.Thread(target=run)
    waiting.start()
    assert begun.wait(5)
    thread.stop()
    waiting.join(5)
    assert sorted(seen) == ["cancelled", "told"]
    assert not waiting.is_alive()


def test_a_bounded_one_gives_up_in_time() -> None:
    thread = LoopThread("loop-test")
    assert thread.run_within(answer(7), 5.0) == 7
    with pytest.raises(TimeoutError):
        thread.run_within(asyncio.sleep(5.0), 0.01)
    thread.stop()


def test_a_bounded_one_that_never_began_is_closed() -> None:
    thread = LoopThread("loop-test")
    thread.stop()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError):
            thread.run_within(answer(7), 5.0)
        gc.collect()
    assert not [str(one.message) for one in told if "never awaited" in str(one.message)]


def test_what_is_begun_while_it_stops_is_closed_too() -> None:
    tasks = list[asyncio.Task[int]]()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(50):
            thread = LoopThread("loop-test")
            stopping = threading.Thread(target=thread.stop)
            stopping.start()
            for _ in range(20):
                thread.soon(lambda: tasks.append(asyncio.get_running_loop().create_task(answer(7))))
            stopping.join()
        assert all(task.done() for task in tasks)
        tasks.clear()
        gc.collect()
    assert not [str(one.message) for one in told if "never awaited" in str(one.message)]
