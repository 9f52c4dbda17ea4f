"""Rows 1, 9 and 10 of the fault list: workers that die, poison in the mix, replays of dead letters that die."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.dead_letters import Replay
from actors.loads import FileLoads, LoadFile, LoadResult
from cluster.config import IngestLimits, RecordLimits
from cluster.fold import Fold
from tests.faults.harness import Installation, check, seeds

pytestmark = [pytest.mark.services]

SOURCE = "feed"
QUICK = IngestLimits(batch_records=100, retry_first_s=0.01, retry_most_s=0.1, retry_deadline_s=20, line_bytes=1 << 20)
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


_WORKER = """
import os, signal, sys
from pathlib import Path
from actors.loads import FileLoads, LoadFile
from tests.faults.harness import Installation
from tests.faults.test_ingest_faults import QUICK, SOURCE

folder, path, tenant, step, nth = sys.argv[1:]
left = int(nth)

def failpoint(name):
    global left
    left -= name == step
    if name == step and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

system = Installation(Path(folder))
settings = system.settings.model_copy(update={"ingest": QUICK})
FileLoads(system.stack.control, system.stack.open_log(), settings, failpoint=failpoint).ingest(
    LoadFile(Path(path), tenant, SOURCE))
"""


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_ingest_worker_dies_at_every_step(server_root: Path, tmp_path: Path, seed: int) -> None:
    """Row 1: before the append, after it, before the commit and after; then it goes on to the end."""
    rnd, tenant = random.Random(seed), "acme"
    events = numbered(seed, 2_000 if seed == 1 else 20_000, tenant)
    path = write_lines(tmp_path / "events.jsonl", [json.dumps(e).encode() for e in events])
    with Installation(server_root / f"iw{seed}") as system:
        system.start()
        for step in ("before append", "after append", "before commit", "committed", "none"):
            died = subprocess.run(
                [sys.executable, "-c", _WORKER, str(system.stack.state_dir), str(path), tenant, step,
                 str(rnd.randint(1, 4))],
                cwd=Path(__file__).parents[2], capture_output=True, check=False, timeout=60,
            )  # fmt: skip
            assert died.returncode == (0 if step == "none" else -9), died.stderr.decode()[-2000:]
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


def test_poison_in_the_mix(server_root: Path, tmp_path: Path) -> None:
    """Row 9: 1% of the lines are bad, one has 10 MB. Each is a dead letter; nothing else is held up or lost."""
    tenant, rnd = "globex", random.Random(9)
    events = numbered(9, 3_000, tenant)
    lines = [json.dumps(e).encode() for e in events]
    poison = [rnd.choice(POISON) for _ in range(29)]
    poison.append(b'{"case":"c","kind":"entity","op":"upsert","type":"t","id":"' + b"x" * (10 << 20) + b'"}')
    for line in poison:
        lines.insert(rnd.randrange(len(lines)), line)
    with Installation(server_root / "po") as system:
        system.start()
        result = load(system, write_lines(tmp_path / "events.jsonl", lines), tenant)
        assert (result.counts.acked, result.counts.dead) == (len(events), len(poison))
        system.settle()
        fold = check(system)
        assert shown(fold, tenant) == shows(events)
        letters = system.stack.control.dead_letters.list(tenant, limit=1000)
        assert len(letters) == len(poison)
        large = [letter for letter in letters if letter.error_class == "too_large"]
        assert [len(letter.payload) for letter in large] == [1 << 20], "what is kept of a line is bounded"
        kept = sorted(letter.payload for letter in letters if letter not in large)
        assert kept == sorted(line for line in poison if len(line) < 1 << 20)


class Dies(Exception):
    pass


def replay(system: Installation, tenant: str, die_at: str | None = None) -> Any:
    def failpoint(name: str) -> None:
        if name == die_at:
            raise Dies(name)

    log = system.stack.open_log()
    settings = system.settings.model_copy(update={"ingest": QUICK})
    try:
        return Replay(system.stack.control, log, settings, failpoint=failpoint).replay(tenant, "tester")
    finally:
        log.close()


def test_replay_of_dead_letters_dies_twice(server_root: Path, tmp_path: Path) -> None:
    """Row 10: letters that are good by now are applied once, at their first positions, so that none overtakes what
    came after it; what is bad still ends in quarantine at its limit."""
    tenant = "acme"
    long_id = "a-name-that-was-too-long-at-first"
    old = [
        {"case": "c", "kind": "entity", "op": "upsert", "type": "person", "id": long_id, "props": {"n": 1}},
        *(
            {"case": "c", "kind": "entity", "op": "upsert", "type": "person", "id": f"{long_id}-{n}", "props": {"n": n}}
            for n in range(2, 12)
        ),
    ]
    newer = {**old[0], "props": {"n": 99}}
    lines = [*(json.dumps(e).encode() for e in old), *POISON]
    with Installation(server_root / "dl") as system:
        system.start()
        short = RecordLimits(id_chars=8)
        first = load(system, write_lines(tmp_path / "old.jsonl", lines), tenant, records=short)
        assert (first.counts.acked, first.counts.dead) == (0, len(lines))
        load(system, write_lines(tmp_path / "new.jsonl", [json.dumps(newer).encode()]), tenant)
        letters = system.stack.control.dead_letters
        for step in ("before append", "after append"):
            with pytest.raises(Dies):
                replay(system, tenant, step)
            assert letters.facets(tenant)["state"] == {"waiting": len(lines)}
        result = replay(system, tenant)
        assert result.count("replayed") == len(old)
        system.settle()
        fold = check(system)
        expected = {("c", e["id"]): e["props"]["n"] for e in old} | {("c", long_id): 99}
        assert shown(fold, tenant) == expected
        for _ in range(QUICK.dead_letter_attempts):
            replay(system, tenant)
        assert letters.facets(tenant)["state"] == {"replayed": len(old), "quarantined": len(POISON)}
        hashes, ends = system.hashes(), system.ends()
        replay(system, tenant)
        assert system.ends() == ends, "a letter was replayed twice"
        assert system.hashes() == hashes
