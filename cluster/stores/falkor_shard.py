"""A hot shard in FalkorDB: rows are text in the query's header."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from cluster import dialect
from cluster.batch import Frame
from cluster.databases import FALKORDB
from cluster.errors import Overloaded, TooCostly
from cluster.model import Record
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_rows import pages
from cluster.stores.falkor_text import literal, row
from cluster.stores.graph import CursorMove, Fence, WriteCounts
from cluster.stores.shard import StoredShard
from cluster.stores.shard_rows import Page

_MERGED_AFTER = 4_000
"""Applied records after which the server's matrices are merged."""
_TYPES_AT_ONCE = 50
"""Relationship types at a time, those first that wait longest: a source may have thousands."""


def _through_matrices(types: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """Queries through the matrices of labels, of ends, and of relationships of these types, from a node without any."""
    ways = ["OPTIONAL MATCH (m)-->(x) RETURN labels(m), count(x)"]
    ways += [f"OPTIONAL MATCH (m)-[x:`{name}`]->() RETURN count(x)" for name in sorted(types)]
    return [(f"MATCH (m:_Shard {{_k: 'shard'}}) {way}", {}) for way in ways]


class FalkorShard(StoredShard):
    """See `graph.GraphShard`.

    FalkorDB keeps what was added to a matrix beside it, sorts that anew at every write, and merges it into the matrix
    only when a query goes through the matrix (or at a save), if there are some thousands by then. Writes find what they
    want by indexes: with nobody asking, each one sorts all that came since the last save. So this asks now and then.
    """

    _client: FalkorClient

    def __init__(self, client: FalkorClient, write_rows: int = 1_000) -> None:
        super().__init__(client, write_rows)
        self._unmerged, self._unmerged_types = 0, dict[str, None]()

    def _index_labels(self) -> None:
        for label, name in dialect.indexes(FALKORDB):
            self._client.create_index(f"(x:{label})", name)

    def _create_indexes(self, types: Sequence[str]) -> None:
        for type_ in types:
            self._client.create_index(f"()-[x:`{type_}`]-()", "_k")

    def _index_types(self, types: Iterable[str]) -> None:
        known = list(types)
        self._unmerged_types |= dict.fromkeys(known)
        super()._index_types(known)

    def advance(self, fence: Fence, moves: Sequence[CursorMove], counts: WriteCounts) -> None:
        super().advance(fence, moves, counts)
        self._unmerged += counts.all.applied
        if self._unmerged >= _MERGED_AFTER:
            due = list(self._unmerged_types)[:_TYPES_AT_ONCE]
            with suppress(Overloaded, TooCostly):  # then the next time
                self._client.read_all(_through_matrices(due))
                self._unmerged = 0
                for name in due:
                    del self._unmerged_types[name]

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
