"""When a shard is saved next: after a long save later, so that saving is a small share of the time."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from actors import checkpoints
from actors.checkpoints import CheckpointRounds
from cluster.config import ShardSettings
from cluster.errors import Unavailable
from serve_apps.node import Node

LIMITS = ShardSettings(checkpoint_s=1.0, checkpoint_share=0.1, checkpoint_most_s=30.0)


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.05, 1.0), (0.5, 5.0), (9.0, 30.0)])
def test_a_long_save_is_followed_by_a_longer_pause(
    took_s: float, pause_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _rounds(monkeypatch, took_s, changed=True).turn(_RUNNING) == pytest.approx(pause_s)


def test_a_shard_that_did_not_change_or_was_not_saved_is_looked_at_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _rounds(monkeypatch, 9.0, changed=False).turn(_RUNNING) == 1.0
    assert _rounds(monkeypatch, 9.0, changed=None).turn(_RUNNING) == 1.0


def test_a_pause_is_never_shorter_than_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = LIMITS.model_copy(update={"checkpoint_s": 60.0})
    assert _rounds(monkeypatch, 9.0, changed=True, limits=slow).turn(_RUNNING) == 60.0


_RUNNING: Any = object()


def _rounds(
    monkeypatch: pytest.MonkeyPatch, took_s: float, changed: bool | None, limits: ShardSettings = LIMITS
) -> CheckpointRounds:
    now = [0.0]

    def save(running: object) -> bool:
        now[0] += took_s
        if changed is None:
            raise Unavailable("the disk is full")
        return changed

    stack: Any = SimpleNamespace(settings=SimpleNamespace(shards=limits), current_map=lambda: None)
    rounds = CheckpointRounds("shard-0", stack)
    monkeypatch.setattr(rounds, "_under", lambda _: SimpleNamespace(save=save))
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    return rounds


def test_a_node_waits_as_long_as_it_is_told_and_looks_soon_for_a_server_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, waited, there = iter([7.0, 9.0]), list[float](), iter([_RUNNING, _RUNNING, None])
    rounds = SimpleNamespace(turn=lambda _: next(told), close=lambda: None)
    monkeypatch.setattr(checkpoints, "CheckpointRounds", lambda *_: rounds)

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        server.running = next(there, None)
        return len(waited) > 3

    server = SimpleNamespace(running=None)
    node: Any = SimpleNamespace(
        settings=SimpleNamespace(shards=LIMITS), _opened=None, _servers={"shard-0": server},
        _stopping=SimpleNamespace(wait=wait),
    )  # fmt: skip
    Node._checkpoint(node, "shard-0")
    assert waited == [1.0, 7.0, 9.0, 1.0]
