"""Graph databases for tests that hold for each of them: empty graphs on the run's servers, and shards on them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol

import neo4j
from pydantic import SecretStr

from cluster.embedded import Running, operator
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.neo4j_client import Neo4jClient
from cluster.stores.neo4j_shard import Neo4jShard
from cluster.stores.shard import StoredShard


class GraphStore(Protocol):
    """One server of a graph database."""

    name: str

    def fresh(self) -> str:
        """The name of an empty graph. Where a server has one only, it is emptied."""

    def client(self, graph: str, mixin: type | None = None, timeout_s: float = 10.0) -> Any:
        """A connection to a graph, of a class that derives from `mixin`, too."""

    def shard(self, client: Any, write_rows: int = 1_000) -> StoredShard:
        """A shard over a connection."""

    def drop(self, graph: str) -> None:
        """Remove a graph, whatever connections there are to it."""


def _with(mixin: type | None, client: type) -> Any:
    return type(f"{mixin.__name__}{client.__name__}", (mixin, client), {}) if mixin else client


@dataclass
class FalkorStore:
    """See `GraphStore`: any number of graphs."""

    server: Running
    prefix: str
    name: str = "falkordb"

    def fresh(self) -> str:
        return f"{self.prefix}-{uuid.uuid4().hex[:6]}"

    def client(self, graph: str, mixin: type | None = None, timeout_s: float = 10.0) -> Any:
        made = _with(mixin, FalkorClient)
        return made(f"unix://{self.server.socket}", self.server.password, timeout_s=timeout_s, graph=graph)

    def shard(self, client: Any, write_rows: int = 1_000) -> FalkorShard:
        return FalkorShard(client, write_rows)

    def drop(self, graph: str) -> None:
        """On the server's main thread: freeing a graph beside the making of another crashes FalkorDB."""
        with operator(self.server.spec) as server:
            server.delete(graph)


@dataclass
class Neo4jStore:
    """See `GraphStore`: the one graph of a Community server; what was made last is what there is."""

    uri: str
    user: str
    password: SecretStr
    name: str = "neo4j"
    database: str = field(default="neo4j")

    def fresh(self) -> str:
        self.drop(self.database)
        return self.database

    def client(self, graph: str, mixin: type | None = None, timeout_s: float = 10.0) -> Any:
        return _with(mixin, Neo4jClient)(
            self.uri, self.user, self.password, timeout_s=timeout_s, database=graph, lanes=2
        )

    def shard(self, client: Any, write_rows: int = 1_000) -> Neo4jShard:
        return Neo4jShard(client, write_rows)

    def drop(self, graph: str) -> None:
        with self.driver() as driver, driver.session(database=graph) as session:
            session.run("MATCH (n) DETACH DELETE n").consume()

    def driver(self) -> neo4j.Driver:
        """The official driver, for what our client does not do."""
        return neo4j.GraphDatabase.driver(self.uri, auth=(self.user, self.password.get_secret_value()))
