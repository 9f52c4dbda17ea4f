"""Which writers the supervisor moves between Ray's nodes, and which it leaves alone or takes back."""

from __future__ import annotations

from typing import Any, cast

import pytest
import ray

from actors.stack import Stack
from actors.supervisor import Supervisor

NAMES = ["w-0", "w-1"]


class Still(Supervisor):
    """One whose actors are where the test says they are."""

    def __init__(self) -> None:
        self.now, self.ended = 0.0, list[str]()
        super().__init__(cast(Stack, None), clock=lambda: self.now)
        self._handles = dict.fromkeys(NAMES)
        self.are({"w-0": "head", "w-1": "head"})
        self.now = 45.0  # with 15 s more, the first may move

    def _end(self, name: str) -> None:
        self.ended.append(name)

    def are(self, homes: dict[str, str], ready: bool = True) -> None:
        found: dict[str, dict[str, Any]] = {name: {"ready": ready, "node": node} for name, node in homes.items()}
        self.statuses = {**self.statuses, **found}

    def after(self, seconds: float) -> list[str]:
        """Who is ended so much later, and where each is to be then."""
        self.now += seconds
        self.ended.clear()
        self._even_out(NAMES)
        return [f"{name} to {self._to[name]}" for name in self.ended]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    found = {"head": True, "worker": True}
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": node, "Alive": alive} for node, alive in found.items()])
    return found


def test_what_has_just_begun_stays_for_a_minute(nodes: dict[str, bool]) -> None:
    supervisor = Still()
    assert supervisor.after(14.0) == []
    assert supervisor.after(1.0) == ["w-1 to worker"]


def test_one_goes_to_a_host_that_joined_and_then_all_is_well(nodes: dict[str, bool]) -> None:
    nodes["worker"] = False
    supervisor = Still()
    assert supervisor.after(20.0) == []
    nodes["worker"] = True
    assert supervisor.after(20.0) == ["w-1 to worker"]
    supervisor.are({"w-1": "worker"})
    assert supervisor.after(20.0) == []
    assert supervisor._to == {}, "when it is started again, Ray chooses"


@pytest.mark.parametrize(
    "status", [{"state": "silent"}, {"node": "head", "ready": False}], ids=["silent", "catches up"]
)
def test_nothing_moves_before_all_are_ready(nodes: dict[str, bool], status: dict[str, Any]) -> None:
    supervisor = Still()
    ready = supervisor.statuses["w-1"]
    supervisor.statuses = {**supervisor.statuses, "w-1": status}
    assert supervisor.after(100.0) == []
    supervisor.statuses = {**supervisor.statuses, "w-1": ready}
    assert supervisor.after(0.0) == ["w-1 to worker"]


def test_one_that_does_not_get_ready_goes_back_and_the_host_is_left_alone_for_a_while(nodes: dict[str, bool]) -> None:
    supervisor = Still()
    assert supervisor.after(20.0) == ["w-1 to worker"]
    supervisor.are({"w-1": "worker"}, ready=False)
    assert supervisor.after(30.0) == []
    assert supervisor.after(40.0) == ["w-1 to head"]
    supervisor.are({"w-1": "head"})
    assert supervisor.after(20.0) == []
    assert supervisor.after(500.0) == []
    assert supervisor.after(100.0) == ["w-1 to worker"]


def test_moves_have_time_between_them(nodes: dict[str, bool]) -> None:
    supervisor = Still()
    assert supervisor.after(20.0) == ["w-1 to worker"]
    assert supervisor.after(5.0) == []
    assert supervisor.after(15.0) == ["w-1 to worker"], "it has not come to be there"
