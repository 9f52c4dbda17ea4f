"""A topic read at a share of the peak: how long records wait for the store, when they show, and what a burst does.

    python bench/stream_latency.py [--store falkordb|neo4j] [--turns 3] [--seconds 15] [--asked-s 40]
                                   [--bursts 3] [--burst-s 60]

The peak is how many records a second a shard gets while more than it can take are produced, from a quarter of that time
to its end, on the same machine as all that follows: producer, broker and system share its cores. (What a topic gives
that was filled before is `streams.py`'s figure, and higher.) A machine may be twice as fast a quarter of an hour later,
so each share is one of a peak that was measured just before, in the same installation: one shard, its defaults. In
--turns turns, of which the medians count, once what came before is applied. (A turn before them warms the servers: one
that was just started has yet to compile what is written, and what is asked.)

- at 80% of the peak: the time from polled to in the log, its position kept (`intake`); from the moment of appending
  until its rows are ready to be written (`ready`); from polled until then (`pre_storage`); from appending until they
  are sent to the store (`queued`): these three of a batch's oldest record. From the product's own `stage_seconds`,
  batches as they are; a quantile lies within one of its buckets, straight between their bounds.
  Beside it, whether the system kept up: what was applied of what was produced. Nobody asks, as while the peak was
  measured: questions cost a share of it.
- at 50%: from the moment at which a record was due to be produced to the API's answer that shows it. --probes of the
  relationships of a second are asked for, each every --poll-ms, or after a tenth of what it waited, from some moment of
  that time on until it shows: more would measure what asking costs.

Then, in a fresh installation:

- burst: two tenants, a topic each, 5% of the peak each for --asked-s; then one of them ten times as much (--burst-s).
  The other one's times until its records show, during it against before, and the memory (PSS) of all processes of the
  system. That --bursts times, of which the medians count: of the hundred or so probes of one, six decide its p95.
  What came first has that rate already: a server that has just been started has yet to compile what a burst runs.

At the end every record that was produced has been applied once, or the run fails. Last line: JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.graph import machine  # noqa: E402 - a script has to find the packages first
from bench.installation import CLI, installation, percentiles  # noqa: E402
from bench.latency import Batch, Ours, batches  # noqa: E402
from bench.memory import Memory  # noqa: E402
from bench.streams import CATALOGUE, PACKAGES, Parts, grown, records_in  # noqa: E402
from services.runner import Services  # noqa: E402
from services.spec import NotInstallable  # noqa: E402

BATCH = 100
LINGER_S = 0.01
"""Batches that are due within it are sent together, as producers do: the first of them waits for the last."""
STAGES = ("intake", "ready", "pre_storage", "queued")
PRE_STORAGE, VISIBLE, HEALTHY = 0.8, 0.5, 0.05
"""Shares of the peak."""
BURST, FLOOD = 10, 1.5
"""Times as much: a tenant's burst, and what is produced of a peak that is known about."""
SAMPLE_S = 0.2
WARM_S = {"falkordb": 5.0, "neo4j": 60.0}
"""A Neo4j that got another database compiles what it runs anew, for more than half a minute, on half a core."""


