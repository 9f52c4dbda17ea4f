"""Rows into a shard by the cheapest query that will do.

A query that is ready for everything costs far more than one that only creates, or one that only looks. So each page
goes first by the query that suits what most rows of its group were last time, and whatever that leaves goes by
`upsert`. A wrong guess costs a query, never a fact: each of them checks the fence, and decides by what is there.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from cluster.batch import Frame, Mask, only, records_of
from cluster.databases import Dialect
from cluster.errors import Corrupt, Fenced
from cluster.fold import Outcome
from cluster.model import Kind
from cluster.stores.graph import Fence, WriteCounts
from cluster.stores.query_parts import Going, Query, QueryParts, Way, template
from cluster.stores.shard_parameters import fenced
from cluster.stores.shard_rows import Group, Page

REFUSED = "the shard refused the write: its epoch, owned buckets or a partition's lease is another"


class RowClient(Protocol):
    """A connection to a shard that takes rows. For one thread."""

    dialect: Dialect

    def send_rows(self, template: str, parameters: Mapping[str, Any], rows: Mapping[str, Any], lane: int = 0) -> None:
        """Send a query with rows as its parameters of these names. Does not wait; `receive` once for each, in order.

        Queries of one lane run in their order, whatever those of others do.
        """

    def answered(self, within_s: float) -> bool:
        """Whether `receive` would not wait; looks for so long at most."""

    def receive(self) -> list[list[Any]]:
        """The oldest query's rows. Raises OutcomeUnknown, Unavailable."""

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""


class Sent(NamedTuple):
    """A query whose answer was not received yet. Bodies are not kept: what is left over is made anew."""

    fence: Fence
    lane: int
    query: Query


def suits(status: int, creates: bool) -> Way:
    """By which way a row of this status would best have gone, where `creates` says whether `CREATE` would have done."""
    if status == Outcome.NEW and creates:
        return Way.CREATE
    return Way.UPSERT if status in (Outcome.NEW, Outcome.NEWER) else Way.LOOK


