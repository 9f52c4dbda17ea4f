"""The system over several hosts, by `ray up` with our own file: what comes in at one host is seen at the others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.cluster import HEAD, NODES, WORKERS, HostCluster
from services.spec import NotInstallable
from tests.hosts.installation import Installation, within

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1_800)]


@pytest.fixture(scope="module")
def there() -> Iterator[Installation]:
    """One cluster for this module, with the embedded parts; its last test takes it down."""
    cluster = HostCluster(Path(tempfile.mkdtemp(prefix="igh-")), ROOT, ROOT / ".services" / "artifacts")
    try:
        cluster.up(embedded=True)
        yield Installation(cluster)
    except NotInstallable as error:
        pytest.skip(str(error))
    finally:
        cluster.remove()


def test_every_host_has_joined_and_the_embedded_parts_keep_their_actors_at_the_head(there: Installation) -> None:
    within(60, lambda: there.where()["hosts"] == sorted(NODES), "every host has joined")
    actors = there.where()["actors"]
    assert {actors[name] for name in ("lake-appender", "shard-writer:shard-0", "shard-writer:shard-1")} == {HEAD}
    replicas = sorted(host for name, host in actors.items() if name.startswith("SERVE_REPLICA::"))
    assert replicas == sorted(NODES)


def test_what_came_in_at_one_host_is_seen_at_the_others(there: Installation) -> None:
    fact = there.push(HEAD, "c-1", "first")
    for worker in WORKERS:
        assert there.shows(worker, fact)


def test_nothing_is_left(there: Installation) -> None:
    there.cluster.ray_down()
    there.cluster.remove()
    within(10, lambda: not there.cluster.left(), "everything has gone")