class Feed:
    """One tenant's topic, produced to at a steady rate, and the times until its probes show.

    Args:
        number: of the tenant: `t0`, …; no two feeds of an installation have the same.
    """

    _topics = itertools.count()

    def __init__(self, session: Any, brokers: str, number: int, options: argparse.Namespace) -> None:
        from serve_apps.tokens import TokenAuthority

        self.tenant, self._brokers, self._seed = f"t{number}", brokers, options.seed
        self.name = f"feed-{next(self._topics)}"  # one broker is behind every installation: a topic of its own
        self._made, self._probes_per_s = 0, options.probes
        asyncio.run(_create_topic(brokers, self.name))
        words = ["streams", "add", self.name, "--topic", self.name, "--tenant", self.tenant, "--json"]
        environment = {**session.environment, "PYTHONPATH": str(ROOT)}
        subprocess.run([*CLI, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        token = TokenAuthority.open(session.state_dir).issue(self.tenant, ["read"], [], 3600, "bench")
        self._side = Ours(session.node.api, token, options.poll_ms / 1e3, options.timeout_s, patient=True)
        self.produced = 0

    def prepared(self, rate: float, seconds: float) -> list[tuple[Batch, list[bytes]]]:
        """Records of so many seconds, which no other call gives. Not timed."""
        count = max(1, round(rate * seconds / BATCH))
        made = batches(count, BATCH, self._seed, self._made)
        self._made += count
        for event in (event for batch in made for event in batch.events):
            event |= {"tenant": self.tenant, "source": self.name}
        lines = [[json.dumps(event).encode() for event in batch.events] for batch in made]
        return [(batch._replace(events=[]), texts) for batch, texts in zip(made, lines, strict=True)]

    def run(self, todo: list[tuple[Batch, list[bytes]]], rate: float, asking: bool = True) -> list[float]:
        """Produces at the rate; seconds until each probe shows that is asked for. Blocks."""
        every_s = BATCH / rate
        step = max(1, round(1 / (every_s * self._probes_per_s))) if asking else len(todo) + 1
        with ThreadPoolExecutor(8) as readers:
            asked = asyncio.run(self._produce(todo, every_s, step, readers))
            return [one.result() for one in asked]

    async def _produce(
        self, todo: list[tuple[Batch, list[bytes]]], every_s: float, step: int, readers: ThreadPoolExecutor
    ) -> list[Future[float]]:
        from aiokafka import AIOKafkaProducer

        asked = []
        async with AIOKafkaProducer(
            bootstrap_servers=self._brokers, enable_idempotence=True, max_batch_size=1 << 20
        ) as producer:
            start = time.perf_counter() + 0.1
            together = max(1, round(LINGER_S / every_s))
            for first in range(0, len(todo), together):
                group = todo[first : first + together]
                await asyncio.sleep(max(0.0, start + (first + len(group) - 1) * every_s - time.perf_counter()))
                lines = [line for _, texts in group for line in texts]
                await producer.send_batch(_builder(producer, lines), self.name, partition=0)
                self.produced += len(lines)
                for number, (batch, _) in enumerate(group, first):
                    if (number + 1) % step == 0:
                        asked.append(readers.submit(self._side.seen_s, batch, start + number * every_s))
        return asked


def _builder(producer: Any, lines: list[bytes]) -> Any:
    """A batch as it is sent."""
    builder = producer.create_batch()
    for line in lines:
        if builder.append(key=None, value=line, timestamp=None) is None:
            raise SystemExit("a batch of records is larger than the producer sends at once")
    return builder


async def _create_topic(brokers: str, name: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, 1, 1)])
        if any(code for _, code, *_ in answer.topic_errors):
            raise SystemExit(f"{name} was not made: {answer}")
    finally:
        await admin.close()


def stage_counts(session: Any, before: dict[str, dict[float, float]] | None = None) -> dict[str, dict[float, float]]:
    """What the product's `stage_seconds` counts now: by stage, batches by their bucket's upper bound in seconds.

    Args:
        before: what it counted then. An actor that is asked while both cores are busy may not answer in time, and its
            stages are left out: then this asks again.
    """
    for _ in range(10):
        found = _counted(session)
        if all(sum(found[stage].values()) >= sum(had.values()) for stage, had in (before or {}).items()):
            return found
    raise SystemExit("an actor does not tell its metrics")


def _counted(session: Any) -> dict[str, dict[float, float]]:
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
    if not counts or not counts[-1]:
        raise SystemExit("a stage was not counted at all")
    rank, low, below = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= rank and count > below:
            return bound if bound == float("inf") else low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return low


def settled(session: Any, feeds: list[Feed]) -> None:
    """Waits until everything that was produced is applied; raises where that is not so."""
    grown(session, sum(feed.produced for feed in feeds))


