"""What a stream worker says of itself while it is given partitions, drained and ended; its topics are never there."""

from __future__ import annotations

import gc
from math import inf
from pathlib import Path

import pytest

from actors.stack import Stack
from actors.stream_worker_actor import StreamWorkerActor
from actors.supervisor import plain
from cluster.config import Settings
from tests.faults.harness import wait_until


def test_one_that_is_drained_holds_nothing_and_one_that_has_ended_reads_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("freeze", "set_threshold"):
        monkeypatch.setattr(gc, name, lambda *_: None)
    monkeypatch.setattr("actors.stream_worker_actor.step_aside", lambda: None)
    monkeypatch.setattr(Stack, "log_as", lambda *_: None)
    worker = StreamWorkerActor(plain(Settings(state_dir=tmp_path)), "stream-worker:0")
    assert worker.status()["state"] == "idle"
    assert worker.drain()
    for _ in range(2):
        wait_until(lambda: bool(worker.assign({"feed": [0]}) or worker.status()["streams"]))
        for cap in (5.0, inf):
            worker.assign({"feed": [0]}, {"feed": cap} if cap < inf else {})
            assert worker._readers["feed"][0]._cap == cap
        assert worker._readers["feed"][0]._ahead is worker._ahead, "all of a process look at the shards together"
        assert not worker.drain(), "its reader has not ended yet"
        wait_until(worker.drain, 10.0, "it holds nothing any more")
        assert worker.status()["state"] == "idle"
    worker.assign({"feed": [0]})
    worker.stop()
    worker.assign({"feed": [0]})
    assert worker.drain()
    assert worker.status()["streams"] == []
