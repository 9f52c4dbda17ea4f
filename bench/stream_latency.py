"""A topic read at a share of the peak: how long records wait for the store, when they show, and what a burst does.

    python bench/stream_latency.py [--store falkordb|neo4j] [--seconds 20] [--burst-s 60] [--warm 1]

The peak is what `streams.py` measures: records a second of one whole run through the system, of 1 partition. Then, in a
fresh installation with one shard and its defaults:

- at 80% of the peak: the time from polled to in the log (`intake`), and from there until a writer sends it to the
  store (`queued`, of the oldest record of what it sends), from the product's own `stage_seconds`; a quantile lies
  within one of its buckets, straight between their bounds. Both together are what a record waits before the store.
- at 50%: from the moment at which a record was due to be produced to the API's answer that shows it. One relationship
  of every 100 records is asked for, every --poll-ms.
- burst: two tenants, a topic each, 5% of the peak each; then one of them ten times as much for --burst-s. The other
  one's times until its records show, during it against before, and the memory (PSS) of all processes of the system.

At the end every record that was produced has been applied once, or the run fails. Last line: JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.graph import machine  # noqa: E402 - a script has to find the packages first
from bench.ingest import generate  # noqa: E402
from bench.installation import BASELINES, CLI, installation, percentiles  # noqa: E402
from bench.latency import Batch, Ours, batches  # noqa: E402
from bench.memory import Memory  # noqa: E402
from bench.streams import CATALOGUE, PACKAGES, Bench, check_installed, grown  # noqa: E402
from services.runner import Services  # noqa: E402
from services.spec import NotInstallable  # noqa: E402

BATCH = 100
STAGES = ("intake", "queued")
SHARES = {"pre_storage": 0.8, "visible": 0.5, "burst": 0.05}
BURST = 10


class Feed:
    """One tenant's topic, produced to at a steady rate, and the times until its probes show.

    Args:
        number: of the tenant: `t0`, …; no two feeds of an installation have the same.
    """

    def __init__(self, session: Any, brokers: str, number: int, options: argparse.Namespace) -> None:
        from serve_apps.tokens import TokenAuthority

        self.tenant, self.name, self._brokers, self._seed = f"t{number}", f"feed-{number}", brokers, options.seed
        self._made = 0
        asyncio.run(_create_topic(brokers, self.name))
        words = ["streams", "add", self.name, "--topic", self.name, "--tenant", self.tenant, "--json"]
        environment = {**session.environment, "PYTHONPATH": str(ROOT)}
        subprocess.run([*CLI, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        token = TokenAuthority.open(session.state_dir).issue(self.tenant, ["read"], [], 3600, "bench")
        self._side = Ours(session.node.api, token, options.poll_ms / 1e3, options.timeout_s)
        self.produced = 0

    def prepared(self, rate: float, seconds: float) -> list[tuple[Batch, list[bytes]]]:
        """Records of so many seconds, which no other call gives. Not timed."""
        count = max(1, round(rate * seconds / BATCH))
        made = batches(self._made + count, BATCH, self._seed)[self._made :]
        self._made += count
        for event in (event for batch in made for event in batch.events):
            event |= {"tenant": self.tenant, "source": self.name}
        return [(batch, [json.dumps(event).encode() for event in batch.events]) for batch in made]

    def run(self, todo: list[tuple[Batch, list[bytes]]], rate: float) -> list[float]:
        """Produces at the rate; seconds until each batch's probe shows. Blocks."""
        with ThreadPoolExecutor(8) as readers:
            asked = asyncio.run(self._produce(todo, BATCH / rate, readers))
            return [one.result() for one in asked]

    async def _produce(
        self, todo: list[tuple[Batch, list[bytes]]], every_s: float, readers: ThreadPoolExecutor
    ) -> list[Future[float]]:
        from aiokafka import AIOKafkaProducer

        asked = []
        async with AIOKafkaProducer(
            bootstrap_servers=self._brokers, enable_idempotence=True, max_batch_size=1 << 20
        ) as producer:
            start = time.perf_counter() + 0.1
            for number, (batch, lines) in enumerate(todo):
                due = start + number * every_s
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                builder = producer.create_batch()
                for line in lines:
                    if builder.append(key=None, value=line, timestamp=None) is None:
                        raise SystemExit("a batch of records is larger than the producer sends at once")
                await producer.send_batch(builder, self.name, partition=0)
                self.produced += len(lines)
                asked.append(readers.submit(self._side.seen_s, batch, due))
        return asked


