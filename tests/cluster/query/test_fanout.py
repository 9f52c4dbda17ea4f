from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cluster.config import QuerySettings
from cluster.databases import FALKORDB, NEO4J
from cluster.errors import Corrupt, Fenced, NotFound, Overloaded, TooCostly, Unavailable
from cluster.query import fanout, lane
from cluster.query.cypher import probe
from cluster.query.fanout import EVERY_SHARE, FanOut, Topology
from cluster.query.hot import Rows, Shard
from cluster.query.lane import SUSPECT_S, THREADS
from cluster.routing import ShardState
from cluster.shard_map import initial
from cluster.telemetry import metrics

SETTINGS = QuerySettings(deadline_s=3.0, breaker_failures=3, breaker_open_s=0.4, ongoing_requests=6)
NAMES = ("shard-0", "shard-1", "shard-2")
MAP = initial(NAMES, 6)
BUCKET = MAP.buckets_of("shard-1")[0]


class Fake:
    """A directory and the shards behind it: each answers as its function says."""

    def __init__(self, **behaviour: Callable[[], Rows]) -> None:
        self.behaviour = {name: lambda name=name: [[name]] for name in NAMES} | {
            name.replace("_", "-"): does for name, does in behaviour.items()
        }
        self.calls: list[str] = []
        self.pings: list[str] = []
        self.silent: set[str] = set()
        self.in_neo4j: set[str] = set()
        self.reloads = 0
        self.epoch = 1
        self.replicas: dict[str, ShardState] = {}
        self.map, self.next_map = MAP, MAP

    def topology(self) -> Topology:
        states = {name: ShardState(name, None, "active", self.epoch) for name in NAMES} | self.replicas
        return Topology(self.map, states)

    def reload(self) -> None:
        self.reloads += 1
        self.epoch += 1
        self.map = self.next_map

    def connect(self, shard: str) -> Any:
        fake = self

        class Reader:
            dialect = NEO4J if shard in fake.in_neo4j else FALKORDB

            def read_all(self, queries: Sequence[Any], timeout_s: float | None = None) -> list[Rows]:
                fake.calls += [shard] * len(queries)
                return [fake.behaviour[shard]() for _ in queries]

            def answers(self) -> bool:
                fake.pings.append(shard)
                return shard not in fake.silent

            def close(self) -> None: ...

        return Reader()


def ask(shard: Shard) -> Any:
    return shard.read(probe())[0][0]


def run(fake: Fake, question: Callable[[FanOut], Any], settings: QuerySettings = SETTINGS) -> Any:
    async def inside() -> Any:
        fanout = FanOut(fake, fake.connect, settings, seed=1)
        try:
            return await question(fanout)
        finally:
            fanout.close()

    return asyncio.run(inside())


def raising(error: Exception) -> Callable[[], Rows]:
    def fail() -> Rows:
        raise error

    return fail


def test_every_asks_a_shard_that_a_newer_map_has() -> None:
    refusals = iter([Fenced("another epoch", 0.0)])

    def refuse_once() -> Rows:
        for refusal in refusals:
            raise refusal
        return [["shard-0"]]

    fake = Fake(shard_0=refuse_once)
    fake.map = initial(NAMES[:2], 6)
    fake.next_map = dataclasses.replace(MAP, revision=2)
    found = run(fake, lambda fanout: fanout.every(ask, fanout.deadline()))
    assert (sorted(found.answers), found.missing) == (list(NAMES), {})


@pytest.mark.parametrize("second", ["hangs", "fails"])
def test_every_gives_what_it_has_when_time_is_over_and_names_who_was_not_asked(second: str) -> None:
    fake = Fake()
    fake.map = initial(NAMES[:2], 6)
    asked = [0, 0]

    def answer(number: int) -> Rows:
        asked[number] += 1
        if asked[number] > 1:
            if second == "fails":
                raise Unavailable("gone", 9.0)
            time.sleep(SETTINGS.deadline_s / 2)
        fake.map = dataclasses.replace(MAP, revision=fake.map.revision + 1)  # it changes whenever it is used
        return [[NAMES[number]]]

    fake.behaviour = {
        "shard-0": lambda: answer(0), "shard-1": lambda: answer(1), "shard-2": raising(Unavailable("gone", 9.0))
    }  # fmt: skip
    found = run(fake, lambda fanout: fanout.every(ask, fanout.deadline()))
    assert sorted(found.answers) == ["shard-0", "shard-1"]
    assert list(found.missing) == ["shard-2"]
    assert asked[0] > 1


