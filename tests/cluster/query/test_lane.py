"""The lane to one shard: its threads, its breaker, and what is said of answers that come late."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cluster.errors import Overloaded, TooCostly, Unavailable
from cluster.query import lane
from cluster.query.cypher import probe
from cluster.query.fanout import FanOut
from cluster.query.hot import Shard
from cluster.query.lane import SUSPECT_S, THREADS, TooLate
from tests.cluster.query.fake_shards import BUCKET, SETTINGS, Fake, ask, raising, run


def test_a_slow_answer_of_a_shard_that_answers_is_waited_for() -> None:
    fake = Fake(shard_2=lambda: [[time.sleep(SUSPECT_S + 0.3) or "late"]])
    merged = run(fake, lambda f: f.every(ask, f.deadline()), SETTINGS.model_copy(update={"deadline_s": 60.0}))
    assert merged.complete
    assert fake.pings == ["shard-2"]


def test_a_question_for_which_no_time_is_left_says_so_and_nothing_of_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "STORE_SHARE", 0.0)
    settings = SETTINGS.model_copy(update={"deadline_s": 1.0, "breaker_failures": 1})

    async def question(f: FanOut) -> Any:
        with pytest.raises(Unavailable, match="the deadline has passed"):
            await f.one(BUCKET, ask, f.deadline())
        monkeypatch.setattr(lane, "STORE_SHARE", 0.9)
        return await f.one(BUCKET, ask, f.deadline())

    fake = Fake()
    assert run(fake, question, settings) == "shard-1"
    assert fake.pings == []


def test_a_question_that_no_thread_takes_says_nothing_of_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for its breaker, which it does not close, nor against it: nobody asks whether it answers at all."""
    fake, released = Fake(), threading.Event()

    async def question(fanout: FanOut) -> Any:
        await fanout.one(BUCKET, ask, fanout.deadline())
        busy = fanout._lanes["shard-1"]
        busy._breaker = dataclasses.replace(busy._breaker, failures=2)
        busy._under_way += THREADS
        for _ in range(THREADS):
            busy._threads.submit(released.wait, 8.0)
        monkeypatch.setattr(lane, "STORE_SHARE", 0.0)
        late = [asyncio.create_task(busy.call(lambda read: read(probe()), seconds)) for seconds in (0.05, 5.0)]
        await asyncio.sleep(0.2)
        released.set()
        answers = await asyncio.gather(*late, return_exceptions=True)
        assert all("is busy with other questions" in str(answer) for answer in answers)
        return [type(answer) for answer in answers], busy._breaker.failures

    assert run(fake, question, SETTINGS.model_copy(update={"ongoing_requests": 64})) == ([Overloaded] * 2, 2)
    assert fake.pings == []


def test_a_thread_that_comes_too_late_is_not_the_shards_fault() -> None:
    fake, released = Fake(), threading.Event()

    async def question(fanout: FanOut) -> Any:
        await fanout.one(BUCKET, ask, fanout.deadline())
        slow = fanout._lanes["shard-1"]
        slow._threads.shutdown()
        slow._threads = ThreadPoolExecutor(1)
        slow._threads.submit(released.wait, 8.0)
        with pytest.raises(TooLate, match="the deadline has passed"):
            await slow.call(lambda read: read(probe()), 0.1)
        await asyncio.sleep(0.1)  # for a ping
        released.set()

    run(fake, question)
    assert fake.pings == []


def test_a_lane_is_bounded() -> None:
    released = threading.Event()
    fake = Fake(shard_1=lambda: [[released.wait(8.0)]])

    async def question(fanout: FanOut) -> list[Any]:
        tasks = [asyncio.create_task(fanout.one(BUCKET, ask, fanout.deadline())) for _ in range(20)]
        await asyncio.sleep(0.02)
        lane = fanout._lanes["shard-1"]
        with pytest.raises(Overloaded):
            await lane.call(lambda read: read(probe()), 0.1)
        assert lane._under_way == SETTINGS.ongoing_requests
        released.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run(fake, question)
    assert answers.count(True) >= SETTINGS.ongoing_requests
    assert all(answer is True or isinstance(answer, Overloaded) for answer in answers)


def test_questions_that_are_too_costly_leave_the_breaker_closed() -> None:
    fake = Fake(shard_1=raising(TooCostly("slow")))

    async def question(fanout: FanOut) -> Any:
        for _ in range(3 * SETTINGS.breaker_failures):
            with pytest.raises(TooCostly):
                await fanout.one(BUCKET, ask, fanout.deadline())
        fake.behaviour["shard-1"] = lambda: [["quick"]]
        return await fanout.one(BUCKET, ask, fanout.deadline())

    assert run(fake, question) == "quick"


def test_a_shard_that_is_only_busy_is_not_closed_to_others() -> None:
    released = threading.Event()
    fake = Fake(shard_1=lambda: [[released.wait(8.0)]])

    async def question(fanout: FanOut) -> Any:
        await fanout.one(BUCKET, lambda shard: None, fanout.deadline())
        lane = fanout._lanes["shard-1"]
        slow = [asyncio.create_task(lane.call(lambda read: read(probe()), 0.1)) for _ in range(2 * THREADS)]
        waited = [asyncio.create_task(lane.call(lambda read: read(probe()), 0.1)) for _ in range(3)]
        late = await asyncio.gather(*slow, *waited, return_exceptions=True)
        await asyncio.sleep(0.1)  # for the ping
        released.set()
        return late, await lane.call(lambda read: read(probe())[0][0], 1.0)

    late, answer = run(fake, question, SETTINGS.model_copy(update={"ongoing_requests": 64}))
    assert answer is True
    assert set(fake.pings) == {"shard-1"}
    assert {type(error) for error in late[:THREADS]} == {Unavailable}  # the shard owes them an answer
    assert {type(error) for error in late[THREADS:]} == {Overloaded}  # no thread has taken them


def test_an_answer_that_takes_too_long_to_put_together_is_too_costly() -> None:
    fake = Fake()

    def job(shard: Shard) -> Any:
        first = ask(shard)
        time.sleep(0.15)
        return first, ask(shard)

    async def question(fanout: FanOut) -> Any:
        await fanout.one(BUCKET, ask, fanout.deadline())
        lane = fanout._lanes["shard-1"]
        with pytest.raises(TooCostly):
            await lane.call(lambda read: job(Shard(read, 1)), 0.1)  # the caller stops waiting between statements
        with pytest.raises(TooCostly):
            await lane.call(lambda read: job(Shard(read, 1)), 0.16)  # the second statement has no time left
        return fake.pings

    assert run(fake, question) == []
