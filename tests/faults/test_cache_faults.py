"""Row 7: the cache's Redis loses everything, dies, and comes back with what it had long ago.

Nothing of the product keeps anything there yet: this is for whoever does first.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.embedded import Role, ensure, kill, kill_server, operator, server_spec
from tests.faults.checks import check
from tests.faults.harness import Installation
from tests.faults.producer import Producer, events
from tests.faults.seeds import is_long, seeds
from tests.faults.servers import MEMORY_BYTES

pytestmark = [pytest.mark.services]

OLD, NEW = "tests:old", "tests:new"


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_the_cache_is_flushed_killed_and_restored_old(server_root: Path, seed: int) -> None:
    """Row 7: the cache is flushed, killed and restored from an old dump under load. No error, and the same hash."""
    records = events(seed, 20_000 if is_long(seed) else 1_500)
    parts = [records[start::3] for start in range(3)]
    with Installation(server_root / f"ca{seed}") as system:
        spec = server_spec(system.stack.state_dir, Role.CACHE, "cache", MEMORY_BYTES)
        cache = ensure(spec, None)
        try:
            system.start()
            with operator(spec) as client:
                client.set(OLD, "1")
                client.save()
                client.set(NEW, "1")
            producers = [Producer(system, parts[0]).start()]
            with operator(spec) as client:
                client.flushall()
            producers.append(Producer(system, parts[1]).start())
            kill(cache)
            producers.append(Producer(system, parts[2]).start())
            ensure(spec, None)
            with operator(spec) as client:
                assert client.keys("tests:*") == [OLD], "it is not the old one"
            histories = [producer.join(120.0) for producer in producers]
            assert [producer.refused for producer in producers] == [0, 0, 0]
            system.settle()
            check(system, *histories)
            system.stop_loops()
        finally:
            kill_server(spec)