async def _create_topic(brokers: str, name: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


def stage_counts(session: Any) -> dict[str, dict[float, float]]:
    """What the product's `stage_seconds` counts now: by stage, batches by their bucket's upper bound in seconds."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    answer = httpx.get(f"{session.node.api}/metrics", trust_env=False, timeout=30.0)
    found: dict[str, dict[float, float]] = {name: {} for name in STAGES}
    for family in text_string_to_metric_families(answer.raise_for_status().text):
        for sample in family.samples:
            stage = sample.labels.get("stage")
            if sample.name == "intelgraph_stage_seconds_bucket" and stage in found:
                bound = float(sample.labels["le"])
                found[stage][bound] = found[stage].get(bound, 0.0) + sample.value
    return found


def quantile(share: float, before: dict[float, float], after: dict[float, float]) -> float:
    """Seconds below which that share of what was counted between lies: within a bucket on a straight line."""
    bounds = sorted(after)
    counts = [after[bound] - before.get(bound, 0.0) for bound in bounds]
    rank, low, below = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= rank and count > below:
            return bound if bound == float("inf") else low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return low


def settled(session: Any, feeds: list[Feed]) -> None:
    """Waits until everything that was produced is applied; raises where that is not so."""
    grown(session, sum(feed.produced for feed in feeds))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """The peak, then the shares of it."""
    load = os.getloadavg()[0]
    events = generate(options.baselines, options.data, options.records // 2, options.records // 2)
    with tempfile.TemporaryDirectory(prefix="igb-") as scratch:
        services = Services(Path(scratch) / "services", CATALOGUE, ROOT / ".services" / "artifacts")
        half = options.records // 2
        bench = Bench(services, options.baselines, {"entity": half, "relationship": half}, "redis")
        try:
            peak = options.peak or measured_peak(bench, events, options)
            found = {
                "pre_storage": pre_storage(bench, options, SHARES["pre_storage"] * peak),
                "visible": visible(bench, options, SHARES["visible"] * peak),
                "burst": burst(bench, options, SHARES["burst"] * peak),
            }
        finally:
            services.stop_all(keep_data=False)
    return {"bench": "stream_latency", "store": options.store, "peak_per_s": round(peak), **found,
            "seconds": options.seconds, "poll_ms": options.poll_ms, "seed": options.seed, "load_before": load,
            "machine": machine(), "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "ratios": {f"{options.store}, healthy p95, burst / before": found["burst"]["p95_ratio"],
                       f"{options.store}, memory, burst's last third / first": found["burst"]["memory_ratio"]},
            }  # fmt: skip


def measured_peak(bench: Bench, events: Path, options: argparse.Namespace) -> float:
    """Records a second over a whole run, of the last of several."""
    bench.fill(events, 1)
    for turn in range(options.warm + 1):
        rates = bench.ours(options.store, 1)
        print(f"{options.store}, peak, run {turn + 1}: { ({k: round(v) for k, v in rates.items()}) }", flush=True)
    return sum(bench.counts.values()) / sum(bench.counts[kind] / rate for kind, rate in rates.items())


def pre_storage(bench: Bench, options: argparse.Namespace, rate: float) -> dict[str, float]:
    """p95 of each wait before the store, milliseconds, and both together."""
    with installation(**bench.settings(options.store)) as session:
        feed = Feed(session, bench.brokers, 0, options)
        feed.run(feed.prepared(rate, options.warm_s), rate)
        todo = feed.prepared(rate, options.seconds)
        before = stage_counts(session)
        feed.run(todo, rate)
        after = stage_counts(session)
        settled(session, [feed])
    found = {f"{stage}_p95_ms": 1e3 * quantile(0.95, before[stage], after[stage]) for stage in STAGES}
    return {"rate_per_s": round(rate), **found, "together_p95_ms": sum(found.values())}


def visible(bench: Bench, options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Milliseconds until records show."""
    with installation(**bench.settings(options.store)) as session:
        feed = Feed(session, bench.brokers, 0, options)
        feed.run(feed.prepared(rate, options.warm_s), rate)
        seen = feed.run(feed.prepared(rate, options.seconds), rate)
        settled(session, [feed])
    return {"rate_per_s": round(rate), **percentiles(seen), "max_ms": round(max(seen) * 1e3, 1)}


def burst(bench: Bench, options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Times of the healthy tenant before and in another one's burst, and memory."""
    with installation(**bench.settings(options.store)) as session:
        healthy, other = (Feed(session, bench.brokers, number, options) for number in (0, 1))
        for feed in (healthy, other):
            feed.run(feed.prepared(rate, options.warm_s), rate)
        calm, loud = rate, BURST * rate
        parts = [(calm, options.seconds), (loud, options.burst_s)]
        work = [(healthy.prepared(rate, s), other.prepared(loudness, s), loudness) for loudness, s in parts]
        times = []
        with ThreadPoolExecutor(1) as beside, Memory(session.node.pid) as memory:
            for mine, theirs, loudness in work:
                at = len(memory.samples)
                running = beside.submit(other.run, theirs, loudness)
                times.append(percentiles(healthy.run(mine, rate)))
                running.result()
                sampled = memory.samples[at:]
        settled(session, [healthy, other])
    third = max(1, len(sampled) // 3)
    first, last = (sum(part) / len(part) for part in (sampled[:third], sampled[-third:]))
    return {"healthy_per_s": round(rate), "burst_per_s": round(loud), "before": times[0], "during": times[1],
            "p95_ratio": times[1]["p95_ms"] / times[0]["p95_ms"], "memory_first_mib": round(first),
            "memory_last_mib": round(last), "memory_ratio": last / first}  # fmt: skip


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("falkordb", "neo4j"), default="falkordb")
    parser.add_argument("--records", type=int, default=200_000, help="of the run that finds the peak")
    parser.add_argument("--warm", type=int, default=1, help="such runs before the one that counts")
    parser.add_argument("--peak", type=float, default=0.0, help="records a second, instead of measuring them")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each steady rate")
    parser.add_argument("--burst-s", type=float, default=60.0)
    parser.add_argument("--warm-s", type=float, default=5.0, help="seconds at first that do not count")
    parser.add_argument("--poll-ms", type=float, default=20.0, help="between two looks at a record that does not show")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="longest wait for one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baselines", type=Path, default=BASELINES)
    parser.add_argument("--data", type=Path, default=ROOT / "bench" / "data")
    options = parser.parse_args()
    try:
        check_installed(options.baselines)
        found = compare(options)
    except NotInstallable as error:
        print(f"skipped: {error}")
        print(json.dumps({"bench": "stream_latency", "skipped": str(error)}))
        return 0
    for part in SHARES:
        print(part, json.dumps(found[part]))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
