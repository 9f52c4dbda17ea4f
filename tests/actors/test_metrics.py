"""The counters read what happened: each outcome is brought about on real shards and a real log, and compared."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.dead_letters import Replay
from actors.loads import FileLoads, LoadFile, LoadResult
from actors.push import Push
from actors.shard_writer_actor import writer_lease
from actors.undo import Undo
from cluster.config import IngestLimits, QuerySettings, RecordLimits
from cluster.errors import Fenced, NotFound
from cluster.ids import bucket_of
from cluster.model import Kind, Record
from cluster.query.fanout import FanOut, Topology
from cluster.query.hot import read_entity
from cluster.query.ir import EntityQuery
from cluster.routing import ShardState
from cluster.shard_map import ShardMap
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.graph import Fence
from cluster.telemetry import exposition, merge_expositions
from overlays.write_back import Bounds, RunStamp, floor_entries, value_entries, value_record
from serve_apps.stored_counters import StoredCounters
from tests.faults.harness import Installation, wait_until

pytestmark = [pytest.mark.services]

TENANT, SOURCE = "acme", "crm"
CASES = [f"case-{n}" for n in range(6)]
ATTEMPTS = 3
LIMITS = IngestLimits(batch_records=16, dead_letter_attempts=ATTEMPTS, retry_first_s=0.01, retry_deadline_s=10)
Event = dict[str, Any]


@pytest.fixture
def system(server_root: Path) -> Iterator[Installation]:
    """Two shards with their writers, whose cases are in several log partitions."""
    with Installation(server_root / f"mt{uuid.uuid4().hex[:6]}", ingest=LIMITS) as made:
        made.start()
        made.settle()
        made.stack.control.sources.register(TENANT, SOURCE, time.time())
        yield made


class Counted:
    """How far the counters have moved since, as `/metrics` shows them: `counted("applied", "shard")["shard-0"]`."""

    def __init__(self, system: Installation) -> None:
        self._stored = StoredCounters(system.stack)
        self._before = self._samples()

    def __call__(self, name: str, label: str) -> Counter[str]:
        """By a label's value; what has not moved is left out."""
        moved: Counter[str] = Counter()
        for (sample, labels), value in self._samples().items():
            if sample == f"intelgraph_{name}_total":
                moved[dict(labels)[label]] += int(value - self._before.get((sample, labels), 0))
        return +moved

    def outcomes(self, shard: str) -> tuple[int, int, int]:
        """A shard's applied, duplicate, stale."""
        applied, duplicate, stale = (self(name, "shard")[shard] for name in ("applied", "duplicate", "stale"))
        return applied, duplicate, stale

    def _samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        merged = merge_expositions({"this": exposition(), **self._stored.expositions()})
        families = text_string_to_metric_families(merged.decode())
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def people(position: int, count: int, first: int = 0) -> list[Event]:
    """People in several cases, all at one position of their source."""
    return [
        {"case": CASES[n % len(CASES)], "kind": "entity", "op": "upsert", "type": "person", "id": f"p{n}",
         "epoch": 1, "position": position, "props": {"at": position}}
        for n in range(first, first + count)
    ]  # fmt: skip


def owned(system: Installation, events: Sequence[Event]) -> Counter[str]:
    """How many events each shard gets."""
    owners = system.stack.current_map().owners
    return Counter(owners[bucket_of(TENANT, event["case"])] for event in events)


def in_log(system: Installation) -> Counter[str]:
    """Records in the log, by partition."""
    found: Counter[str] = Counter()
    for partition, _, rows in system.log_records():
        found[str(partition)] += len(rows)
    return found


@pytest.fixture
def push(system: Installation) -> Iterator[Callable[[Sequence[Event]], None]]:
    """`push(events)`: taken and applied."""
    log = system.stack.open_log()
    pushes = Push(system.stack.control, log, system.settings)

    def send(events: Sequence[Event]) -> None:
        body = json.dumps(events).encode()
        assert pushes.push(TENANT, [SOURCE], body, "application/json", None, SOURCE).accepted == len(events)
        system.settle()

    yield send
    log.close()


def test_each_outcome_is_counted_at_its_shard(system: Installation, push: Callable[[Sequence[Event]], None]) -> None:
    counted = Counted(system)
    sent = [people(10, 40), people(10, 40), people(5, 30), people(20, 20, first=30), people(20, 3, first=30)]
    for events in sent:
        push(events)
    first, again, older, newer, last = (owned(system, events) for events in sent)
    assert len(first) == 2, "one shard has everything: take other cases"
    for shard in system.shard_ids:
        expected = (first[shard] + newer[shard], again[shard] + last[shard], older[shard])
        wait_until(lambda: counted.outcomes(shard) == expected, 5, f"{shard}: {counted.outcomes(shard)}, {expected}")  # noqa: B023
    assert counted("acked", "partition") == in_log(system)
    assert counted("acked", "partition").total() == sum(map(len, sent))


