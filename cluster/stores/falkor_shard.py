"""A hot shard in FalkorDB: rows are text in the query's header."""

from __future__ import annotations

from collections.abc import Sequence

from cluster import dialect
from cluster.batch import Frame
from cluster.databases import FALKORDB
from cluster.model import Record
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_rows import pages
from cluster.stores.falkor_text import literal, row
from cluster.stores.shard import StoredShard
from cluster.stores.shard_rows import Page


class FalkorShard(StoredShard):
    """See `graph.GraphShard`."""

    _client: FalkorClient

    def __init__(self, client: FalkorClient, write_rows: int = 1_000) -> None:
        super().__init__(client, write_rows)

    def _index_labels(self) -> None:
        for label, name in dialect.indexes(FALKORDB):
            self._client.create_index(f"(x:{label})", name)

    def _create_indexes(self, types: Sequence[str]) -> None:
        for type_ in types:
            self._client.create_index(f"()-[x:`{type_}`]-()", "_k")

    def encode(self, rows: Frame) -> list[Page]:
        return pages(rows, self._write_rows)

    def _bodies(self, first: str, second: str) -> str:
        return f"{first},{second}"

    def _row(self, record: Record, registers: str | None) -> str:
        return row(record, registers)

    def _key(self, key: str) -> str:
        return literal(key)

    def _joined(self, items: Sequence[str]) -> str:
        return ",".join(items)
