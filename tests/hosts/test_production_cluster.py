"""The system over several hosts with production's parts: a host dies, the head dies, connections are half-open.

Each fact that was acknowledged is there in the end, once, and every record has one outcome.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from hosts.cluster import HEAD, NODES, HostCluster
from services.spec import NotInstallable
from tests.hosts.installation import TENANT, Acked, Feed, Installation, within
from tests.kafka_topics import Topic

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.chaos, pytest.mark.production, pytest.mark.timeout(1_800)]
CASES = tuple(f"c-{n}" for n in range(8))
STREAMED, PARTITIONS, SHARDS = 3_000, 3, 2


class Cluster(Installation):
    """With what was acknowledged by all tests so far."""

    def __init__(self, cluster: HostCluster) -> None:
        super().__init__(cluster)
        self.expected: set[tuple[str, str, str]] = set()
        self.topic = Topic(cluster.services().start("kafka"), "facts", PARTITIONS)
        self.on_head(f"streams add facts --topic facts --tenant {TENANT}")

    def stream(self, name: str) -> None:
        """Facts through the topic, to all its partitions."""
        facts = [
            {"tenant": TENANT, "case": CASES[n % len(CASES)], "kind": "entity", "op": "upsert", "type": "person",
             "id": f"s-{name}-{n}", "props": {"n": n}}
            for n in range(STREAMED)
        ]  # fmt: skip
        for partition in range(PARTITIONS):
            self.topic.send(facts[partition::PARTITIONS], partition)
        self.expected |= {("entity", "person", fact["id"]) for fact in facts}

    @contextmanager
    def fed(self, hosts: tuple[str, ...], name: str) -> Iterator[Feed]:
        """Pushes over these hosts for a block; what is acknowledged is expected from then on, whatever became of it."""
        feed = Feed(self, hosts, CASES, name)
        try:
            with feed:
                yield feed
        finally:
            self.pushed(fact for _, fact in feed.acked)

    def pushed(self, facts: Iterable[Acked]) -> None:
        for fact in facts:
            self.expected |= {("entity", "person", f"p-{fact.name}"), ("entity", "firm", f"f-{fact.name}"),
                              ("relationship", "works_for", f"w-{fact.name}")}  # fmt: skip

    def goes_on(self, feed: Feed, hosts: tuple[str, ...], since: float, limit_s: float) -> float:
        """Until a fact of each case that was sent after a moment is shown by each host: seconds since that moment."""
        for case in CASES:

            def shown(case: str = case) -> bool:
                fact = feed.after(since, case)
                return fact is not None and all(self.shows(host, fact) for host in hosts)

            within(since + limit_s - time.monotonic(), shown, f"facts of {case} are seen")
        took_s = time.monotonic() - since
        assert took_s < limit_s, f"everything went on after {took_s:.1f} s"
        return took_s

    def check(self) -> None:
        """Nothing is lost, doubled or made up."""
        within(120, lambda: self.shown() == sorted(self.expected), "all that was acknowledged is there, once")
        assert json.loads(self.on_head("audit --json --timeout 120"))["holds"]

    def writers(self) -> dict[str, str]:
        """Which shard's writer is on which host."""
        return {name: host for name, host in self.where()["actors"].items() if name.startswith("shard-writer:")}

    def all_hosts(self) -> bool:
        return bool(self.where()["hosts"] == sorted(NODES))


@pytest.fixture(scope="module")
def there() -> Iterator[Cluster]:
    """One cluster for this module; its last test takes it down."""
    folder = Path(tempfile.mkdtemp(prefix="igh-"))
    folder.chmod(0o711)  # PostgreSQL does not run as root
    cluster = HostCluster(folder, ROOT, ROOT / ".services" / "artifacts")
    try:
        cluster.up()
        made = Cluster(cluster)
        within(120, lambda: len(set(made.writers().values())) == SHARDS, "the shards' writers are on several hosts")
        yield made
    except NotInstallable as error:
        pytest.skip(str(error))
    finally:
        cluster.remove()