def unplaced(events: Sequence[Event]) -> list[Event]:
    """The events without positions of their own."""
    return [{k: v for k, v in event.items() if k not in ("epoch", "position")} for event in events]


POISON = [b"null", b'{"case": "c"', b'{"case":"c","kind":"entity","op":"upsert","type":"person","id":17}', b"\xff\xfe"]


class Crash(BaseException):
    """The process ends here: nothing below catches it."""


def crash_at(step: str) -> Failpoint:
    def failpoint(at: str) -> None:
        if at == step:
            raise Crash

    return failpoint


def load(
    system: Installation, path: Path, records: RecordLimits = RecordLimits(), failpoint: Failpoint = no_failpoint
) -> LoadResult:
    settings = system.settings.model_copy(update={"records": records})
    with closing(system.stack.open_log()) as log:
        loads = FileLoads(system.stack.control, log, settings, failpoint=failpoint)
        return loads.ingest(LoadFile(path, TENANT, "file"))


def test_dead_letters_are_counted_when_they_come_and_when_they_go(system: Installation, tmp_path: Path) -> None:
    counted = Counted(system)
    events = unplaced(people(0, 60))
    long = [event | {"id": f"{event['id']}-of-a-long-name"} for event in events[:25]]
    path = tmp_path / "people.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in [*(json.dumps(e).encode() for e in events + long), *POISON]))
    loaded = load(system, path, RecordLimits(id_chars=8))
    letters = system.stack.control.dead_letters
    assert (loaded.counts.acked, loaded.counts.dead) == (len(events), len(long) + len(POISON))
    assert counted("acked", "partition") == in_log(system)
    assert counted("dlq_in", "error_class") == Counter(letters.facets(TENANT)["error_class"])
    assert counted("dlq_in", "error_class").total() == len(long) + len(POISON)
    assert not counted("dlq_out", "outcome")
    told: Counter[str] = Counter()
    for _ in range(ATTEMPTS + 1):
        replayed = Replay(system.stack.control, system.log, system.settings).replay(TENANT, "tester")
        told.update(letter.state for letter in replayed.letters)
    assert told == {"replayed": len(long), "waiting": len(POISON) * (ATTEMPTS - 1), "quarantined": len(POISON)}
    assert counted("dlq_out", "outcome") == told
    system.settle()
    assert counted("acked", "partition") == in_log(system)
    expected = sum(in_log(system).values())
    wait_until(lambda: sum(sum(counted.outcomes(shard)) for shard in system.shard_ids) == expected, 5, "each has one")


def test_a_letter_that_is_read_again_came_once(system: Installation, tmp_path: Path) -> None:
    """Its worker dies before it notes that it has kept it, and the whole file is read anew afterwards."""
    counted, path = Counted(system), tmp_path / "poison.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in POISON))
    for _ in range(2):
        with pytest.raises(Crash):
            load(system, path, failpoint=crash_at("before commit"))
    assert counted("dlq_in", "error_class").total() == len(POISON)
    for _ in range(2):
        assert load(system, path).counts.dead == len(POISON)
    came = counted("dlq_in", "error_class")
    assert came == Counter(system.stack.control.dead_letters.facets(TENANT)["error_class"])
    assert came.total() == len(POISON)


def test_a_letter_whose_last_replay_died_has_left(system: Installation, tmp_path: Path) -> None:
    counted, path = Counted(system), tmp_path / "poison.jsonl"
    path.write_bytes(POISON[0])
    load(system, path)
    control = system.stack.control
    for _ in range(ATTEMPTS):
        with pytest.raises(Crash):
            Replay(control, system.log, system.settings, failpoint=crash_at("begun")).replay(TENANT, "tester")
    assert not counted("dlq_out", "outcome"), "none of them came to its end"
    (told,) = Replay(control, system.log, system.settings).replay(TENANT, "tester").letters
    assert (told.state, told.error_class) == ("quarantined", "schema")
    assert Replay(control, system.log, system.settings).replay(TENANT, "tester").letters == []
    assert counted("dlq_out", "outcome") == {"quarantined": 1}


class WholeLog:
    """What the lake would have."""

    def __init__(self, system: Installation) -> None:
        self._system = system

    def events(self, tenant: str, source: str) -> Iterator[Record]:
        rows = [record for _, _, rows in self._system.log_records() for record in rows]
        return (record for record in rows if (record.tenant, record.source) == (tenant, source))


