"""Rows 1, 9 and 10 of the fault list: workers that die, poison in the mix, replays of dead letters that die."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from actors.dead_letters import Replay
from actors.loads import FileLoads, LoadFile, LoadResult
from actors.supervisor import plain
from cluster.config import RecordLimits
from cluster.fold import Fold
from cluster.stores.control_dead_letters import DeadLetter
from cluster.versions import decode
from tests.faults import dying
from tests.faults.checks import check
from tests.faults.conftest import Install
from tests.faults.dying import QUICK, SOURCE
from tests.faults.harness import Installation
from tests.faults.measures import Waiting, longest_between_appends_s
from tests.faults.seeds import is_long, on_stacks, seeds
from tests.forked import Forked

pytestmark = [pytest.mark.services]

TENANTS = ("acme", "globex", "initech")
Event = dict[str, Any]


def numbered(seed: int, count: int, tenant: str) -> list[Event]:
    """Events without positions, each with its number: the line says the order."""
    rnd = random.Random(seed)
    made: list[Event] = []
    for number in range(1, count + 1):
        event = {"case": f"case-{rnd.randrange(4)}", "kind": "entity", "op": "upsert", "type": "person"}
        event |= {"id": f"p{rnd.randrange(count // 4)}", "props": {"n": number, "name": f"{tenant} thing {number}"}}
        if rnd.random() < 0.1:
            event["op"] = "delete"
            del event["props"]
        made.append(event)
    return made


def shows(events: Sequence[Event]) -> dict[tuple[str, str], int]:
    """What must be visible after these events in their order: the number of the last one that says something."""
    last: dict[tuple[str, str], int] = {}
    for event in events:
        key = (event["case"], event["id"])
        if event["op"] == "delete":
            last.pop(key, None)
        else:
            last[key] = event["props"]["n"]
    return last


def shown(fold: Fold, tenant: str) -> dict[tuple[str, str], int]:
    """The same as the fold shows it."""
    found = [(thing, merged) for thing, merged in fold.visible() if thing[0] == tenant]
    return {(thing[1], thing[4]): json.loads(merged.props)["n"] for thing, merged in found}


def write_lines(path: Path, lines: Sequence[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def load(system: Installation, path: Path, tenant: str, **changes: Any) -> LoadResult:
    settings = system.settings.model_copy(update={"ingest": QUICK, **changes})
    log = system.stack.open_log()
    try:
        return FileLoads(system.stack.control, log, settings).ingest(LoadFile(path, tenant, SOURCE))
    finally:
        log.close()


@pytest.fixture(scope="module")
def python() -> Iterator[Forked]:
    with Forked([dying.__name__]) as forked:
        yield forked


def die(
    python: Forked, what: str, system: Installation, tenant: str, step: str, nth: int, path: Path | str = ""
) -> None:
    """Has a child do something and die at a step; at the step `none` it comes to its end."""
    system.recording.mark(f"{what}: killed {step}" if step != "none" else what, fault=step != "none")
    script = f"import sys; from {dying.__name__} import child; child(*sys.argv[1:])"
    settings = json.dumps(plain(system.settings))
    died = python.run(script, what, settings, tenant, str(path), step, str(nth))
    assert died.returncode == (0 if step == "none" else -9), died.stderr[-2000:]


@pytest.mark.parametrize(("stack", "seed"), on_stacks(1, 10))
def test_ingest_worker_dies_at_every_step(install: Install, tmp_path: Path, python: Forked, seed: int) -> None:
    """Row 1: an ingest worker dies before the append, after it, before the commit and after. Then it goes on to the
    end."""
    rnd, tenant = random.Random(seed), "acme"
    events = numbered(seed, 20_000 if is_long(seed) else 2_000, tenant)
    path = write_lines(tmp_path / "events.jsonl", [json.dumps(e).encode() for e in events])
    with install(f"iw{seed}") as system:
        system.start()
        for step in ("before append", "after append", "before commit", "committed", "none"):
            die(python, "load", system, tenant, step, rnd.randint(1, 4), path)
        again = load(system, path, tenant)
        assert (again.counts.acked, again.load.epoch) == (len(events), 1), (
            "the content has one epoch, whenever it is read"
        )
        system.settle()
        fold = check(system)
        entries = system.log_records()
        distinct = {r for _, _, rows in entries for r in rows}
        assert len(distinct) == len(events), "each line is one record, however often it was appended"
        assert sum(len(rows) for _, _, rows in entries) > len(events), "nothing was appended twice: no fault happened"
        assert shown(fold, tenant) == shows(events)


POISON = (
    b'{"case": "c", "kind": "entity"',
    b"null",
    b'{"case":"c","kind":"entity","op":"upsert","type":"person","id":"x","shoe_size":43}',
    b'{"case":"c","kind":"entity","op":"upsert","type":"person","id":17}',
    b'{"case":"c","kind":"relationship","op":"upsert","type":"bad type","id":"x","from":{"type":"a","id":"b"}}',
    b"\xff\xfe\x00\x01",
)


LARGE = b'{"case":"c","kind":"entity","op":"upsert","type":"t","id":"' + b"x" * (10 << 20) + b'"}'


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_poison_in_the_mix(server_root: Path, tmp_path: Path, seed: int) -> None:
    """Row 9: 1% of the lines are bad, and one of each tenant has 10 MB. Each is a dead letter; nothing else is held up
    or lost."""
    rnd, long = random.Random(seed), is_long(seed)
    files = [Mixed.write(tmp_path, tenant, rnd, 7_000 if long else 1_500) for tenant in TENANTS]
    with Installation(server_root / f"po{seed}") as system:
        system.start()
        with Waiting(system) as waiting, ThreadPoolExecutor(len(files)) as threads:
            results = list(threads.map(lambda file: load(system, file.path, file.tenant), files))
            system.settle()
        fold = check(system)
        for file, result in zip(files, results, strict=True):
            assert (result.counts.acked, result.counts.dead) == (len(file.events), len(file.poison))
            assert shown(fold, file.tenant) == shows(file.events)
            assert taken(system, file.tenant) == Counter(file.good), "a line is missing, or it was taken twice"
            kept = {letter.position[0]: letter for letter in letters_of(system, file.tenant)}
            assert kept.keys() == file.poison.keys()
            assert all(kept[at].payload == line[: 1 << 20] for at, line in file.poison.items()), (
                "what is kept is bounded"
            )
            assert [at for at, letter in kept.items() if letter.error_class == "too_large"] == [file.large]
        if long:
            assert waiting.looks >= 5
            assert max(waiting.longest_s.values()) <= 2.0, "a partition was held up in its shard"
            assert longest_between_appends_s(system) <= 2.0, "a partition was held up before the log"


@dataclass(frozen=True)
class Mixed:
    """A file with poison in it; lines go by where they begin, which is their position."""

    path: Path
    tenant: str
    events: list[Event]
    good: list[int]
    poison: dict[int, bytes]
    large: int

    @classmethod
    def write(cls, folder: Path, tenant: str, rnd: random.Random, count: int) -> Mixed:
        """1% of the lines are bad, each kind of `POISON` among them, and one has 10 MB."""
        events = numbered(rnd.randrange(1 << 30), count, tenant)
        lines = [json.dumps(event).encode() for event in events]
        bad = [*POISON, *(rnd.choice(POISON) for _ in range(count // 100 - len(POISON))), LARGE]
        for line in bad:
            lines.insert(rnd.randrange(len(lines)), line)
        places = dict(zip(begins(lines), lines, strict=True))
        poison = {at: line for at, line in places.items() if line in bad}
        good = [at for at in places if at not in poison]
        large = next(at for at, line in poison.items() if line is LARGE)
        return cls(write_lines(folder / f"{tenant}.jsonl", lines), tenant, events, good, poison, large)


def begins(lines: Sequence[bytes]) -> list[int]:
    """Where each line begins in its file."""
    return list(accumulate((len(line) + 1 for line in lines[:-1]), initial=0))


def taken(system: Installation, tenant: str, epoch: int = 1) -> Counter[int]:
    """How often the log holds each line of a tenant's file, by where the line begins."""
    stamps = [r.version for _, _, rows in system.log_records() for r in rows if r.tenant == tenant]
    return Counter(position[0] for at, position in map(decode, stamps) if at == epoch)


