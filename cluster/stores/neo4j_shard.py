"""A hot shard in Neo4j: rows are parameters, indexes are waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.batch import Frame
from cluster.model import Record
from cluster.stores import neo4j_schema
from cluster.stores.neo4j_client import Neo4jClient
from cluster.stores.neo4j_rows import Row, pages, row
from cluster.stores.shard import StoredShard
from cluster.stores.shard_rows import Page

INDEX_WAIT_S = 300.0


class Neo4jShard(StoredShard):
    """See `graph.GraphShard`.

    Args:
        index_wait_s: longest wait for an index that is being filled.
    """

    _client: Neo4jClient

    def __init__(self, client: Neo4jClient, write_rows: int = 1_000, index_wait_s: float = INDEX_WAIT_S) -> None:
        super().__init__(client, write_rows)
        self._index_wait_s = index_wait_s

    @property
    def lanes(self) -> int:
        return self._client.lanes

    def _index_labels(self) -> None:
        online = neo4j_schema.apply(self._client, neo4j_schema.LABELS, self._index_wait_s)
        self._indexed |= {index.name for index in online if index == neo4j_schema.index_of(index.name)}

    def _create_indexes(self, types: Sequence[str]) -> None:
        neo4j_schema.apply(self._client, list(map(neo4j_schema.index_of, types)), self._index_wait_s)

    def encode(self, rows: Frame) -> list[Page]:
        return pages(rows, self._write_rows)

    def _bodies(self, first: list[Row], second: list[Row]) -> list[Row]:
        return first + second

    def _row(self, record: Record, registers: str | None) -> Row:
        return row(record, registers)

    def _key(self, key: str) -> str:
        return key

    def _joined(self, items: Sequence[Any]) -> Sequence[Any]:
        return items
