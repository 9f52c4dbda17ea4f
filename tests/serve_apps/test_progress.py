"""How far shards have applied the log: asked like every question, so that one that hangs holds no other up."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from cluster.errors import Unavailable
from cluster.query.fanout import FanOut
from cluster.query.hot import Rows
from serve_apps.services import ShardProgress
from tests.cluster.query.test_fanout import MAP, NAMES, SETTINGS, Fake

OF = {shard: next(p for p in range(6) if shard in MAP.shards_of_partition(p)) for shard in NAMES}


def test_whoever_waits_for_a_shard_that_hangs_is_told_so_and_others_do_not_wait() -> None:
    released = threading.Event()

    def hang() -> Rows:
        released.wait(8.0)
        return [[str(OF["shard-2"]), 9]]

    fake = Fake(shard_1=lambda: [[str(OF["shard-1"]), 5]], shard_2=hang)
    fake.silent.add("shard-2")

    async def questions() -> None:
        fanout = FanOut(fake, fake.connect, SETTINGS, seed=1)
        progress = ShardProgress(lambda: fake.map, fanout)
        began = time.monotonic()
        hung = asyncio.create_task(progress.reached({OF["shard-2"]: 1}, fanout.deadline()))
        await asyncio.sleep(0.05)
        for entry, reached in ((5, True), (6, False)):
            assert await progress.reached({OF["shard-1"]: entry}, fanout.deadline()) is reached
        assert time.monotonic() - began < 0.5
        with pytest.raises(Unavailable, match="shard-2"):
            await hung
        await asyncio.sleep(0.1)  # for the ping
        began = time.monotonic()
        with pytest.raises(Unavailable, match="lately"):
            await progress.reached({OF["shard-1"]: 5, OF["shard-2"]: 1}, fanout.deadline())
        assert time.monotonic() - began < 0.2, "the breaker is open"
        released.set()
        await asyncio.sleep(SETTINGS.breaker_open_s + 0.1)
        assert await progress.reached({OF["shard-1"]: 5, OF["shard-2"]: 9}, fanout.deadline())
        fanout.close()

    asyncio.run(questions())