def test_one_asks_the_owner_alone() -> None:
    fake = Fake()
    assert run(fake, lambda f: f.one(BUCKET, ask, f.deadline())) == "shard-1"
    assert fake.calls == ["shard-1"]


def test_every_asks_all_with_their_epoch_and_buckets() -> None:
    merged = run(Fake(), lambda f: f.every(lambda s: (ask(s), s.epoch, s.buckets), f.deadline()))
    assert merged.answers == tuple((name, 1, MAP.buckets_of(name)) for name in NAMES)
    assert merged.complete


def test_each_shard_is_asked_in_its_own_dialect() -> None:
    fake = Fake()
    fake.in_neo4j.add("shard-1")
    merged = run(fake, lambda f: f.every(lambda s: s.dialect.name, f.deadline()))
    assert merged.answers == ("falkordb", "neo4j", "falkordb")


def test_retryable_failures_are_tried_again() -> None:
    failing = iter([Unavailable("broken", 0.01), Overloaded("full", 0.01)])

    def sometimes() -> Rows:
        error = next(failing, None)
        if error:
            raise error
        return [["late"]]

    assert run(Fake(shard_1=sometimes), lambda f: f.one(BUCKET, ask, f.deadline())) == "late"


@pytest.mark.parametrize("error", [NotFound("no"), Corrupt("bad"), TooCostly("slow")])
def test_final_answers_are_not_tried_again(error: Exception) -> None:
    fake = Fake(shard_1=raising(error))
    with pytest.raises(type(error)):
        run(fake, lambda f: f.one(BUCKET, ask, f.deadline()))
    assert fake.calls == ["shard-1"]


def test_a_refused_epoch_reloads_the_map_and_names_the_new_one() -> None:
    fake = Fake()

    def job(shard: Shard) -> int:
        if shard.epoch < 3:
            raise Fenced("old", 0.01)
        return shard.epoch

    assert run(fake, lambda f: f.one(BUCKET, job, f.deadline())) == 3
    assert fake.reloads == 2


def test_a_replica_that_is_fresh_answers_for_a_dead_owner() -> None:
    fake = Fake(shard_1=raising(Unavailable("dead", 0.01)))
    fake.replicas = {"copy": ShardState("copy", "shard-1", "active", 1, lag_s=0.1)}
    fake.behaviour["copy"] = lambda: [["copy"]]
    assert run(fake, lambda f: f.one(BUCKET, ask, f.deadline())) == "copy"


def test_a_dead_shard_is_named_and_the_others_answer() -> None:
    fake = Fake(shard_2=raising(Unavailable("dead", 0.01)))
    merged = run(fake, lambda f: f.every(ask, f.deadline()))
    assert merged.answers == ("shard-0", "shard-1")
    assert set(merged.missing) == {"shard-2"}


def test_no_shard_at_all_is_unavailable() -> None:
    dead = raising(Unavailable("dead", 0.01))
    with pytest.raises(Unavailable):
        run(Fake(shard_0=dead, shard_1=dead, shard_2=dead), lambda f: f.every(ask, f.deadline()))


