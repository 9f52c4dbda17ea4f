"""Constraints and indexes of a Neo4j shard: made where they are missing, and waited for until they are online.

A key's uniqueness constraint is its index, and what lets two writers `MERGE` it at once.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any, NamedTuple

from cluster import dialect
from cluster.databases import NEO4J
from cluster.errors import Corrupt, Unavailable
from cluster.stores.graph import QueryFailed
from cluster.stores.neo4j_client import Neo4jClient
from cluster.stores.neo4j_errors import IsThere

KEYED = (
    *dialect.NODE_LABELS, "_Case", "_Count", "_Shard", "_Cursor", "_Floor", "_Priority",
)  # fmt: skip
"""Labels of nodes that are found, and made, by `_k` alone."""
_INDEXES = (
    "SHOW INDEXES YIELD entityType, labelsOrTypes, properties, state, owningConstraint "
    "WHERE size(labelsOrTypes) = 1 AND size(properties) = 1 "
    "RETURN entityType, labelsOrTypes[0], properties[0], state, owningConstraint IS NOT NULL"
)
_AWAIT = "CALL db.awaitIndexes($seconds)"


class Index(NamedTuple):
    """An index of one label or type over one property."""

    entity: str
    """NODE or RELATIONSHIP."""
    name: str
    property: str
    unique: bool


LABELS = frozenset(
    {Index("NODE", label, "_k", True) for label in KEYED}
    | {Index("NODE", label, name, False) for label, name in dialect.indexes(NEO4J) if name != "_k"}
)


def index_of(type_: str) -> Index:
    """The index by which relationships of a type are found."""
    return Index("RELATIONSHIP", type_, "_k", False)


def _create(index: Index) -> str:
    if index.unique:
        return f"CREATE CONSTRAINT IF NOT EXISTS FOR (x:`{index.name}`) REQUIRE x.`{index.property}` IS UNIQUE"
    pattern = f"(x:`{index.name}`)" if index.entity == "NODE" else f"()-[x:`{index.name}`]-()"
    return f"CREATE INDEX IF NOT EXISTS FOR {pattern} ON (x.`{index.property}`)"


def _there(client: Neo4jClient) -> dict[Index, str]:
    """State of each index that is there."""
    found: dict[Index, str] = {}
    rows: list[list[Any]] = client.read(_INDEXES, {})
    for entity, name, property, state, unique in rows:
        found[Index(entity, name, property, unique)] = state
    return found


def apply(client: Neo4jClient, wanted: Collection[Index], wait_s: float) -> frozenset[Index]:
    """Make what is missing, in its order, and wait until it is online; returns everything that is. Safe to call twice.

    Args:
        wait_s: longest wait; on a large graph the first time takes minutes.

    Raises:
        Unavailable: they are not online in time; they go on being filled. Corrupt: one has failed, or stored nodes
            break a constraint.
    """
    states = _there(client)
    missing = [index for index in wanted if index not in states]
    for index in missing:
        with suppress(IsThere):
            client.write(_create(index), {}, wait_s)
    if missing or any(states[index] != "ONLINE" for index in wanted):
        _wait(client, wait_s)
        states = _there(client)
    late = sorted(index.name for index in wanted if states.get(index) != "ONLINE")
    if any(states.get(index) == "FAILED" for index in wanted):
        raise Corrupt(f"indexes of {', '.join(late)} have failed; see the server's log, drop them and start again")
    if late:
        raise Unavailable(f"indexes of {', '.join(late)} are not online yet; try again later", 5.0)
    return frozenset(index for index, state in states.items() if state == "ONLINE")


def _wait(client: Neo4jClient, wait_s: float) -> None:
    until_s = max(1, int(wait_s))
    try:
        client.read(_AWAIT, {"seconds": until_s}, until_s)
    except QueryFailed:
        return  # the server says so when the time is over or one has failed: their states tell which
