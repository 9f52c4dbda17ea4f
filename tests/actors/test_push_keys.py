"""One Idempotency-Key, several pushes at once: threads, processes and the dead; one answer, the versions given once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from actors.push import Push, PushAnswer
from cluster.config import Settings
from cluster.embedded import Running
from cluster.errors import Conflict, KeyReused, Overloaded, Unavailable
from cluster.model import Record
from cluster.stores.control import ControlStore, open_control
from cluster.stores.log import Append
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_log import RedisEventLog, open_redis_log
from cluster.versions import decode

pytestmark = pytest.mark.services

Logged = Callable[[], list[Record]]
SPAWN = multiprocessing.get_context("spawn")
BODY = json.dumps([
    {"case": "c1", "kind": "entity", "op": "upsert", "type": "person", "id": "ada", "props": {"n": 1}},
    {"case": "c1", "kind": "entity", "op": "upsert", "type": "person", "id": ""},
    {"case": "c2", "kind": "entity", "op": "upsert", "type": "person", "id": "bob"},
]).encode()  # fmt: skip
OTHER = BODY.replace(b"ada", b"eve")
VERSIONS = {("ada", (1, (1,))), ("bob", (1, (3,)))}


class Gate:
    """A log whose appends wait until they are let through."""

    def __init__(self, log: RedisEventLog) -> None:
        self._log, self.identity = log, log.identity
        self.arrived, self.open, self.appends = threading.Event(), threading.Event(), 0

    def append(self, entries: Sequence[Append]) -> list[int]:
        self.appends += 1
        self.arrived.set()
        assert self.open.wait(10.0)
        return self._log.append(entries)


def settings_with(settings: Settings, **ingest: float) -> Settings:
    return settings.model_copy(update={"ingest": settings.ingest.model_copy(update=ingest)})


def send(push: Push, body: bytes = BODY, key: str = "k1") -> PushAnswer:
    return push.push("acme", ["crm"], body, "application/json", key, "crm")


def said(answer: PushAnswer) -> tuple[Any, ...]:
    return answer.accepted, dict(answer.positions), tuple(answer.rejected)


def versions(records: Sequence[Record]) -> set[tuple[str, Any]]:
    return {(record.id, decode(record.version)) for record in records}


@pytest.fixture
def registered(control: ControlStore) -> ControlStore:
    control.sources.register("acme", "crm", 1.0)
    return control


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def gate(event_log: RedisEventLog) -> Iterator[Gate]:
    made = Gate(event_log)
    yield made
    made.open.set()


def test_a_second_push_waits_for_the_first_and_answers_as_it(
    registered: ControlStore, gate: Gate, ingest_settings: Settings, pool: ThreadPoolExecutor, logged: Logged
) -> None:
    first, second = (Push(registered, gate, ingest_settings) for _ in range(2))  # type: ignore[arg-type]
    begun: Future[PushAnswer] = pool.submit(send, first)
    assert gate.arrived.wait(10.0)
    waiting = pool.submit(send, second)
    with pytest.raises(KeyReused):
        send(second, OTHER)
    time.sleep(0.2)
    assert not waiting.done()
    gate.open.set()
    assert said(begun.result()) == said(waiting.result())
    assert (begun.result().replayed, waiting.result().replayed) == (False, True)
    assert gate.appends == 1
    assert versions(logged()) == VERSIONS
    assert len(logged()) == 2


def test_the_wait_is_bounded_and_says_when_to_come_again(
    registered: ControlStore, gate: Gate, ingest_settings: Settings, pool: ThreadPoolExecutor, logged: Logged
) -> None:
    push = Push(registered, gate, settings_with(ingest_settings, push_wait_s=0.2))  # type: ignore[arg-type]
    begun = pool.submit(send, push)
    assert gate.arrived.wait(10.0)
    with pytest.raises(Conflict) as raised:
        send(push)
    assert 0 < raised.value.retry_after_s <= ingest_settings.ingest.push_claim_s
    gate.open.set()
    first = begun.result()
    assert said(send(push)) == said(first)
    assert gate.appends == 1
    assert len(logged()) == 2


def test_many_at_the_same_moment_are_one(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, pool: ThreadPoolExecutor,
    logged: Logged,
) -> None:  # fmt: skip
    pushes = [Push(registered, event_log, settings_with(ingest_settings, push_wait_s=20.0)) for _ in range(2)]
    start = threading.Barrier(8)

    def together(number: int) -> list[PushAnswer]:
        found = []
        for key in range(5):
            start.wait(30.0)
            found.append(send(pushes[number % 2], key=f"key {key}"))
        return found

    answers = [one.result() for one in [pool.submit(together, number) for number in range(8)]]
    for of_one_key in zip(*answers, strict=True):
        assert {json.dumps(said(answer), default=str) for answer in of_one_key} == {
            json.dumps(said(of_one_key[0]), default=str)
        }
        assert [answer.replayed for answer in of_one_key].count(False) == 1
    assert len(logged()) == 5 * 2


def push_in_process(
    url: str, socket: str, password: str, name: str, settings: dict[str, Any], out: str, barrier: Any, keys: int
) -> None:
    """Pushes under the same keys as others do at the same moment."""
    control = open_control(url)
    configured = Settings.model_validate(settings)
    log = open_redis_log(RedisAddress(socket=socket, password=SecretStr(password)), configured.log, name)
    push, found = Push(control, log, configured), []
    for key in range(keys):
        barrier.wait(60.0)
        found.append(said(send(push, key=f"key {key}")))
    Path(out).write_text(json.dumps([[a, p, len(r)] for a, p, r in found]))


def test_two_processes_at_the_same_moment_give_one_answer(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, log_server: Running, unique: str,
    tmp_path: Path, logged: Logged,
) -> None:  # fmt: skip
    plain = settings_with(ingest_settings, push_wait_s=20.0).model_dump(mode="json")
    barrier = SPAWN.Barrier(2)
    where = (f"sqlite:///{tmp_path / 'control.db'}", str(log_server.socket), log_server.password.get_secret_value())
    workers = [
        SPAWN.Process(target=push_in_process, args=(*where, unique, plain, str(tmp_path / f"{n}.json"), barrier, 10))
        for n in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in range(2))
    assert first == second
    assert [answer[0] for answer in first] == [2] * 10
    assert len(logged()) == 10 * 2


def push_and_die(
    url: str, socket: str, password: str, name: str, settings: dict[str, Any], step: str, now: float
) -> None:
    """Killed when it reaches `step`: nothing of it is tidied up."""

    def die(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    configured = Settings.model_validate(settings)
    log = open_redis_log(RedisAddress(socket=socket, password=SecretStr(password)), configured.log, name)
    send(Push(open_control(url), log, configured, clock=lambda: now, failpoint=die))


@pytest.mark.parametrize(("step", "appended"), [("claimed", 0), ("placed", 0), ("appended", 2)])
def test_a_key_of_the_dead_is_taken_over_at_the_same_versions(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, log_server: Running, unique: str,
    tmp_path: Path, logged: Logged, step: str, appended: int,
) -> None:  # fmt: skip
    url, password = f"sqlite:///{tmp_path / 'control.db'}", log_server.password.get_secret_value()
    plain = ingest_settings.model_dump(mode="json")
    worker = SPAWN.Process(
        target=push_and_die, args=(url, str(log_server.socket), password, unique, plain, step, 1_000.0)
    )
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    assert len(logged()) == appended

    now = [1_001.0]
    settings = settings_with(ingest_settings, push_wait_s=0.1)
    push = Push(registered, event_log, settings, clock=lambda: now[0])
    with pytest.raises(Conflict) as raised:
        send(push)
    with pytest.raises(KeyReused):
        send(push, OTHER)
    push.push("acme", ["crm"], OTHER, "application/json", "k2", "crm")  # newer than what the dead one was given
    now[0] += raised.value.retry_after_s + 0.001
    answer = send(push)
    assert not answer.replayed
    assert said(send(push)) == said(answer)
    given = {found for found in versions(logged()) if found[0] != "eve"}
    newer = {found for found in given if found[1] > (1, (3,))} if step != "claimed" else set()
    expected = {("ada", (1, (4,))), ("bob", (1, (6,))), ("bob", (1, (3,)))} if step == "claimed" else VERSIONS
    assert given - newer == expected
    assert len(logged()) == appended + 4


def test_one_that_was_thought_dead_gets_the_answer_that_is_kept(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, pool: ThreadPoolExecutor,
    logged: Logged,
) -> None:  # fmt: skip
    reached, go_on, now = threading.Event(), threading.Event(), [1_000.0]

    def stop(step: str) -> None:
        if step == "appended":
            reached.set()
            assert go_on.wait(10.0)

    late = pool.submit(send, Push(registered, event_log, ingest_settings, clock=lambda: now[0], failpoint=stop))
    assert reached.wait(10.0)
    now[0] += ingest_settings.ingest.push_claim_s
    answer = send(Push(registered, event_log, ingest_settings, clock=lambda: now[0]))
    go_on.set()
    assert said(late.result()) == said(answer)
    assert (answer.replayed, late.result().replayed) == (False, True)
    assert versions(logged()) == VERSIONS
    assert len(logged()) == 4


def test_a_clock_that_was_an_hour_fast_blocks_no_key(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings
) -> None:
    registered.pushes.claim("acme", "k1", "h", "dead", 15.0, 1_000.0 + 3_600.0, 100)
    assert registered.pushes.claim("acme", "k1", "h", "other", 15.0, 1_000.0, 100).wait_s == 0
    assert registered.pushes.claim("acme", "k1", "h", "third", 15.0, 1_001.0, 100).wait_s == 14.0


def test_a_push_that_failed_gives_its_key_back_at_once(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = Push(registered, event_log, settings_with(ingest_settings, push_wait_s=0.0))

    def lost(*_: Any) -> Any:
        monkeypatch.undo()
        raise Unavailable("the disk is full")

    monkeypatch.setattr(type(registered.pushes), "keep", lost)
    with pytest.raises(Unavailable):
        send(push)
    assert not send(push).replayed
    assert send(push).replayed


def test_over_a_tenants_bound_a_new_key_is_refused_and_earlier_ones_keep_their_versions(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, logged: Logged
) -> None:
    bounded = settings_with(ingest_settings, idempotency_positions=1, idempotency_answer_bytes=64)
    pushes = Push(registered, event_log, bounded)

    def send(key: str) -> PushAnswer:
        return pushes.push("acme", ["crm"], BODY, "application/json", key, "crm")

    send("k1")
    for _ in range(2):
        with pytest.raises(Overloaded, match="idempotency_positions"):
            send("k2")
    assert send("k1").accepted == 2
    assert {(record.id, decode(record.version)) for record in logged()} == VERSIONS