def test_actors_are_spread_and_facts_come_in_everywhere(there: Cluster) -> None:
    within(120, there.all_hosts, "every host has joined")
    there.stream("first")
    with there.fed(NODES, "first") as feed:
        there.goes_on(feed, NODES, time.monotonic(), 60.0)
    assert there.where()["actors"]["lake-appender"] == HEAD
    there.check()


def test_a_host_with_a_writer_dies(there: Cluster) -> None:
    """Row 2: a host dies on which a shard's facts are written."""
    victim = next(host for host in there.writers().values() if host != HEAD)
    others = tuple(name for name in NODES if name != victim)
    try:
        with there.fed(others, "host") as feed:
            there.stream("host")
            within(30, lambda: len(feed.acked) > 20, "facts come in")
            killed = time.monotonic()
            there.cluster.kill_host(victim)
            print(f"\nhost died: everything went on after {there.goes_on(feed, others, killed, 30.0):.1f} s")
        there.check()
    finally:  # whatever was seen: the tests that follow want every host
        there.cluster.start_host(victim)
    took_s = within(300, there.all_hosts, "the host joins again")
    print(f"the host that came back joined after {took_s:.1f} s")


def test_answers_of_a_shard_reach_nobody(there: Cluster) -> None:
    """Row 11: connections to a shard are half-open on every host: what they send arrives, no answer does."""
    port = urlsplit(there.cluster.services().start("neo4j-1").address).port
    assert port is not None
    before = {case: there.push(HEAD, case, f"calm-{case}") for case in CASES}
    there.pushed(before.values())
    within(30, lambda: all(there.shows(HEAD, fact) for fact in before.values()), "all is seen")
    with there.fed(NODES, "half") as feed:
        with there.cluster.network.silent(port):
            cut = time.monotonic()
            asked = {case: timed(there, fact) for case, fact in before.items()}
            hidden = [case for case, (status, _) in asked.items() if status != 200]
            assert hidden and len(hidden) < len(CASES), asked
            assert {asked[case][0] for case in hidden} == {503}, asked
            assert max(seconds for _, seconds in asked.values()) < 6.0, asked
            within(5.0, lambda: timed(there, before[hidden[0]])[1] < 0.5, "the breaker is open: it says so at once")
            for case in set(CASES) - set(hidden):
                status, seconds = timed(there, before[case])
                assert (status, seconds < 1.0) == (200, True), (case, status, seconds)
            while time.monotonic() < cut + 30.0:  # longer than a write may take
                time.sleep(1.0)
        healed = time.monotonic()
        print(f"\nhalf-open: everything went on {there.goes_on(feed, NODES, healed, 60.0):.1f} s after it healed")
    there.check()


def test_the_head_dies(there: Cluster) -> None:
    """Row 2: the head dies, and is brought back."""
    with there.fed(NODES, "head") as feed:
        there.stream("head")
        within(30, lambda: len(feed.acked) > 20, "facts come in")
        there.cluster.kill_host(HEAD)
        time.sleep(2.0)
        back = time.monotonic()
        there.cluster.start_host(HEAD)
        with ThreadPoolExecutor(1) as beside:
            starting = beside.submit(there.cluster.ray_up_again)
            went_on_s = there.goes_on(feed, (HEAD,), back, 60.0)
            print(f"\nhead died: everything went on {went_on_s:.1f} s after its host was back")
            starting.result()
        within(300, there.all_hosts, "the others join again")
    there.check()


def test_nothing_is_left(there: Cluster) -> None:
    there.cluster.ray_down()
    there.cluster.remove()
    within(10, lambda: not there.cluster.left(), "everything has gone")


def timed(there: Cluster, fact: Acked) -> tuple[int, float]:
    """Status of reading a fact, and after how many seconds it came."""
    began = time.monotonic()
    try:
        status = there.read(HEAD, fact).status_code
    except httpx.TimeoutException:
        status = 0
    return status, time.monotonic() - began
