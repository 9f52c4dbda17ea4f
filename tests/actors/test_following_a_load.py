"""Who follows a load: what he does where an answer is lost, where the worker dies, and where none comes back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from actors import ingest_actor
from actors.ingest_actor import Loaded, LoadRequest, load_file
from actors.loads import LoadProgress
from cluster.errors import Unavailable

LOADED = Loaded("load", "feed", 1, 10, 0, {0: 1}, {})
REQUEST = LoadRequest("/a.jsonl", "acme", "feed")


class Worker:
    """A worker, Ray between, and the clock: each look finds the next of `looks` and takes `look_s`.

    Args:
        looks: `busy`, `lost` (busy, and its progress does not arrive), `gone`, `done`; the last one for ever.
    """

    exceptions = ray.exceptions

    def __init__(self, *looks: str, look_s: float = 0.2) -> None:
        self._looks, self._look_s = list(looks), look_s
        self._found = ""
        self.now_s = 0.0
        self.loads = 0
        self.load = SimpleNamespace(remote=self._called)
        self.progress = SimpleNamespace(remote=lambda: "progress")

    def _called(self, request: LoadRequest, call: str) -> str:
        self.loads += 1
        return "answer"

    def monotonic(self) -> float:
        """The clock."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """It goes on."""
        self.now_s += seconds

    def get_actor(self, name: str, namespace: str) -> Worker:
        """As Ray's."""
        return self

    def wait(self, calls: list[str], timeout: float) -> tuple[list[str], list[str]]:
        """A look."""
        self.now_s += self._look_s
        self._found = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        return (calls, []) if self._found in ("gone", "done") else ([], calls)

    def get(self, call: str) -> Any:
        """What it found."""
        if self._found in ("gone", "lost"):
            raise ray.exceptions.ActorUnavailableError(self._found, None)
        return LOADED if call == "answer" else LoadProgress(1, 0, 1, 2, 0.1)


@pytest.fixture
def told() -> list[LoadProgress]:
    return []


def followed(monkeypatch: pytest.MonkeyPatch, worker: Worker, told: list[LoadProgress]) -> Loaded:
    monkeypatch.setattr(ingest_actor, "ray", worker)
    monkeypatch.setattr(ingest_actor, "time", worker)
    return load_file(REQUEST, told.append)


def test_progress_that_is_lost_begins_no_second_load(monkeypatch: pytest.MonkeyPatch, told: list[LoadProgress]) -> None:
    """The load goes on in the worker: another one would wait for it, in a thread that the worker has no more of."""
    worker = Worker("busy", "lost", "lost", "busy", "done")
    assert followed(monkeypatch, worker, told) == LOADED
    assert (worker.loads, len(told)) == (1, 2)


def test_a_worker_that_dies_late_is_waited_for_all_the_same(
    monkeypatch: pytest.MonkeyPatch, told: list[LoadProgress]
) -> None:
    worker = Worker(*["busy"] * 10, "gone", "busy", "done", look_s=60.0)
    assert followed(monkeypatch, worker, told) == LOADED
    assert worker.loads == 2


def test_one_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch, told: list[LoadProgress]) -> None:
    worker = Worker("busy", "gone")
    with pytest.raises(Unavailable, match="does not come back"):
        followed(monkeypatch, worker, told)
    assert 120.0 < worker.now_s < 180.0


def test_a_file_that_ends_its_worker_each_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch, told: list[LoadProgress]
) -> None:
    """It is up again each time, and gets no further."""
    worker = Worker(*["busy", "gone"] * 2_000, "done")
    with pytest.raises(Unavailable, match="does not come back"):
        followed(monkeypatch, worker, told)
    assert 120.0 < worker.now_s < 180.0