def warm(rates: dict[Feed, float], session: Any, options: argparse.Namespace, asking: bool = True) -> None:
    """A first part that does not count, until all of it is applied: nobody is behind when the rest begins."""
    for feed, rate in rates.items():
        feed.run(feed.prepared(rate, options.warm_s), rate, asking)
    settled(session, list(rates))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Turns of the peak and its shares, then a burst."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="igb-") as scratch:
        services = Services(Path(scratch) / "services", CATALOGUE, ROOT / ".services" / "artifacts")
        parts = Parts(services, "redis")
        try:
            found = steady(parts, options)
            print(json.dumps(found), flush=True)
            found["burst"] = burst(parts, options, HEALTHY * found["peak_per_s"])
            print("burst", json.dumps(found["burst"]), flush=True)
        finally:
            services.stop_all(keep_data=False)
    return {"bench": "stream_latency", "store": options.store, **found, "turns": options.turns,
            "bursts": options.bursts, "seconds": options.seconds, "asked_s": options.asked_s,
            "probes_per_s": options.probes, "poll_ms": options.poll_ms, "seed": options.seed, "load_before": load,
            "machine": machine(), "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "ratios": {f"{options.store}, healthy p95, burst / before": found["burst"]["p95_ratio"],
                       f"{options.store}, memory, burst's last third / first": found["burst"]["memory_ratio"]},
            }  # fmt: skip


def steady(parts: Parts, options: argparse.Namespace) -> dict[str, Any]:
    """Medians over the turns of the peak, of the waits before the store and of what is visible."""
    peaks, before, visible = list[float](), list[dict[str, Any]](), list[dict[str, Any]]()
    with installation(**parts.settings(options.store)) as session:
        feed, flood = Feed(session, parts.brokers, 0, options), options.flood
        warm({feed: flood / 4}, session, options, asking=False)
        for turn in range(options.turns + 1):
            peaks.append(peak := flooded(session, feed, flood, options.seconds))
            flood = FLOOD * peak
            before.append(pre_storage(session, feed, PRE_STORAGE * peak, options.seconds))
            peaks.append(peak := flooded(session, feed, flood, options.seconds))
            visible.append(shown(session, feed, VISIBLE * peak, options.asked_s))
            told = {"peaks": [round(one) for one in peaks[-2:]], **before[-1], "visible": visible[-1]}
            print(f"{options.store}, turn {turn or 'that warms'}: {json.dumps(told)}", flush=True)
    found = {"pre_storage": medians(before[1:]), "visible": medians(visible[1:])}
    return {"peak_per_s": round(median(peaks[2:])), **found}