def letters_of(system: Installation, tenant: str) -> list[DeadLetter]:
    """All dead letters of a tenant."""
    return system.stack.control.dead_letters.list(tenant, limit=1_000)


def replay(system: Installation, tenant: str) -> Any:
    log = system.stack.open_log()
    settings = system.settings.model_copy(update={"ingest": QUICK})
    try:
        return Replay(system.stack.control, log, settings).replay(tenant, "tester")
    finally:
        log.close()


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_replay_of_dead_letters_dies_at_every_step(
    server_root: Path, tmp_path: Path, python: Forked, seed: int
) -> None:
    """Row 10: letters that are good by now are applied once, at their first positions, so that none overtakes what
    comes meanwhile, whoever dies and however many replay at once; what is bad ends in quarantine at its limit."""
    rnd, long = random.Random(seed), is_long(seed)
    with Installation(server_root / f"dl{seed}") as system:
        system.start()
        letters = system.stack.control.dead_letters
        tenants = TENANTS if long else TENANTS[:1]
        files = [Renamed.write(tmp_path, tenant, rnd, 7_000 if long else 1_500) for tenant in tenants]
        for file in files:
            first = load(system, file.old, file.tenant, records=RecordLimits(id_chars=8))
            assert first.counts.dead == len(file.waiting) + len(POISON)
            other = rnd.choice(OTHER_STEPS) if long else "finished"
            for step in rnd.sample((TWICE, other), 2):
                die(python, "replay", system, file.tenant, step, 1 + rnd.randrange(2) * long)
            assert letters.facets(file.tenant)["state"]["waiting"] >= len(POISON)
        with ThreadPoolExecutor(2 * len(files)) as threads:
            loads = [threads.submit(load, system, file.new, file.tenant) for file in files]
            replays = [threads.submit(replay, system, file.tenant) for file in files * 2]
            assert all(done.result() for done in [*loads, *replays])
        system.settle()
        fold = check(system)
        for file in files:
            assert shown(fold, file.tenant) == shows(file.events)
            counted = taken(system, file.tenant)
            assert counted.keys() == set(file.good) | set(file.waiting)
            assert all(counted[line] == 1 for line in file.good)
            assert max(counted[line] for line in file.waiting) > 1, "nothing was replayed twice: no fault happened"
            for _ in range(QUICK.dead_letter_attempts):
                replay(system, file.tenant)
            assert letters.facets(file.tenant)["state"] == {"replayed": len(file.waiting), "quarantined": len(POISON)}
        hashes, ends = system.hashes(), system.ends()
        assert [replay(system, file.tenant).letters for file in files] == [[]] * len(files)
        assert (system.hashes(), system.ends()) == (hashes, ends), "a letter was replayed twice"


