"""The ingest worker's actor, as a plain object: it waits for the log, says so, and leaves off where nobody waits."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors import ingest_actor
from actors.ingest_actor import IngestWorkerActor, LoadRequest
from actors.stack import Stack
from actors.supervisor import plain
from cluster.config import IngestLimits
from cluster.errors import Rejected
from tests.faults.harness import Installation, wait_until

pytestmark = [pytest.mark.services]

EVENTS = [{"case": "c", "kind": "entity", "op": "upsert", "type": "person", "id": f"p{n}"} for n in range(40)]


@pytest.fixture
def system(server_root: Path) -> Iterator[Installation]:
    limits = IngestLimits(batch_records=8, retry_first_s=0.01, retry_most_s=0.05, retry_deadline_s=60)
    with Installation(server_root / f"ia{uuid.uuid4().hex[:6]}", ingest=limits) as made:
        made.start_servers()
        yield made


@pytest.fixture
def actor(system: Installation, monkeypatch: pytest.MonkeyPatch) -> IngestWorkerActor:
    monkeypatch.setattr(ingest_actor, "gc", type("Gc", (), {"freeze": staticmethod(int), "set_threshold": max}))
    monkeypatch.setattr("actors.ingest_actor.step_aside", lambda: None)
    monkeypatch.setattr(Stack, "log_as", lambda self, actor: None)
    return IngestWorkerActor(plain(system.settings), 0)


def waits(actor: IngestWorkerActor) -> bool:
    progress = actor.progress()
    return progress is not None and "event log" in progress.waiting


def test_a_load_waits_for_the_log_and_one_that_nobody_waits_for_ends(
    system: Installation, actor: IngestWorkerActor, tmp_path: Path
) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    request = LoadRequest(str(path), "acme", "people")
    system.kill("log")
    with ThreadPoolExecutor(1) as pool:
        left = pool.submit(actor.load, request, "first")
        wait_until(lambda: waits(actor), 10, "it says what it waits for")
        actor.abandon("another's")
        wait_until(lambda: waits(actor), 10, "another's call is another's")
        assert not left.done()
        actor.abandon("first")
        with pytest.raises(Rejected, match="the same again"):
            left.result(10)
        again = pool.submit(actor.load, request, "second")
        wait_until(lambda: waits(actor), 10, "the next one waits too")
        system.restart("log")
        assert again.result(30).acked == len(EVENTS)
    assert actor.progress() is None
