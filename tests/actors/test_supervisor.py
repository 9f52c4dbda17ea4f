"""Nothing that matters lives in an actor: each is killed under load, comes back by itself, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from actors.ingest_actor import Loaded, LoadRequest, load_file, wanted_workers
from actors.supervisor import NAMESPACE, Supervisor, wanted
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer, events
from tests.faults.supervised import START_S, Supervised

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.usefixtures("ray_node")]

GOES_ON_S = 10.0
"""A worker that dies goes on within this time; on a machine so busy that a first start takes longer, within that."""
ACTORS = ("lake-appender", "shard-writer:shard-0", "shard-writer:shard-1", "ingest-worker:0")


@pytest.fixture
def system(server_root: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    with Installation(server_root / f"sv{len(request.node.name)}") as made:
        made.start_servers()
        yield made


@pytest.fixture
def supervised(system: Installation) -> Iterator[Supervised]:
    with Supervised(system.stack) as made:
        yield made


def goes_on_s(supervised: Supervised) -> float:
    """How long a worker that died may take."""
    return max(GOES_ON_S, supervised.started_in_s)


def test_what_is_wanted_has_a_name_that_says_what_it_does(server_root: Path) -> None:
    with Installation(server_root / "wn") as system:
        names = [a.name for a in wanted(system.settings, system.shard_ids) + wanted_workers(system.settings)]
        assert sorted(names) == sorted(ACTORS)


def test_actors_that_are_killed_come_back_and_lose_nothing(system: Installation, supervised: Supervised) -> None:
    """Writers and the lake appender, one after the other, while events come in."""
    producer = Producer(system, events(19, 3_000)).start()
    for turn, name in enumerate(ACTORS[:3]):
        wait_until(lambda turn=turn: producer.sent >= 600 * (turn + 1))  # type: ignore[misc]
        killed = supervised.kill(name)
        wait_until(
            lambda name=name, killed=killed: supervised.pids().get(name, killed) != killed,  # type: ignore[misc]
            goes_on_s(supervised), f"{name} is back",
        )  # fmt: skip
        if name.startswith("shard-writer"):
            system.settle_partly(name.partition(":")[2])
    history = producer.join()
    system.settle()
    check(system, history)
    with system.stack.open_lake() as lake:
        ends = system.ends()
        wait_until(lambda: all(lake.positions().of(p).number == n for p, n in ends.items()), message="the lake has all")


def test_a_writer_is_started_again_that_was_told_to_end_by_a_node_that_died(
    system: Installation, supervised: Supervised
) -> None:
    """The node dies between telling it, before a move, and ending it."""
    before = supervised.pids()["shard-writer:shard-0"]
    ray.get(ray.get_actor("shard-writer:shard-0", NAMESPACE).stop.remote())
    history = Producer(system, events(23, 400)).start().join()
    wait_until(
        lambda: supervised.pids().get("shard-writer:shard-0", before) != before, goes_on_s(supervised), "it is back"
    )
    system.settle()
    check(system, history)


def test_a_load_goes_on_when_its_worker_is_killed(system: Installation, supervised: Supervised, tmp_path: Path) -> None:
    """The caller follows the load over the worker's death; each line is one record."""
    lines = 40_000
    path = tmp_path / "facts.jsonl"
    with path.open("w") as file:
        for number in range(lines):
            fact = {"case": f"c{number % 5}", "kind": "entity", "op": "upsert", "type": "person", "id": str(number)}
            file.write(json.dumps({**fact, "props": {"n": number}}) + "\n")
    done: list[Loaded] = []
    request = LoadRequest(str(path), "acme", "feed")
    loading = threading.Thread(target=lambda: done.append(load_file(request)), daemon=True)
    loading.start()
    wait_until(lambda: sum(system.ends().values()) > 0, message="the load has begun")
    killed = supervised.kill("ingest-worker:0")
    assert not done, "it ended before its worker was killed"
    wait_until(
        lambda: supervised.pids().get("ingest-worker:0", killed) != killed, goes_on_s(supervised), "the worker is back"
    )
    loading.join(START_S)
    assert len(done) == 1
    system.settle()
    check(system)
    distinct = {record for _, _, rows in system.log_records() for record in rows}
    assert len(distinct) == lines


def test_one_that_is_starting_has_more_time_than_one_that_fell_silent(
    server_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a start takes longer than silence may last: it is not begun anew for ever."""
    ended: list[object] = []
    monkeypatch.setattr(ray, "kill", lambda handle, no_restart: ended.append(handle))
    with Installation(server_root / "st") as system:
        supervisor = Supervisor(system.stack)

        def looks_until_replaced(answered: bool) -> int:
            supervisor._handles, supervisor._answered = {"a": "handle"}, {"a"} if answered else set()
            looks = 0
            while "a" in supervisor._handles:
                supervisor._replace_if_silent("a")
                looks += 1
            return looks

        assert (looks_until_replaced(True), looks_until_replaced(False), looks_until_replaced(False)) == (3, 18, 18)
        assert len(ended) == 3


def test_an_actor_that_does_not_answer_is_replaced(
    system: Installation, supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, not dead: after three looks without an answer its place is taken."""
    monkeypatch.setattr("actors.supervisor._ANSWER_S", 2.0)  # each of the three looks takes so long
    name = "shard-writer:shard-1"
    stopped = supervised.pids()[name]
    os.kill(stopped, signal.SIGSTOP)
    wait_until(lambda: supervised.pids().get(name, stopped) != stopped, START_S, "another has its place")
    assert ray.get(ray.get_actor(name, namespace=NAMESPACE).status.remote())["pid"] != stopped
    system.settle("shard-1")
