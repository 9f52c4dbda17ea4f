"""Which pages of a batch one query takes.

Where a query costs as much as a hundred rows, whatever it writes, one takes pages of nodes and of several relationship
types, a part each. A server plans each text anew, so there are few: types that go together do so from when they were
first seen, in sets of so many, and a query has a part for all of its set, with no rows for some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from cluster import dialect
from cluster.databases import Dialect
from cluster.model import Kind
from cluster.stores.shard_rows import Group, Page


class Way(Enum):
    """How rows go: the parts of a query for nodes and for relationships."""

    CREATE = (dialect.create_nodes, dialect.create_relationships)
    LOOK = (dialect.look_at_nodes, dialect.look_at_relationships)
    UPSERT = (dialect.upsert_nodes, dialect.upsert_relationships)


_ORDER = list(Way)


class Going(NamedTuple):
    """A page and the way it goes."""

    page: Page
    way: Way
    created: bool = False
    """Whether it is what `CREATE` has left."""


class Part(NamedTuple):
    """A query's part: what its text depends on."""

    group: Group
    way: Way


class Query(NamedTuple):
    """Parts in the order of their groups, and the pages of those that have rows."""

    parts: tuple[Part, ...]
    going: dict[Group, Going]


@lru_cache(maxsize=1024)
def template(database: Dialect, parts: tuple[Part, ...]) -> str:
    """The query of these parts: `dialect.written`."""
    texts = []
    for number, ((kind, name), way) in enumerate(parts):
        nodes, relationships = way.value
        texts.append(relationships(database, name, number) if kind == Kind.RELATIONSHIP else nodes(name, number))
    return dialect.written(database, texts)


class QueryParts:
    """Puts pages together.

    Args:
        types_at_once: see `databases.Dialect`.
        write_rows: of one query, at most.
    """

    def __init__(self, types_at_once: int, write_rows: int) -> None:
        self._types_at_once, self._write_rows = types_at_once, write_rows
        self._sets: list[list[str]] = []
        self._set_of: dict[str, int] = {}

    def queries(self, going: Sequence[Going]) -> Iterator[Query]:
        """The queries of pages that are in the order of their groups. Those of one group stay one after the other."""
        if not self._types_at_once:
            for one in going:
                yield Query((Part(one.page.group, one.way),), {one.page.group: one})
            return
        self._see({name for kind, name in (one.page.group for one in going) if kind == Kind.RELATIONSHIP})
        query: dict[Group, Going] = {}
        for one in sorted(going, key=self._place):
            if not self._takes(query, one):
                yield Query(self._parts(query), query)
                query = {}
            query[one.page.group] = one
        if query:
            yield Query(self._parts(query), query)

    def _see(self, types: Set[str]) -> None:
        for name in sorted(types - self._set_of.keys()):
            if not self._sets or len(self._sets[-1]) >= self._types_at_once:
                self._sets.append([])
            self._sets[-1].append(name)
            self._set_of[name] = len(self._sets) - 1

    def _alike(self, one: Going) -> tuple[bool, int, int]:
        """In which all nodes' pages of a query are alike, and all relationships': the set of types, and the way."""
        kind, name = one.page.group
        is_edge = kind == Kind.RELATIONSHIP
        return is_edge, self._set_of[name] if is_edge else 0, _ORDER.index(one.way)

    def _place(self, one: Going) -> tuple[int, int, int]:
        _, of_set, way = self._alike(one)
        return one.page.group[0], of_set, way

    def _takes(self, query: dict[Group, Going], one: Going) -> bool:
        mine, theirs = self._alike(one), {self._alike(other) for other in query.values()}
        rows = sum(page.rows.height for page, *_ in (one, *query.values()))
        fits = one.page.group not in query and rows <= self._write_rows
        return not query or (fits and all(other == mine for other in theirs if other[0] == mine[0]))

    def _parts(self, query: dict[Group, Going]) -> tuple[Part, ...]:
        edges = [one for (kind, _), one in query.items() if kind == Kind.RELATIONSHIP]
        found = [Part(group, one.way) for group, one in query.items() if group[0] != Kind.RELATIONSHIP]
        if edges:
            (kind, name), way = edges[0].page.group, edges[0].way
            found += [Part((kind, other), way) for other in self._sets[self._set_of[name]]]
        return tuple(sorted(found, key=lambda part: part.group[0]))
