"""Several real shards and log partitions against the fold, while connections break and writers begin anew.

`test_shard_writer.py` has one shard and one partition; here the same histories come over several partitions in any
interleaving, floors and priorities in each of them, to two shards that share every partition; any call to a shard may
fail before it was done, or after.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.shard_writer import ShardWriter
from cluster import batch, versions
from cluster.errors import OutcomeUnknown, Retryable, Unavailable
from cluster.fold import Fold
from cluster.ids import BUCKETS
from cluster.model import Kind, Op, Record, floor_record, priority_record
from cluster.stores.graph import Fence
from cluster.stores.log import Entry
from cluster.stores.shard import StoredShard
from cluster.stores.shard_export import export_lines, state_lines
from tests.graph_stores import FalkorStore, GraphStore
from tests.strategies import crowd, make

pytestmark = pytest.mark.services

PARTITIONS = 3
NAMES = ("even", "odd")
TRIES_MAX = 2_000


class Tapes:
    """A log of several partitions; a reading takes some of them, and different ones each time.

    The longer a partition still is, the sooner it is read: where floors alone are in one, they would come first always.
    """

    def __init__(self, rnd: random.Random, records: Sequence[Record], most: int = 8) -> None:
        self._rnd, self._most = rnd, most
        rows: dict[int, list[Record]] = {p: [] for p in range(PARTITIONS)}
        for record in records:
            for partition, mine in rows.items():
                if record.kind >= Kind.FLOOR or record.bucket % PARTITIONS == partition:
                    mine.append(record)
        self.entries = {p: [*self._cut(mine)] for p, mine in rows.items()}

    def _cut(self, rows: list[Record]) -> Iterator[Entry]:
        number = 0
        while rows:
            number, size = number + 1, self._rnd.randint(1, self._most)
            page, rows = rows[:size], rows[size:]
            yield Entry(number, batch.encode(page), sum(r.kind < Kind.FLOOR for r in page), 0)

    def ends(self) -> dict[int, int]:
        return {p: len(entries) for p, entries in self.entries.items()}

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        left = {p: len(self.entries[p]) - at for p, at in after.items() if at < len(self.entries[p])}
        total = sum(left.values())
        chosen = [p for p in left if self._rnd.random() < left[p] / total] or list(left)[:1]
        return {p: self.entries[p][after[p] : after[p] + self._rnd.randint(1, limit_entries)] for p in chosen}


Breaks = Callable[[], bool]


def never() -> bool:
    """No call fails."""
    return False


def now_and_then(rnd: random.Random, share: float) -> Breaks:
    """A share of all calls fails."""
    return lambda: rnd.random() < share


def at_call(number: int) -> Breaks:
    """The call of this number fails, no other."""
    left = [number]

    def breaks() -> bool:
        left[0] -= 1
        return left[0] == 0

    return breaks


class Breaking:
    """A connection that `breaks` when it says so: before a query is sent, or before its answer is had."""

    breaks: Breaks = staticmethod(never)

    def send(self, *query: Any, **options: Any) -> None:
        if self.breaks():
            self.close()  # type: ignore[attr-defined]
            raise Unavailable("cut before it was sent", 0.01)
        super().send(*query, **options)  # type: ignore[misc]

    def receive(self, **options: Any) -> list[list[Any]]:
        answer = super().receive(**options)  # type: ignore[misc]
        if self.breaks():
            self.close()  # type: ignore[attr-defined]
            raise OutcomeUnknown("the answer was cut", 0.01)
        return cast("list[list[Any]]", answer)


class Pair:
    """Two shards: one owns the even buckets, one the odd ones, so that each has a part of every partition."""

    def __init__(self, stores: Sequence[GraphStore]) -> None:
        self._stores = dict(zip(NAMES, stores, strict=True))
        self._graphs = {name: store.fresh() for name, store in self._stores.items()}
        self._clients: list[Any] = []
        self.leases = 0

    def connect(self, name: str, breaks: Breaks = never) -> StoredShard:
        store = self._stores[name]
        client = store.client(self._graphs[name], Breaking)
        client.breaks = breaks
        self._clients.append(client)
        return store.shard(client, write_rows=5)

    def writer(self, name: str, tapes: Tapes, breaks: Breaks) -> ShardWriter:
        """Takes the shard over, as a writer that starts does. Raises Retryable."""
        mine = {b for b in range(BUCKETS) if b % 2 == NAMES.index(name)}
        shard = self.connect(name, breaks)
        shard.prepare()
        if shard.state() is None:
            shard.raise_epoch(1)
        self.leases += 1
        fence = Fence(1, self.leases, tuple(range(PARTITIONS)))
        shard.take_lease(fence)
        shard.own(1, mine, (), fence)
        return ShardWriter(
            shard, tapes, fence, mine.__contains__, limit_entries=3, block_ms=0, log_partitions=PARTITIONS
        )

    def carry(self, tapes: Tapes, rnd: random.Random, breaks: Breaks = never) -> int:
        """Everything into both shards, in turns; returns how often a writer began anew."""
        writers: dict[str, ShardWriter | None] = dict.fromkeys(NAMES)
        left, begun = set(NAMES), 0
        for _ in range(TRIES_MAX):
            if not left:
                return begun - len(NAMES)
            name = rnd.choice(sorted(left))
            try:
                writer = writers[name]
                if writer is None:
                    begun += 1
                    writer = writers[name] = self.writer(name, tapes, breaks)
                writer.step()
                if writer.positions == tapes.ends():
                    left.discard(name)
            except Retryable:
                writers[name] = None
        raise AssertionError("it does not come to an end")

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for name, store in self._stores.items():
            store.drop(self._graphs[name])


MakePair = Callable[[], Pair]


@pytest.fixture(params=["falkordb", pytest.param("neo4j", marks=pytest.mark.production)])
def make_pair(request: pytest.FixtureRequest, unique: str) -> Iterator[MakePair]:
    """`make_pair()`: two empty shards; those made before are removed. A Neo4j server has one graph: the other shard is
    in FalkorDB."""
    falkor = FalkorStore(request.getfixturevalue("falkor_server"), unique)
    first: GraphStore = request.getfixturevalue("neo4j_store") if request.param == "neo4j" else falkor
    there: list[Pair] = []

    def make_one() -> Pair:
        while there:
            there.pop().close()
        there.append(Pair((first, falkor)))
        return there[0]

    yield make_one
    for pair in there:
        pair.close()


def check(pair: Pair, records: Sequence[Record], tapes: Tapes) -> None:
    """Graph and state are the fold's, and each record of the log has one outcome."""
    oracle = Fold().apply_all(records)
    shards = [pair.connect(name) for name in NAMES]
    assert state_lines(shards) == oracle.state_lines()
    assert export_lines(shards) == oracle.export_lines()
    logged = sum(entry.records for entries in tapes.entries.values() for entry in entries)
    cursors = [cursor for shard in shards for cursor in shard.cursors().values()]
    assert sum(c.records for c in cursors) == sum(c.applied + c.duplicate + c.stale for c in cursors) == logged
    assert sum(o.total for shard in shards for o in shard.outcomes().values()) == logged
    for number, shard in enumerate(shards):
        found = {(r.tenant, r.bucket % 2) for t, c in shard.cases() for r in shard.shown(t, c)}
        assert all(parity == number for _, parity in found)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(0, 120), st.sampled_from((0.0, 0.02, 0.1)))
