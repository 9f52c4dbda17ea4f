"""Shards that answer as a function says, behind a `FanOut`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from cluster.config import QuerySettings
from cluster.databases import FALKORDB, NEO4J
from cluster.query.cypher import probe
from cluster.query.fanout import FanOut, Topology
from cluster.query.hot import Rows, Shard
from cluster.routing import ShardState
from cluster.shard_map import initial

SETTINGS = QuerySettings(deadline_s=3.0, breaker_failures=3, breaker_open_s=0.4, ongoing_requests=6)
NAMES = ("shard-0", "shard-1", "shard-2")
MAP = initial(NAMES, 6)
BUCKET = MAP.buckets_of("shard-1")[0]


class Fake:
    """A directory and the shards behind it: each answers as its function says."""

    def __init__(self, **behaviour: Callable[[], Rows]) -> None:
        self.behaviour = {name: lambda name=name: [[name]] for name in NAMES} | {
            name.replace("_", "-"): does for name, does in behaviour.items()
        }
        self.calls: list[str] = []
        self.pings: list[str] = []
        self.silent: set[str] = set()
        self.in_neo4j: set[str] = set()
        self.reloads = 0
        self.epoch = 1
        self.replicas: dict[str, ShardState] = {}
        self.map, self.next_map = MAP, MAP

    def topology(self) -> Topology:
        states = {name: ShardState(name, None, "active", self.epoch) for name in NAMES} | self.replicas
        return Topology(self.map, states)

    def reload(self) -> None:
        self.reloads += 1
        self.epoch += 1
        self.map = self.next_map

    def connect(self, shard: str) -> Any:
        fake = self

        class Reader:
            dialect = NEO4J if shard in fake.in_neo4j else FALKORDB

            def read_all(self, queries: Sequence[Any], timeout_s: float | None = None) -> list[Rows]:
                fake.calls += [shard] * len(queries)
                return [fake.behaviour[shard]() for _ in queries]

            def answers(self) -> bool:
                fake.pings.append(shard)
                return shard not in fake.silent

            def close(self) -> None: ...

        return Reader()


def ask(shard: Shard) -> Any:
    return shard.read(probe())[0][0]


def run(fake: Fake, question: Callable[[FanOut], Any], settings: QuerySettings = SETTINGS) -> Any:
    async def inside() -> Any:
        fanout = FanOut(fake, fake.connect, settings, seed=1)
        try:
            return await question(fanout)
        finally:
            fanout.close()

    return asyncio.run(inside())


def raising(error: Exception) -> Callable[[], Rows]:
    def fail() -> Rows:
        raise error

    return fail