class Upserts:
    """Pages on their way into one shard. For one thread.

    Args:
        client: a connection of its own.
        paged: rows in pages, as the database takes them.
        write_rows: of one query, at most.
    """

    def __init__(self, client: RowClient, paged: Callable[[Frame], list[Page]], write_rows: int) -> None:
        self._client = client
        self._paged = paged
        self._parts = QueryParts(client.dialect.types_at_once, write_rows)
        self._ways: dict[Group, Way] = {}
        self._votes: defaultdict[Group, Counter[Way]] = defaultdict(Counter)
        self._sent: list[Sent] = []
        self._answers: deque[list[list[Any]]] = deque()
        """To the first of what was sent."""

    def meet(self, types: Iterable[str]) -> None:
        """Say of relationship types, whose indexes are there, that pages of them will come."""
        self._parts.meet(types)

    def send(self, fence: Fence, pages: Sequence[Page], lane: int = 0) -> None:
        """Send pages, in the order of their groups, under a fence. Does not wait."""
        self._send(fence, lane, [Going(page, self._way(page.group)) for page in pages])

    def _way(self, group: Group) -> Way:
        return self._ways.get(group, Way.CREATE if self._creates(group) else Way.UPSERT)

    def _creates(self, group: Group) -> bool:
        """Whether there is a group's row for which `CREATE` costs less than `UPSERT`."""
        return group[0] == Kind.RELATIONSHIP or not self._client.dialect.upserts_cheaply

    def _send(self, fence: Fence, lane: int, going: Sequence[Going]) -> None:
        for query in self._parts.queries(going):
            pages = [query.going[group].page if group in query.going else None for group, _ in query.parts]
            buckets = {bucket for page in pages if page for bucket in page.rows["bucket"].unique().to_list()}
            parameters = fenced(fence, buckets)
            for number, page in enumerate(pages):
                parameters[f"named{number}"] = page is not None and page.mixed
                parameters[f"number{number}"] = page.rows.height if page else 0
            rows = {f"rows{number}": page.body if page else [] for number, page in enumerate(pages)}
            self._client.send_rows(template(self._client.dialect, query.parts), parameters, rows, lane)
            bare = {group: one._replace(page=one.page._replace(body=None)) for group, one in query.going.items()}
            self._sent.append(Sent(fence, lane, query._replace(going=bare)))

    def answered(self, within_s: float) -> bool:
        """Whether all that was sent is answered; waits for it for so long at most.

        Raises:
            OutcomeUnknown, Unavailable, QueryFailed, Overloaded: all of it is forgotten, and may have been done.
        """
        until = time.monotonic() + within_s
        with self._closing():
            while len(self._answers) < len(self._sent):
                if not self._client.answered(max(0.0, until - time.monotonic())):
                    return False
                self._answers.append(self._client.receive())
        return True

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Forgets what was sent, and the connection, where that fails."""
        try:
            yield
        except BaseException:
            self._sent = []
            self._answers.clear()
            self._client.close()
            raise

    def finish(self) -> WriteCounts:
        """Wait for what was sent; send what that leaves, and wait for it too.

        Raises:
            Fenced: the shard refused it. OutcomeUnknown, Unavailable: it may have been done.
        """
        counts = WriteCounts()
        with self._closing():
            while self._sent:
                sent, self._sent = self._sent, []
                for fence, lane, left in [(one.fence, one.lane, self._take(counts, one)) for one in sent]:
                    self._send(fence, lane, left)
        self._ways.update((group, votes.most_common(1)[0][0]) for group, votes in self._votes.items())
        self._votes.clear()
        return counts

    def _take(self, counts: WriteCounts, sent: Sent) -> list[Going]:
        """Count what the oldest query has done; returns the rows that it has left."""
        answer = self._answers.popleft() if self._answers else self._client.receive()
        left: list[Going] = []
        for number, (group, way) in enumerate(sent.query.parts):
            if (going := sent.query.going.get(group)) is None:
                continue
            take = self._take_made if way is Way.CREATE else self._take_outcomes
            rows = take(counts, going, answer[0][number] if answer else ())
            left += [Going(page, Way.UPSERT, way is Way.CREATE) for page in (self._paged(rows) if rows.height else ())]
        return left

    def _take_made(self, counts: WriteCounts, going: Going, answer: Sequence[Any]) -> Frame:
        """Count what was created; returns the rows that were not. A refusal leaves all, and meets them again."""
        page = going.page
        made, named = answer or (0, ())
        if made == page.rows.height:
            found, left = page.rows, page.rows.clear()
        else:
            is_made = _among(page, named)
            found, left = only(page.rows, is_made), only(page.rows, ~is_made)
        if found.height != made:
            raise Corrupt(f"the shard created {made} rows and named {found.height}")
        if made:
            self._count(counts, going, found, [int(Outcome.NEW)] * made)
        return left

    def _take_outcomes(self, counts: WriteCounts, going: Going, answer: Sequence[Any]) -> Frame:
        """Count what was written or need not be; returns the rows that still have to be written."""
        page = going.page
        statuses, named, others, conflicts, rest = answer or ((), (), (), (), ())
        if not statuses and not rest:
            raise Fenced(REFUSED)
        if len(statuses) + len(rest) != page.rows.height:
            raise Corrupt(f"the shard answered for {len(statuses)} and {len(rest)} of {page.rows.height} rows")
        if statuses:
            self._count(counts, going, _in_order(page, named) if page.mixed else page.rows, statuses)
        if others:
            counts.others += records_of(page.rows.filter(_among(page, others)))
        if conflicts:
            found = page.rows.filter(_among(page, conflicts))
            counts.conflicts.update(found.select("tenant", "source").rows())
        return page.rows.filter(_among(page, rest)) if rest else page.rows.clear()

    def _count(self, counts: WriteCounts, going: Going, rows: Frame, statuses: Sequence[int]) -> None:
        if going.page.mixed:
            counts.count_each(rows, statuses)
        else:  # which status is whose makes no difference
            counts.count_alike(rows, statuses)
        group = going.page.group
        creates = self._creates(group) and not going.created
        for status, number in Counter(statuses).items():
            self._votes[group][suits(status, creates)] += number


def _among(page: Page, keys: Sequence[str]) -> Mask:
    named = set(keys)
    return np.fromiter((key in named for key in page.keys), bool, len(page.keys))


def _in_order(page: Page, keys: Sequence[str]) -> Frame:
    """The page's rows of these keys, in the keys' order."""
    at = {key: number for number, key in enumerate(page.keys)}
    return page.rows[[at[key] for key in keys]]
