"""Row 3 of the fault list: calls of Ray that get lost on their way, on their way back, or while they are at work."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.versions import decode
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.lossy import PUSHED, WAYS, LossyRay, losses
from tests.faults.operations import Ended, Operations
from tests.faults.seeds import is_long, seeds
from tests.faults.set_checker import check_set
from tests.faults.test_ingest_faults import TENANTS, Event, begins, numbered, shown, shows, write_lines

pytestmark = [pytest.mark.services, pytest.mark.slow]

SOURCE = "feed"
SETTLES_S = 120.0
"""Not what is asked about here: an actor whose every call was lost is replaced after half a minute."""
ATTEMPTS = 20
Line = tuple[str, str, int]
"""Tenant, file, and where the line begins in it."""


@dataclass(frozen=True)
class Given:
    """A file of a tenant, one of several: each continues the one before."""

    tenant: str
    path: Path
    events: list[Event]

    @property
    def lines(self) -> list[Line]:
        """Its lines."""
        return [(self.tenant, self.path.name, at) for at in begins(self.path.read_bytes().splitlines())]


def given(folder: Path, seed: int, files: int, count: int) -> list[Given]:
    """So many files of so many lines for each tenant, in the order in which they are loaded."""
    made: list[Given] = []
    for tenant in TENANTS:
        events = numbered(seed, files * count, tenant)
        for number in range(files):
            mine = events[number * count : (number + 1) * count]
            path = folder / f"{tenant}-{number}.jsonl"
            made.append(Given(tenant, write_lines(path, [json.dumps(e).encode() for e in mine]), mine))
    return made


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_ray_calls_lost_in_all_three_ways(server_root: Path, tmp_path: Path, seed: int) -> None:
    """Row 3: Ray's calls lost, in all three ways. Files are loaded by the ingest worker; whoever calls it asks again
    where he does not know, and each line is there once."""
    long = is_long(seed)
    files = given(tmp_path, seed, *((14, 480) if long else (6, 125)))
    with Installation(server_root / f"rc{seed}") as system:
        system.start_servers()
        with LossyRay(system.settings, losses(seed)) as node:
            calls, epochs = Operations[Line](), dict[tuple[str, int], str]()
            for file in in_turn(files, random.Random(seed)):
                epochs[file.tenant, loaded(node, file, calls)] = file.path.name
            system.settle(deadline_s=SETTLES_S)
            wait_until(lambda: lake_has_all(system), SETTLES_S, "the lake has all")
            lost = node.lost()
        fold = check(system)
        read = [line_of(r.tenant, r.version, epochs) for _, _, rows in system.log_records() for r in rows]
        in_log = check_set(calls.made, read, once=False)
        system.outcome.events = system.outcome.acked = in_log.acknowledged
        assert in_log.holds, in_log.told(calls.made, " in the log")
        assert in_log.acknowledged == sum(len(file.events) for file in files)
        assert not long or len(read) > in_log.read, "no load was made again after it had been done"
        for tenant in TENANTS:
            assert shown(fold, tenant) == shows([e for file in files if file.tenant == tenant for e in file.events])
        for way in WAYS:
            assert lost[PUSHED, way] > 0, f"none of the actors' calls was lost: {way}"


def in_turn(files: list[Given], rnd: random.Random) -> list[Given]:
    """Tenants by chance, the files of each in their order."""
    waiting = {tenant: [file for file in files if file.tenant == tenant] for tenant in TENANTS}
    order = rnd.sample([file.tenant for file in files], len(files))
    return [waiting[tenant].pop(0) for tenant in order]


def loaded(node: LossyRay, file: Given, calls: Operations[Line]) -> int:
    """Has a file loaded, again until that is acknowledged; returns the epoch that its lines have."""
    for _ in range(ATTEMPTS):
        call = calls.invoke("ingest", file.lines)
        told = node.load(file.path, file.tenant, SOURCE)
        if "error" not in told:
            calls.complete(call, Ended.OK)
            return int(told["epoch"])
        assert told["error"] in ("Unavailable", "OutcomeUnknown"), told
    raise AssertionError(f"not loaded in {ATTEMPTS} attempts: {told}")


def line_of(tenant: str, version: str, epochs: dict[tuple[str, int], str]) -> Line:
    """The line that a record comes from."""
    epoch, position = decode(version)
    return tenant, epochs.get((tenant, epoch), f"epoch {epoch}"), position[0]


def lake_has_all(system: Installation) -> bool:
    """Whether what the log has is in the lake."""
    with system.stack.open_lake() as lake:
        return all(lake.positions().of(p).number == n for p, n in system.ends().items())
