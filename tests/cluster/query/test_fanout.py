"""Questions to shards by way of the map: attempts, replicas, all shards at once."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
import uuid
from typing import Any

import pytest

from cluster.errors import Corrupt, Fenced, NotFound, Overloaded, TooCostly, Unavailable
from cluster.query import fanout, lane
from cluster.query.cypher import probe
from cluster.query.fanout import EVERY_SHARE, FanOut
from cluster.query.hot import Rows, Shard
from cluster.routing import ShardState
from cluster.shard_map import initial
from cluster.telemetry import metrics
from tests.cluster.query.fake_shards import BUCKET, MAP, NAMES, SETTINGS, Fake, ask, raising, run


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


def test_the_crumb_of_time_that_is_left_does_not_hide_what_the_shard_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last attempt begins with next to nothing left: no thread takes it, and nobody else asks."""
    settings = SETTINGS.model_copy(update={"deadline_s": 2.0})
    monkeypatch.setattr(fanout, "MERGE_S", 0.0)

    def job(shard: Shard) -> None:
        monkeypatch.setattr(lane, "STORE_SHARE", 0.0)  # from here on no thread is quick enough
        raise Fenced("it is being rebuilt", 0.3)

    async def question(f: FanOut) -> None:
        with pytest.raises(Fenced, match="being rebuilt"):
            await f.one(BUCKET, job, f.deadline())
        monkeypatch.setattr(lane, "STORE_SHARE", 0.9)
        with pytest.raises(Unavailable, match="no shard answered: it is being rebuilt"):
            await f.every(job, f.deadline())

    run(Fake(), question, settings)


def test_a_question_too_costly_for_every_shard_is_that_and_not_a_shard_that_is_missing() -> None:
    slow = raising(TooCostly("slow"))
    with pytest.raises(TooCostly):
        run(Fake(shard_0=slow, shard_1=raising(Unavailable("dead", 0.01)), shard_2=slow),
            lambda f: f.every(ask, f.deadline()))  # fmt: skip
    merged = run(Fake(shard_1=slow), lambda f: f.every(ask, f.deadline()))
    assert (merged.answers, merged.missing) == (("shard-0", "shard-2"), {"shard-1": "slow"})


def test_refusals_of_every_shard_are_counted_from_zero_on() -> None:
    names = tuple(f"shard-{uuid.uuid4().hex}" for _ in range(2))  # the registry is one a process
    fake = Fake()
    fake.map = initial(names, 6)
    FanOut(fake, fake.connect, SETTINGS).close()
    said = metrics.exposition().decode()
    for name in names:
        for what in ("epoch_mismatch", "misroute_refused"):
            assert f'intelgraph_{what}_total{{shard="{name}"}} 0.0' in said


def test_what_a_replica_said_goes_before_an_attempt_at_the_owner_that_nobody_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals = iter([lane.TooLate("the deadline has passed"), Unavailable("the disk is gone")])
    monkeypatch.setattr(fanout, "route_read", lambda *_: ["owner", "replica"])

    async def call(*_: Any) -> None:
        raise next(refusals)

    async def question(f: FanOut) -> None:
        monkeypatch.setattr(f, "_call", call)
        with pytest.raises(Unavailable, match="the disk is gone"):
            await f._first(BUCKET, ask, f.deadline(), 1.0)

    run(Fake(), question)