def test_what_commands_append_is_acknowledged_too(system: Installation, tmp_path: Path) -> None:
    """An undo, which says earlier records again, and the values that an overlay writes back; floors are no records."""
    counted, control = Counted(system), system.stack.control
    for number, events in enumerate((people(0, 30), people(0, 20))):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(event | {"props": {"at": number}}) + "\n" for event in unplaced(events)))
        done = load(system, path)
    undo = Undo(control, system.log, WholeLog(system), system.settings)
    assert undo.undo(TENANT, done.load.id, "tester").said_again == 30
    stamp = RunStamp(TENANT, "overlay/pagerank", 1, "s1", "2026-01-02T03:04:05.000Z")
    values = [value_record(stamp, n, CASES[n % 6], ("person", f"p{n}"), {"score": n / 7}) for n in range(12)]
    partitions = system.log.identity.partitions
    system.log.append(list(value_entries(values, partitions, Bounds(100, 1_000, 5, 10_000))))
    system.log.append(floor_entries(stamp, partitions))
    system.settle()
    acked = counted("acked", "partition")
    facts = Counter(str(p) for p, _, rows in system.log_records() for row in rows if row.kind < Kind.FLOOR)
    assert acked == facts
    assert acked.total() == 30 + 20 + 30 + 12
    wait_until(lambda: sum(sum(counted.outcomes(shard)) for shard in system.shard_ids) == 92, 5, "each has one")


def test_a_writer_that_is_refused_is_counted_once(
    system: Installation, push: Callable[[Sequence[Event]], None]
) -> None:
    push(people(1, 12))
    counted, taken_over = Counted(system), 3
    for _ in range(taken_over):
        status = system.writers["shard-0"].status
        wait_until(lambda: system.writers["shard-0"].status.state == "running")
        before = status.lease
        _take_over(system, "shard-0")
        wait_until(lambda: status.state == "running" and status.lease > before + 1, message="it begins anew")  # noqa: B023
    push(people(2, 12))
    assert counted("fenced", "shard") == {"shard-0": taken_over}


def _take_over(system: Installation, shard: str) -> None:
    """Another writer takes the lease and dies."""
    control, mine = system.stack.control, system.stack.current_map().partitions_of(shard)
    token = control.leases.acquire(writer_lease(shard), shard, 10.0, time.time())
    opened = system.stack.open_shard(shard)
    with suppress(Fenced):  # the writer has seen it already, and begun anew
        opened.take_lease(Fence(control.shards.get(shard).epoch, token, mine))
    opened.close()


class Stale:
    """A directory that is wrong until it is reloaded."""

    def __init__(self, wrong: Topology, right: Topology) -> None:
        self._now, self._right = wrong, right
        self.reloads = 0

    def topology(self) -> Topology:
        return self._now

    def reload(self) -> None:
        self._now = self._right
        self.reloads += 1


def ask(system: Installation, directory: Stale, case: str) -> None:
    """Asks for an entity of a case, with what the directory says of the shards."""

    async def one() -> None:
        fanout = FanOut(directory, lambda shard: system.stack.open_client(shard, 5.0), QuerySettings())
        query = EntityQuery(TENANT, case, "person", "nobody")
        try:
            with pytest.raises(NotFound):
                await fanout.one(bucket_of(TENANT, case), lambda shard: read_entity(shard, query), fanout.deadline())
        finally:
            fanout.close()

    asyncio.run(one())


def test_questions_that_a_shard_refuses_are_counted(system: Installation) -> None:
    current = system.stack.current_map()
    epochs = {shard: system.stack.control.shards.get(shard).epoch for shard in system.shard_ids}
    right = Topology(current, _states(epochs))
    old_epoch = Topology(current, _states({shard: epoch - 1 for shard, epoch in epochs.items()}))
    other = {system.shard_ids[0]: system.shard_ids[1], system.shard_ids[1]: system.shard_ids[0]}
    wrong_map = Topology(_with_owners(current, [other[owner] for owner in current.owners]), right.states)
    counted = Counted(system)
    owners = {case: current.owners[bucket_of(TENANT, case)] for case in CASES}
    for case in CASES:
        ask(system, Stale(right, right), case)
        ask(system, directory := Stale(old_epoch, right), case)
        assert directory.reloads == 1
        ask(system, directory := Stale(wrong_map, right), case)
        assert directory.reloads == 1
    assert counted("epoch_mismatch", "shard") == Counter(owners.values())
    assert counted("misroute_refused", "shard") == Counter(other[owner] for owner in owners.values())


def _states(epochs: Mapping[str, int]) -> dict[str, ShardState]:
    return {shard: ShardState(shard, None, "active", epoch) for shard, epoch in epochs.items()}


def _with_owners(shard_map: ShardMap, owners: Sequence[str]) -> ShardMap:
    return replace(shard_map, owners=tuple(owners))


def test_what_a_writer_counted_last_is_not_lost_when_it_ends(
    system: Installation, push: Callable[[Sequence[Event]], None]
) -> None:
    """Ended in order, or by an error that may pass: what its shard has applied is counted."""
    counted = Counted(system)
    for position in range(1, 6):
        push(people(position, 24))
        system.stop_writer("shard-0")
        system.start_writer("shard-0")
        system.settle()
    expected = 5 * owned(system, people(1, 24))["shard-0"]
    time.sleep(1.0)  # longer than between two reports
    assert counted.outcomes("shard-0") == (expected, 0, 0)