def test_any_interleaving_on_shards_that_break_equals_the_fold(
    make_pair: MakePair, seed: int, size: int, share: float
) -> None:
    rnd, records = random.Random(seed), crowd(seed, size)
    shuffled = records + rnd.choices(records, k=len(records) // 2) if records else []
    rnd.shuffle(shuffled)
    pair, tapes = make_pair(), Tapes(rnd, shuffled)
    pair.carry(tapes, rnd, now_and_then(rnd, share))
    check(pair, records, tapes)


def test_calls_do_break_and_writers_do_begin_anew(make_pair: MakePair) -> None:
    rnd = random.Random(5)
    records = [make("acme", f"c{i % 5}", 0, "person", f"p{i % 7}", "crm", i) for i in range(1, 80)]
    pair, tapes = make_pair(), Tapes(rnd, records)
    assert pair.carry(tapes, rnd, now_and_then(rnd, 0.1)) > 3
    check(pair, records, tapes)


def _floor(at: int, source: str = "crm", type_: str = "") -> Record:
    return floor_record("acme", source, type_, versions.encode(1, [at]), 0)


def _tie(at: int, a: str, b: str, op: int = Op.UPSERT) -> Record:
    return make("acme", "c1", Kind.RELATIONSHIP, "KNOWS", "r", "crm", at, op, ("person", a, "person", b))


def _person(id: str, at: int, source: str = "crm", op: int = Op.UPSERT, props: str = "{}") -> Record:
    return make("acme", "c1", Kind.ENTITY, "person", id, source, at, op, props=props)


def _ranked(at: int) -> Record:
    return _person("x", at, "overlay/pagerank", props='{"rank":0.5}')


PEOPLE = [_person(name, 1, "feed") for name in "abc"]
EXECUTIONS = {
    "a replay after tombstones were collected": (
        [_person("x", 1), _person("x", 2, op=Op.DELETE), _floor(3), _person("x", 1), _person("x", 2, op=Op.DELETE)],
        0,
    ),
    "a relationship below a floor, and older again": ([_tie(2, "a", "b"), _floor(3), *PEOPLE, _tie(1, "a", "c")], 3),
    "a floor of one type leaves the others": ([_person("x", 1), _floor(3, type_="org"), _person("y", 1)], 2),
    "a floor of one source leaves the others": ([_person("x", 1), _person("x", 1, "feed"), _floor(9)], 1),
    "a delete before its upsert": ([_person("x", 5, op=Op.DELETE), _person("x", 4)], 0),
    "a relationship's delete without ends, before it": ([_tie(5, "", "", Op.DELETE), *PEOPLE, _tie(4, "a", "b")], 3),
    "ends change and change back": ([*PEOPLE, _tie(1, "a", "b"), _tie(2, "b", "c"), _tie(3, "a", "b")], 4),
    "an older row with other ends comes last": ([*PEOPLE, _tie(2, "b", "c"), _tie(1, "a", "b")], 4),
    "an end is deleted and comes again": (
        [*PEOPLE, _tie(1, "a", "b"), _person("a", 2, "feed", Op.DELETE), _person("a", 3, "feed")], 4,
    ),
    "a self-relationship": ([*PEOPLE, _tie(1, "a", "a")], 4),
    "an overlay between two facts, and after the delete": (
        [_person("x", 1), _ranked(1), _person("x", 2, op=Op.DELETE), _ranked(2)],
        0,
    ),
}  # fmt: skip


def test_a_writer_dies_at_every_call(make_pair: MakePair) -> None:
    """Floors and priorities take several queries: whatever was done of them when the writer died is finished later."""
    records = [
        _person("x", 1, props='{"name":"crm"}'), _person("x", 1, "feed", props='{"name":"feed"}'),
        _person("y", 9, props='{"name":"crm"}'), _person("y", 9, "feed", props='{"name":"feed"}'), _tie(9, "x", "y"),
        _tie(1, "y", "x")._replace(id="r2"), priority_record("acme", "feed", 5, 1, 0), _floor(5), _person("x", 2),
    ]  # fmt: skip
    for number in range(1, 400):
        pair, tapes = make_pair(), Tapes(random.Random(3), records, most=1)
        own = records[0].bucket % PARTITIONS
        tapes.entries = {p: entries if p == own else [] for p, entries in tapes.entries.items()}
        begun_anew = pair.carry(tapes, random.Random(4), at_call(number))
        check(pair, records, tapes)
        if not begun_anew:
            break
    assert 40 < number < 400, "calls there are"


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "a batch each"])
@pytest.mark.parametrize("name", EXECUTIONS)
def test_executions_that_the_design_names(make_pair: MakePair, name: str, together: bool) -> None:
    records, shown = EXECUTIONS[name]
    pair, tapes = make_pair(), Tapes(random.Random(1), records)
    if together:
        everything = [r for p in tapes.entries.values() for e in p for r in batch.decode(e.data)]
        facts = sum(r.kind < Kind.FLOOR for r in everything)
        tapes.entries = {p: [] for p in tapes.entries} | {records[0].bucket % PARTITIONS: [_whole(everything, facts)]}
    pair.carry(tapes, random.Random(2))
    check(pair, records, tapes)
    assert len(export_lines([pair.connect(n) for n in NAMES])) == shown


def _whole(records: list[Record], facts: int) -> Entry:
    return Entry(1, batch.encode(records), facts, 0)
