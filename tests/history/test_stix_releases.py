"""STIX 2.1 bundles as published: a second release over the first, and both again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.loads import FileLoads, LoadFile
from tests.faults.checks import check
from tests.faults.harness import Installation

pytestmark = [pytest.mark.services, pytest.mark.slow]

CASE, SOURCE = "matrix", "mitre"


def load(system: Installation, path: Path) -> None:
    """A bundle through the STIX source, as `intelgraph ingest` does it."""
    log = system.stack.open_log()
    FileLoads(system.stack.control, log, system.settings).ingest(LoadFile(path, "ics", SOURCE, case=CASE))
    log.close()
    system.settle()


def outcomes(system: Installation) -> tuple[int, int]:
    """(applied, duplicate) of all shards."""
    shards = system.opened()
    cursors = [cursor for shard in shards for cursor in shard.cursors().values()]
    for shard in shards:
        shard.close()
    return sum(c.applied for c in cursors), sum(c.duplicate for c in cursors)


def test_a_second_release_over_the_first(server_root: Path, shared_path: Callable[[str], Path]) -> None:
    first, second = shared_path("data/stix/ics-attack-15.1.json"), shared_path("data/stix/ics-attack-16.1.json")
    with Installation(server_root / "six") as system:
        system.start()
        load(system, first)
        before = check(system)
        load(system, second)
        after = check(system)
        assert len(after.export_lines()) > len(before.export_lines()) > 1_000
        hashes, (applied, duplicate) = system.hashes(), outcomes(system)
        load(system, second)
        assert system.hashes() == hashes
        again = outcomes(system)
        assert again[0] == applied
        assert again[1] > duplicate
        load(system, first)
        assert system.hashes() == hashes, "the older release is older, whenever it is read again"