TWICE, OTHER_STEPS = "after append", ("begun", "before append", "finished")
"""Who dies between the append and the note of it has the letter appended once more; the others do not."""


@dataclass(frozen=True)
class Renamed:
    """Two files of one tenant, one after the other. Ids of some lines of the old one are too long for its first
    loading; it ends in poison.

    Args:
        events: of both.
        good, waiting: where the old file's lines begin that are taken at once, and those that become letters.
    """

    old: Path
    new: Path
    tenant: str
    events: list[Event]
    good: list[int]
    waiting: list[int]

    @classmethod
    def write(cls, folder: Path, tenant: str, rnd: random.Random, count: int) -> Renamed:
        """One of ten things has a long name; both files speak of all things."""
        events = numbered(rnd.randrange(1 << 30), count, tenant)
        for event in events:
            if event["id"].endswith("7"):
                event["id"] += "-with-a-long-name"
        lines, half = [json.dumps(event).encode() for event in events], count // 2
        old = write_lines(folder / f"{tenant}-old.jsonl", [*lines[:half], *POISON])
        new = write_lines(folder / f"{tenant}-new.jsonl", lines[half:])
        places = dict(zip(begins(lines[:half]), events[:half], strict=True))
        waiting = [at for at, event in places.items() if len(event["id"]) > 8]
        return cls(old, new, tenant, events, [at for at in places if at not in waiting], waiting)
