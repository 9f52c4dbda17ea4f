"""Which pages of a batch one query takes.

Where a query costs as much as a hundred rows, whatever it writes, one takes pages of entities and of several types of
relationship, a part each. A server plans each text anew, so there are few: types are in sets of so many, in the order
in which they were met, and a query has a part for all of its set, with no rows for some.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    def meet(self, types: Iterable[str]) -> None:
        """Types of which pages will come, in the order in which they go together."""
        if not self._types_at_once:
            return
        for name in types:
            if name not in self._set_of:
                if not self._sets or len(self._sets[-1]) >= self._types_at_once:
                    self._sets.append([])
                self._sets[-1].append(name)
                self._set_of[name] = len(self._sets) - 1

    def queries(self, going: Sequence[Going]) -> Iterator[Query]:
        """The queries of pages that are in the order of their groups. Those of one group stay one after the other."""
        if not self._types_at_once:
            for one in going:
                yield Query((Part(one.page.group, one.way),), {one.page.group: one})
            return
        query: dict[Group, Going] = {}
        for one in sorted(going, key=self._place):
            if query and not self._takes(query, one):
                yield Query(self._parts(query), query)
                query = {}
            query[one.page.group] = one
        if query:
            yield Query(self._parts(query), query)

    def _place(self, one: Going) -> tuple[int, int, int]:
        kind, name = one.page.group
        return kind, self._set_of[name] if kind == Kind.RELATIONSHIP else 0, _ORDER.index(one.way)

    def _takes(self, query: Mapping[Group, Going], one: Going) -> bool:
        """Whether a page goes with those of a query: entities, and relationships of one set that go one way."""
        if one.page.group[0] > Kind.RELATIONSHIP or one.page.group in query:
            return False
        edges = [other for (kind, _), other in query.items() if kind == Kind.RELATIONSHIP]
        rows = sum(page.rows.height for page, *_ in (one, *query.values()))
        return rows <= self._write_rows and all(self._place(other) == self._place(one) for other in edges)

    def _parts(self, query: Mapping[Group, Going]) -> tuple[Part, ...]:
        """Parts of a query's pages, and of all other types of their set."""
        found = [Part(group, one.way) for group, one in query.items() if group[0] != Kind.RELATIONSHIP]
        for (kind, name), one in query.items():
            if kind == Kind.RELATIONSHIP:
                return (*found, *(Part((kind, other), one.way) for other in self._sets[self._set_of[name]]))
        return tuple(found)
