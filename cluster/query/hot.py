"""Answers from one hot shard: run the statements of a question, decode their rows. Blocking, read only.

`Read` runs one statement within the deadline of the whole question. An empty answer may mean that the shard refused
the epoch or the bucket; then the shard's node is looked at, and `Fenced` raised where that is so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster import dialect_shard
from cluster.databases import FALKORDB, Dialect
from cluster.errors import EpochMismatch, Fenced, Misrouted, NotFound
from cluster.ids import BUCKETS, bucket_of
from cluster.query import cypher
from cluster.query.answers import CasesPage, EntityView, FoundPage, FoundView
from cluster.query.cypher import Statement
from cluster.query.decode import claim_view, is_of, overlay_view, properties, registers, sidecar
from cluster.query.ir import CasesQuery, EntityQuery, SearchQuery

Rows = list[list[Any]]
Read = Callable[[Statement], Rows]
ReadAll = Callable[[Sequence[Statement]], list[Rows]]
CLAIMS_MAX = 1_000
OVERLAYS_MAX = 100
CASES_ROUNDS = 10
NOT_FOUND = "no such entity in this case; see GET /v1/search"


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard, as one question sees it.

    Args:
        read: runs a statement; raises Unavailable, TooCostly, Overloaded or Corrupt.
        epoch: the shard's epoch of readers that the caller believes in.
        buckets: those the caller believes the shard owns; for questions over the whole shard.
        name: the shard's id.
        at_once: runs several statements in one round trip, where the reader can; else they run one by one.
    """

    read: Read
    epoch: int
    buckets: tuple[int, ...] = ()
    dialect: Dialect = FALKORDB
    name: str = ""
    at_once: ReadAll | None = None

    def read_all(self, statements: Sequence[Statement]) -> list[Rows]:
        """Rows of several statements of which none needs another's."""
        if self.at_once is not None and len(statements) > 1:
            return self.at_once(statements)
        return [self.read(statement) for statement in statements]

    def admitted(self, statement: Statement, buckets: Sequence[int]) -> Rows:
        """Rows of a statement.

        Raises:
            Fenced: there are none because the shard has another epoch, or not all of the buckets.
        """
        return self.current(self.read(statement), buckets)

    def current(self, rows: Rows, buckets: Sequence[int]) -> Rows:
        """These rows; raises Fenced as `admitted`."""
        if not rows:
            refuse_unless_current(self.read(cypher.probe()), self.epoch, buckets)
        return rows

    def owned(self) -> str:
        """The shard's owned flags, if all buckets of the caller are among them; raises Fenced."""
        return refuse_unless_current(self.read(cypher.probe()), self.epoch, self.buckets)


def applied_up_to(shard: Shard) -> dict[int, int]:
    """The last entry of each log partition that the shard has applied."""
    return {int(row[0]): int(row[1]) for row in shard.read(Statement(dialect_shard.CURSORS, {}))}


def refuse_unless_current(rows: Rows, epoch: int, buckets: Sequence[int]) -> str:
    """The owned flags; raises Fenced unless the shard's node (rows of `probe`) has this epoch and these buckets."""
    known, owned = rows[0] if rows else (None, None)
    if not known:
        raise EpochMismatch("the shard catches up with the log, or is being rebuilt; try again", 0.2)
    if known != epoch:
        raise EpochMismatch(f"the shard serves epoch {known}, not {epoch}; reload the shard map and try again", 0.2)
    if not isinstance(owned, str) or len(owned) != BUCKETS or any(owned[bucket] != "1" for bucket in buckets):
        raise Misrouted("the shard does not own a bucket of this question; reload the shard map and try again", 0.2)
    return owned


def read_entity(shard: Shard, query: EntityQuery) -> EntityView:
    """An entity with sources, claims and overlay values.

    Raises:
        NotFound: it is not visible. Fenced: the shard is not who the caller takes it for.
    """
    bucket = bucket_of(query.tenant, query.case)
    rows = shard.admitted(cypher.entity(query, shard.epoch), [bucket])
    stored = rows[0][0] if rows else None
    if stored is None or not is_of(stored, query.tenant, query.case):
        raise NotFound(NOT_FOUND)
    side = sidecar(stored)
    claims, overlays = (
        shard.current(found, [bucket])
        for found in shard.read_all(
            [cypher.claims(query, shard.epoch, CLAIMS_MAX + 1), cypher.overlays(query, shard.epoch, OVERLAYS_MAX + 1)]
        )
    )
    own = [row[0] for row in claims if is_of(row[0], query.tenant, query.case)]
    cut = ["claims"] * (len(claims) > CLAIMS_MAX) + ["overlays"] * (len(overlays) > OVERLAYS_MAX)
    return EntityView(
        case=query.case,
        type=query.type,
        id=query.id,
        props=properties(stored, side),
        sources=registers(stored, side),
        claims=[claim_view(claim) for claim in own[:CLAIMS_MAX]],
        overlays=dict(overlay_view(row[0]) for row in overlays[:OVERLAYS_MAX]),
        event_time=side[0] or None,
        truncated=cut,
    )


def _whole(shard: Shard, statement: Statement) -> Rows:
    """Rows of a statement over the whole shard; Fenced where its owned flags have changed since they were read."""
    rows = shard.read(statement)
    if not rows and shard.owned() != statement.parameters["owned"]:
        raise Fenced("the shard's buckets are changing; try again", 0.2)
    return rows


def search(shard: Shard, query: SearchQuery) -> FoundPage:
    """Entities that fit, ordered by (case, type, id): of one case, or of all the tenant's cases on this shard."""
    if query.case is not None:
        statement = cypher.search_case(query, query.case, shard.epoch, shard.dialect)
        rows = shard.admitted(statement, [bucket_of(query.tenant, query.case)])
    else:
        rows = _whole(shard, cypher.search_tenant(query, shard.epoch, shard.owned(), shard.dialect))
    found = [
        FoundView(case, stored["_type"], stored["_id"], properties(stored))
        for case, stored in rows[: query.limit]
        if is_of(stored, query.tenant, case)
    ]
    return FoundPage(found, len(rows) > query.limit)


def list_cases(shard: Shard, query: CasesQuery) -> CasesPage:
    """The tenant's cases in this shard's buckets in which an entity or a claim is visible, by name.

    It looks at `CASES_ROUNDS` pages of names at most: where most cases have nothing to show, a page may be short.
    """
    owned, meant = shard.owned(), frozenset(shard.buckets)
    after, found = query.after, list[str]()
    for _ in range(CASES_ROUNDS):
        rows = _whole(shard, cypher.cases(query, shard.epoch, owned, after, query.limit + 1, shard.dialect))
        found += [case for case, seen in rows if seen and bucket_of(query.tenant, case) in meant]
        if len(found) > query.limit:
            return CasesPage(found[: query.limit], found[query.limit - 1])
        if len(rows) <= query.limit:
            return CasesPage(found)
        after = rows[-1][0]
    return CasesPage(found, after)