def medians(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure."""
    return {name: median(turn[name] for turn in turns) for name in turns[0]}


def flooded(session: Any, feed: Feed, flood: float, seconds: float) -> float:
    """Records a second that the shard gets of more than it can take."""
    seen: list[tuple[float, int, int]] = []
    todo = feed.prepared(flood, seconds)
    with ThreadPoolExecutor(1) as beside:
        began = time.perf_counter()
        running = beside.submit(feed.run, todo, flood, False)
        over, taken, made = False, 0.0, 0.0
        while not (over and taken):  # a short run on a slow machine may be over before anything is there
            over = running.done()
            seen.append((time.perf_counter(), records_in(session), feed.produced))
            taken, made = rates(seen, began)
            time.sleep(SAMPLE_S)
        running.result()
    settled(session, [feed])
    if taken > 0.9 * made:
        print(f"{taken:.0f} of {made:.0f} a second: the shard may take more (--flood)", flush=True)
    return taken


def rates(seen: list[tuple[float, int, int]], began: float) -> tuple[float, float]:
    """Records a second that were taken and produced, after the first quarter of what was looked at."""
    later = [row for row in seen[:-1] if row[0] > began + (seen[-1][0] - began) / 4]
    took_s, taken, made = (last - first for first, last in zip((later or seen)[0], seen[-1], strict=True))
    return (taken / took_s, made / took_s) if took_s else (0.0, 0.0)


def pre_storage(session: Any, feed: Feed, rate: float, seconds: float) -> dict[str, Any]:
    """Milliseconds of each wait before the store, and whether the system kept up."""
    todo = feed.prepared(rate, seconds)
    before, had, made = stage_counts(session), records_in(session), feed.produced
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(feed.run, todo, rate, False)
        time.sleep(max(0.0, began + seconds - time.perf_counter()))
        after, has, by_then = stage_counts(session, before), records_in(session), feed.produced
        took_s = time.perf_counter() - began
        running.result()
    settled(session, [feed])
    waited = {f"{stage}_p95_ms": round(1e3 * quantile(0.95, before[stage], after[stage]), 1) for stage in STAGES}
    return {"rate_per_s": round(rate), "produced_per_s": round((by_then - made) / took_s),
            "applied_of_produced": round((has - had) / (by_then - made), 3), **waited}  # fmt: skip


def shown(session: Any, feed: Feed, rate: float, seconds: float) -> dict[str, Any]:
    """Milliseconds until records show."""
    seen = feed.run(feed.prepared(rate, seconds), rate)
    settled(session, [feed])
    return {"rate_per_s": round(rate), **percentiles(seen), "max_ms": round(max(seen) * 1e3, 1)}


def burst(parts: Parts, options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Medians over the bursts of the healthy tenant's times before and during them, and of memory."""
    with installation(**parts.settings(options.store)) as session:
        feeds = [Feed(session, parts.brokers, number, options) for number in (0, 1)]
        warm({feeds[0]: rate, feeds[1]: BURST * rate}, session, options)
        found = []
        with Memory(session.node.pid) as memory:
            for number in range(options.bursts):
                found.append(one_burst(session, feeds, rate, memory, options))
                print(f"{options.store}, burst {number + 1}: {json.dumps(found[-1])}", flush=True)
    before, during, sizes = (medians([one[of] for one in found]) for of in ("before", "during", "memory"))
    return {"healthy_per_s": round(rate), "burst_per_s": round(BURST * rate), "before": before, "during": during,
            "p95_ratio": during["p95_ms"] / before["p95_ms"], "memory_first_mib": sizes["first_mib"],
            "memory_last_mib": sizes["last_mib"], "memory_ratio": sizes["last_mib"] / sizes["first_mib"]}  # fmt: skip


def one_burst(
    session: Any, feeds: list[Feed], rate: float, memory: Memory, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Times of the healthy tenant, the first feed's, before and in the other one's burst; and memory in the burst."""
    healthy, other = feeds
    phases = {"before": (rate, options.asked_s), "during": (BURST * rate, options.burst_s)}
    work = [(of, healthy.prepared(rate, s), other.prepared(theirs, s), theirs) for of, (theirs, s) in phases.items()]
    found, sampled = dict[str, dict[str, Any]](), list[float]()
    with ThreadPoolExecutor(1) as beside:
        for of, mine, theirs, loudness in work:
            at = len(memory.samples)
            running = beside.submit(other.run, theirs, loudness, False)
            found[of] = percentiles(healthy.run(mine, rate))
            running.result()
            sampled = memory.samples[at:]
    settled(session, feeds)
    third = max(1, len(sampled) // 3)
    first, last = (round(sum(part) / len(part)) for part in (sampled[:third], sampled[-third:]))
    return found | {"memory": {"first_mib": first, "last_mib": last}}


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("falkordb", "neo4j"), default="falkordb")
    parser.add_argument("--flood", type=float, default=50_000.0, help="records a second, more than it can take")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each peak and of 80%% of it")
    parser.add_argument("--asked-s", type=float, default=40.0, help="at 50%% of it, and before the burst")
    parser.add_argument("--bursts", type=int, default=3)
    parser.add_argument("--burst-s", type=float, default=60.0)
    parser.add_argument("--warm-s", type=float, help="seconds of it first that do not count [falkordb: 5, neo4j: 60]")
    parser.add_argument("--probes", type=float, default=3.0, help="that are asked for, a second")
    parser.add_argument("--poll-ms", type=float, default=50.0, help="between two looks at a record that does not show")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="longest wait for one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.warm_s = WARM_S[options.store] if options.warm_s is None else options.warm_s
    try:
        found = compare(options)
    except NotInstallable as error:
        print(f"skipped: {error}")
        print(json.dumps({"bench": "stream_latency", "skipped": str(error)}))
        return 0
    print(json.dumps(found, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
