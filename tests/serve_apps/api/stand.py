"""The API over two real shards and small services of this test's own; requests go through httpx, in process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from actors.push import PushAnswer
from cluster.config import Settings
from cluster.errors import NotFound
from cluster.model import Record
from cluster.query.cursor import Cursors
from cluster.query.fanout import FanOut, Topology
from cluster.routing import Deadline, ShardState
from cluster.shard_map import ShardMap, initial
from serve_apps.api.app import build
from serve_apps.api.services import Json, Services
from serve_apps.tokens import TokenAuthority
from tests.cluster.query.facts import EPOCH, Graph
from tests.graph_stores import GraphStore

NAMES = ("shard-0", "shard-1")


@dataclass
class Gateway:
    """Keeps what was pushed; `answer` says what to say."""

    answer: Any = None
    pushed: list[tuple[str, tuple[str, ...], bytes, str, str | None]] = field(default_factory=list)

    def push(
        self, tenant: str, sources: Sequence[str], body: bytes, content_type: str, idempotency_key: str | None
    ) -> PushAnswer:
        self.pushed.append((tenant, tuple(sources), body, content_type, idempotency_key))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or PushAnswer(1, {3: 7})


@dataclass
class Parts:
    """Every other service, with one thing of each tenant."""

    reached_at: int = 0
    ready_parts: Mapping[str, str] = field(default_factory=lambda: {"shard-0": "ok"})
    asked: list[Any] = field(default_factory=list)

    async def reached(self, positions: Mapping[int, int], deadline: Deadline) -> bool:
        self.asked.append(dict(positions))
        return all(entry <= self.reached_at for entry in positions.values())

    def top(self, tenant: str, name: str, case: str | None, limit: int) -> Json:
        if name != "pagerank" or tenant != "a":
            raise NotFound("no such overlay")
        return {"overlay": name, "asOf": "2026-01-01T00:00:00Z", "case": case, "items": [{"tenant": tenant}][:limit]}

    def snapshots(self, tenant: str) -> list[Json]:
        return [{"id": 1, "of": tenant}]

    def shards(self) -> list[Json]:
        return [{"id": name} for name in NAMES]

    def sources(self, tenant: str) -> list[Json]:
        return [{"name": f"feed of {tenant}"}]

    def page(self, tenant: str, limit: int, after: str | None) -> tuple[list[Json], str | None]:
        return [{"id": "1", "of": tenant, "after": after}][:limit], None

    def letter(self, tenant: str, id: str) -> Json:
        return {"id": id, "of": tenant, "held": {"findings": []}}

    def replay(self, tenant: str, actor: str, ids: Sequence[str] | None, dry_run: bool, limit: int) -> Json:
        return {"of": tenant, "by": actor, "ids": ids, "dryRun": dry_run, "limit": limit}

    def audit(self, tenant: str) -> Json:
        return {"of": tenant, "balanced": True}

    def ready(self) -> Mapping[str, str]:
        return self.ready_parts

    def exposition(self) -> bytes:
        return b"intelgraph_acked 1\n"


class Stand:
    """Two shards, their directory, and the application."""

    def __init__(self, stores: Sequence[GraphStore], state_dir: Path, **settings: Any) -> None:
        self.map: ShardMap = initial(NAMES, 8)
        self.settings = Settings.model_validate({"state_dir": state_dir, **settings})
        self.stores = dict(zip(NAMES, stores, strict=True))
        self.names = {name: store.fresh() for name, store in self.stores.items()}
        self.graphs = {name: Graph(store, self.names[name]) for name, store in self.stores.items()}
        self.down: set[str] = set()
        self.epoch = EPOCH
        self.gateway, self.parts = Gateway(), Parts()
        self.tokens = TokenAuthority.open(state_dir)
        for name, graph in self.graphs.items():
            graph.shard.own(EPOCH, self.map.buckets_of(name))
        parts = self.parts
        self.fanout = FanOut(self, self.connect, self.settings.query)
        self.services = Services(
            self.settings, self.tokens, Cursors(b"k" * 32), self.fanout, parts, parts, applied=parts, push=self.gateway,
            overlays=parts, snapshots=parts, shards=parts, sources=parts, dead_letters=parts, conservation=parts,
        )  # fmt: skip
        self.app = build(self.services)

    def topology(self) -> Topology:
        states = {n: ShardState(n, None, "down" if n in self.down else "active", self.epoch) for n in NAMES}
        return Topology(self.map, states)

    def reload(self) -> None:
        self.epoch = EPOCH

    def connect(self, shard: str) -> Any:
        return self.stores[shard].client(self.names[shard], timeout_s=5.0)

    def write(self, records: Sequence[Record]) -> None:
        for name, graph in self.graphs.items():
            graph.write([r for r in records if self.map.owners[r.bucket] == name])

    def hashes(self) -> list[Any]:
        """Everything that is stored, to see that nothing changed."""
        query = "MATCH (x) RETURN properties(x)"
        return [sorted(map(repr, graph.client.read(query, {}))) for graph in self.graphs.values()]

    def client(
        self, tenant: str | None = "a", scopes: Sequence[str] = ("read", "ingest", "operate")
    ) -> httpx.AsyncClient:
        headers = {}
        if tenant is not None:
            headers["authorization"] = f"Bearer {self.tokens.issue(tenant, scopes, ['feed'])}"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)

    def close(self) -> None:
        self.fanout.close()
        for graph in self.graphs.values():
            graph.close()
