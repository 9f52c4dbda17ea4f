"""How fast a shard answers while another is down, slow, or gets far more than usual.

    with Questions(system, "shard-1") as asked:
        with asked.marked("calm"): …
        asked.p95_s("calm")

Who asks is a process of its own, as the API is one: beside a producer's threads an answer would wait for Python's lock.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from types import TracebackType
from typing import TypedDict

from actors.stack import Stack
from cluster.config import QuerySettings, Settings
from cluster.errors import IntelGraphError, NotFound
from cluster.ids import bucket_of
from cluster.query.fanout import FanOut
from cluster.query.hot import read_entity
from cluster.query.ir import EntityQuery
from serve_apps.services import ControlDirectory
from tests.faults.harness import DEADLINE_S, Installation, wait_until

_ROOT = Path(__file__).parents[2]
_ASK_S = 0.01
_UNANSWERED_MOST = 8
Case = tuple[str, str]


class Task(TypedDict):
    """What the process is told.

    Attributes:
        timed, others: (tenant, case) of the shard whose answers are timed; of the other shards.
    """

    settings: str
    timed: Case
    others: list[Case]


class Questions:
    """Asks for an entity of each shard all the time, as the API does, and times the answers of one of them.

    Those of the other shards may hang: some are always under way.
    """

    def __init__(self, system: Installation, shard: str) -> None:
        cases = {one: _case_of(system, one) for one in system.shard_ids}
        others = [cases[one] for one in system.shard_ids if one != shard]
        self._task = Task(settings=system.settings.model_dump_json(), timed=cases[shard], others=others)
        self._thread = threading.Thread(target=self._collect, name="questions", daemon=True)
        self._took_s: dict[str, list[float]] = defaultdict(list)
        self._spans: dict[str, tuple[float, float]] = {}
        self._first = threading.Event()
        self.failed: list[str] = []

    def __enter__(self) -> Questions:
        script = "import sys; from tests.faults.questions import ask; ask(sys.stdin.readline())"
        self._process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        print(json.dumps(self._task), file=self._process.stdin, flush=True)
        self._thread.start()
        try:
            wait_until(self._first.is_set, DEADLINE_S, "who asks has begun")
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            ended = self._process.wait(DEADLINE_S)
        finally:
            self._process.kill()  # nothing, where it has ended
        self._thread.join(DEADLINE_S)
        self._process.stdout.close()
        assert kind is not None or ended == 0, f"who asks ended with {ended}"

    @contextmanager
    def marked(self, label: str) -> Iterator[None]:
        """Answers to what is asked inside count under this label."""
        began = time.monotonic()
        self._spans[label] = began, inf
        try:
            yield
        finally:
            self._spans[label] = began, time.monotonic()

    def answers(self, label: str) -> int:
        """How many there are."""
        return len(self._took_s[label])

    def p95_s(self, label: str) -> float:
        """The time within which 95 of 100 answers came."""
        return sorted(self._took_s[label])[int(self.answers(label) * 0.95)]

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            began, took_s, error = json.loads(line)
            self._first.set()
            if error:
                self.failed.append(error)
                continue
            for label, (since, until) in tuple(self._spans.items()):
                if since <= began < until:
                    self._took_s[label].append(took_s)


def _case_of(system: Installation, shard: str) -> Case:
    owners = system.stack.current_map().owners
    cases = ((f"tenant-{t}", f"case-{c}") for t in range(3) for c in range(4))
    return next(pair for pair in cases if owners[bucket_of(*pair)] == shard)


def ask(line: str) -> None:
    """Asks until standard input is closed, and prints a line for each timed answer: began, took, error."""
    asyncio.run(_Asking(json.loads(line)).run())


class _Asking:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._stack = Stack(Settings.model_validate_json(task["settings"]))

    async def run(self) -> None:
        fanout = FanOut(
            ControlDirectory(self._stack), lambda shard: self._stack.open_client(shard, 5.0), QuerySettings()
        )
        closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        others: set[asyncio.Task[None]] = set()
        try:
            while not closed.done():
                if len(others) < _UNANSWERED_MOST:
                    for case in self._task["others"]:
                        others.add(task := asyncio.create_task(_asked_of_another(fanout, case)))
                        task.add_done_callback(others.discard)
                await self._timed(fanout)
                await asyncio.sleep(_ASK_S)
        finally:
            for task in others:
                task.cancel()
            fanout.close()

    async def _timed(self, fanout: FanOut) -> None:
        began, error = time.monotonic(), ""
        try:
            await _one(fanout, self._task["timed"])
        except IntelGraphError as failed:
            error = f"{type(failed).__name__}: {failed}"
        print(json.dumps([began, time.monotonic() - began, error]), flush=True)


async def _asked_of_another(fanout: FanOut, case: Case) -> None:
    with suppress(IntelGraphError):
        await _one(fanout, case)


async def _one(fanout: FanOut, case: Case) -> None:
    query = EntityQuery(*case, "person", "1")
    with suppress(NotFound):  # that is an answer
        await fanout.one(bucket_of(*case), lambda found: read_entity(found, query), fanout.deadline())