def test_a_hanging_shard_delays_nobody_else_and_its_breaker_opens() -> None:
    released = threading.Event()

    def hang() -> Rows:
        released.wait(8.0)
        return [["too late"]]

    fake = Fake(shard_2=hang)
    fake.silent.add("shard-2")

    async def question(fanout: FanOut) -> tuple[float, Any, list[float]]:
        began = time.monotonic()
        hung = asyncio.create_task(fanout.every(ask, fanout.deadline()))
        await asyncio.sleep(0.05)
        times = []
        for _ in range(50):
            at = time.monotonic()
            assert await fanout.one(BUCKET, ask, fanout.deadline()) == "shard-1"
            times.append(time.monotonic() - at)
        merged = await hung
        took = time.monotonic() - began
        asked = fake.calls.count("shard-2")
        lane = fanout._lanes["shard-2"]
        with pytest.raises(Unavailable, match="shard-2"):  # it is open, or this hang opens it
            await lane.call(lambda read: read(probe()), 0.05)
        await asyncio.sleep(0.05)  # for the ping
        for _ in range(20):
            with pytest.raises(Unavailable, match="lately"):
                await lane.call(lambda read: read(probe()), 0.05)
        assert fake.calls.count("shard-2") <= asked + 1
        released.set()
        await asyncio.sleep(SETTINGS.breaker_open_s + 0.1)
        bucket = MAP.buckets_of("shard-2")[0]
        assert await fanout.one(bucket, ask, fanout.deadline()) == "too late"
        return took, merged, times

    took, merged, times = run(fake, question)
    assert took < SETTINGS.deadline_s + 0.5
    assert set(merged.missing) == {"shard-2"}
    assert sorted(times)[len(times) // 2] < 0.1


def test_every_waits_for_a_hanging_shard_no_longer_than_it_takes_to_see_that_it_hangs() -> None:
    released = threading.Event()
    fake = Fake(shard_2=lambda: [[released.wait(60.0)]])
    fake.silent.add("shard-2")
    patient = SETTINGS.model_copy(update={"deadline_s": 60.0, "breaker_open_s": 60.0})

    async def question(fanout: FanOut) -> tuple[float, list[Any]]:
        began = time.monotonic()
        found = [await fanout.every(ask, fanout.deadline()) for _ in range(3)]
        took = time.monotonic() - began
        released.set()
        return took, found

    took, found = run(fake, question, patient)
    assert took < patient.deadline_s * EVERY_SHARE
    assert fake.calls.count("shard-2") == 1
    for merged in found:
        assert merged.answers == ("shard-0", "shard-1")
        assert list(merged.missing) == ["shard-2"]


def test_a_slow_answer_of_a_shard_that_answers_is_waited_for() -> None:
    fake = Fake(shard_2=lambda: [[time.sleep(SUSPECT_S + 0.3) or "late"]])
    merged = run(fake, lambda f: f.every(ask, f.deadline()), SETTINGS.model_copy(update={"deadline_s": 60.0}))
    assert merged.complete
    assert fake.pings == ["shard-2"]


def test_the_crumb_of_time_that_is_left_does_not_hide_what_the_shard_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last attempt begins with next to nothing left: no thread takes it, and nobody else asks."""
    settings = SETTINGS.model_copy(update={"deadline_s": 0.4})
    monkeypatch.setattr(fanout, "MERGE_S", 0.0)

    def job(shard: Shard) -> None:
        raise Fenced("it is being rebuilt", 0.3)

    async def question(f: FanOut) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, monkeypatch.setattr, lane, "STORE_SHARE", 0.0)  # no thread is quick enough
        with pytest.raises(Fenced, match="being rebuilt"):
            await f.one(BUCKET, job, f.deadline())
        monkeypatch.setattr(lane, "STORE_SHARE", 0.9)
        loop.call_later(0.1, monkeypatch.setattr, lane, "STORE_SHARE", 0.0)
        with pytest.raises(Unavailable, match="no shard answered: it is being rebuilt"):
            await f.every(job, f.deadline())

    run(Fake(), question, settings)


def test_a_question_for_which_no_time_is_left_says_so_and_nothing_of_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "STORE_SHARE", 0.0)
    settings = SETTINGS.model_copy(update={"deadline_s": 0.2, "breaker_failures": 1})

    async def question(f: FanOut) -> Any:
        with pytest.raises(Unavailable, match="the deadline has passed"):
            await f.one(BUCKET, ask, f.deadline())
        monkeypatch.setattr(lane, "STORE_SHARE", 0.9)
        return await f.one(BUCKET, ask, f.deadline())

    fake = Fake()
    assert run(fake, question, settings) == "shard-1"
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


def test_a_question_too_costly_for_every_shard_is_that_and_not_a_shard_that_is_missing() -> None:
    slow = raising(TooCostly("slow"))
    with pytest.raises(TooCostly):
        run(Fake(shard_0=slow, shard_1=raising(Unavailable("dead", 0.01)), shard_2=slow),
            lambda f: f.every(ask, f.deadline()))  # fmt: skip
    merged = run(Fake(shard_1=slow), lambda f: f.every(ask, f.deadline()))
    assert (merged.answers, merged.missing) == (("shard-0", "shard-2"), {"shard-1": "slow"})


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


def test_refusals_of_every_shard_are_counted_from_zero_on() -> None:
    names = tuple(f"shard-{uuid.uuid4().hex}" for _ in range(2))  # the registry is one a process
    fake = Fake()
    fake.map = initial(names, 6)
    FanOut(fake, fake.connect, SETTINGS).close()
    said = metrics.exposition().decode()
    for name in names:
        for what in ("epoch_mismatch", "misroute_refused"):
            assert f'intelgraph_{what}_total{{shard="{name}"}} 0.0' in said
