"""By whichever way a page goes first, the same is written, counted and reported."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.batch import frame_of
from cluster.errors import Fenced, OutcomeUnknown
from cluster.fold import Outcome
from cluster.ids import BUCKETS
from cluster.model import Op, Record
from cluster.stores.graph import Fence, WriteCounts
from cluster.stores.query_parts import Way
from cluster.stores.shard import StoredShard
from cluster.stores.shard_export import state_lines
from cluster.stores.upserts import suits
from tests.graph_stores import GraphStore
from tests.strategies import facts, make

FENCE = Fence(1, 1, (0,))


class Shards:
    """Fresh shards on one server, each in a graph of its own; where a server has one graph, the last is there."""

    def __init__(self, store: GraphStore) -> None:
        self._store = store
        self._clients: list[tuple[Any, str]] = []

    def fresh(self, write_rows: int = 3) -> StoredShard:
        graph = self._store.fresh()
        client = self._store.client(graph)
        self._clients.append((client, graph))
        shard = self._store.shard(client, write_rows)
        shard.prepare()
        shard.raise_epoch(1)
        shard.own(1, range(BUCKETS))
        shard.take_lease(FENCE)
        return shard

    def again(self, write_rows: int = 3) -> StoredShard:
        """The last one, opened anew."""
        _, graph = self._clients[-1]
        client = self._store.client(graph)
        self._clients.append((client, graph))
        return self._store.shard(client, write_rows)

    def drop(self) -> None:
        while self._clients:
            client, graph = self._clients.pop()
            client.close()
            self._store.drop(graph)


@pytest.fixture
def shards(graph_store: GraphStore) -> Iterator[Shards]:
    found = Shards(graph_store)
    yield found
    found.drop()


def write(shard: StoredShard, rows: Sequence[Record]) -> WriteCounts:
    """One folded batch, without what the writer does about things of several sources."""
    shard.see_cases(FENCE, {(r.tenant, r.case) for r in rows})
    shard.begin([(FENCE, shard.encode(frame_of(rows)))])
    return shard.finish()


def one_a_thing(records: Sequence[Record]) -> list[Record]:
    """As the writer folds a batch: a row a thing."""
    return list({(*r[:2], r.kind, r.type, r.id, r.is_overlay and r.source): r for r in records}.values())


def told(counts: WriteCounts) -> tuple[object, ...]:
    """Everything that a write says, in an order of its own."""
    return dict(counts.by_source), sorted(counts.others), counts.conflicts


def first_by(shard: StoredShard, way: Way) -> None:
    """Whatever the last rows were."""

    class Always(dict[object, Way]):
        def get(self, *_: object) -> Way:  # type: ignore[override]
            return way

    shard._upserts._ways = Always()  # type: ignore[assignment]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(facts(), max_size=9).map(one_a_thing), max_size=5))
def test_each_way_writes_and_counts_the_same(shards: Shards, batches: list[list[Record]]) -> None:
    found = []
    for way in (None, *Way):
        shard = shards.fresh()
        if way:
            first_by(shard, way)
        found.append(([told(write(shard, rows)) for rows in batches if rows], state_lines([shard])))
    shards.drop()
    assert [one for one in found if one != found[0]] == []


def test_a_row_that_has_no_outcome_yet_is_counted_by_no_way(shards: Shards) -> None:
    mine = make("t", "c", 0, "person", "p", "crm", 1)
    beside = make("u", "c", 0, "person", "p", "crm", 1)
    for way in Way:
        shard = shards.fresh()
        first_by(shard, way)
        write(shard, [mine._replace(source="feed")])
        counts = write(shard, [mine, beside])
        assert (list(counts.by_source), counts.others) == ([("u", "crm", 1)], [mine]), way


def people(positions: Sequence[int], source: str = "crm", at: int = 0) -> list[Record]:
    return [make("t", "c", 0, "person", f"p{n}", source, n + at) for n in positions]


def ties(positions: Sequence[int], at: int = 0, op: int = Op.UPSERT) -> list[Record]:
    return [
        make("t", "c", 1, "KNOWS", f"r{n}", "crm", n + at, op, ("person", f"p{n}", "person", "p1")) for n in positions
    ]


def test_more_types_than_one_query_takes_of_which_some_are_known(shards: Shards) -> None:
    kinds = [f"K{n:02}" for n in range(23)]
    links = [tie._replace(type=kind) for tie in ties(range(1, 5)) for kind in kinds]
    rows, shard = people(range(1, 5)) + links, shards.fresh(write_rows=9)
    known = [link for link in links if link.type in kinds[::2] or link.id == "r2"]
    for batch, new in ((people(range(1, 5)) + known, len(known) + 4), (rows, len(links) - len(known)), (rows, 0)):
        counts = write(shard, batch)
        assert (counts.all.applied, counts.all.duplicate) == (new, len(batch) - new)
    assert len(state_lines([shard])) == len(rows)


def ways(shard: StoredShard) -> dict[str, Way]:
    return {name: way for (_, name), way in shard._upserts._ways.items()}


def test_the_next_page_goes_as_would_have_suited_the_last(shards: Shards) -> None:
    shard = shards.fresh()
    first = people(range(1, 8))
    seen = []
    for rows in (first, first, first, people(range(1, 8), at=10), people(range(1, 8), at=20), people(range(10, 20))):
        write(shard, rows)
        seen.append(ways(shard)["Entity"])
    new = Way.UPSERT if shard._database.upserts_cheaply else Way.CREATE
    assert seen == [new, Way.LOOK, Way.LOOK, Way.UPSERT, Way.UPSERT, new]


def test_relationships_whose_ends_are_not_there_are_not_created_in_vain_each_time(shards: Shards) -> None:
    shard = shards.fresh()
    seen = []
    for n in range(1, 60, 10):
        write(shard, ties(range(n, n + 10)))
        seen.append(ways(shard)["KNOWS"])
    assert seen == [Way.UPSERT, Way.CREATE] * 3


class Texts:
    """The texts of what a shard sends from here on."""

    def __init__(self, shard: StoredShard) -> None:
        self._send_rows, self.seen = shard._client.send_rows, list[str]()
        shard._client.send_rows = self._keep  # type: ignore[method-assign]

    def _keep(self, template: str, *rest: Any, **named: Any) -> None:
        self.seen.append(template)
        self._send_rows(template, *rest, **named)


def test_a_shard_that_is_opened_again_sends_the_same_texts(shards: Shards) -> None:
    shard = shards.fresh()
    links = [tie._replace(type=kind) for tie in ties(range(1, 3)) for kind in ("A", "B", "K", "Z")]
    write(shard, people(range(1, 4)) + links[3:4])
    write(shard, links)
    before, again = Texts(shard), Texts(other := shards.again())
    other.prepare()
    for at, opened in ((10, shard), (20, other)):
        write(opened, people(range(1, 4), at=at) + [tie._replace(stamp=make("t", "c", 1, "A", "r", "crm", at).stamp)
                                                    for tie in links])  # fmt: skip
    assert before.seen == again.seen


@pytest.mark.parametrize("way", Way)
def test_a_query_of_several_parts_is_refused_whole(shards: Shards, way: Way) -> None:
    shard = shards.fresh(write_rows=1_000)
    links = [tie._replace(type=kind) for tie in ties(range(1, 4)) for kind in ("KNOWS", "OWNS")]
    write(shard, people(range(1, 4)) + links)
    before = state_lines([shard])
    shard.take_lease(Fence(1, 2, (0,)))
    first_by(shard, way)
    texts, newer = Texts(shard), [tie._replace(id=f"new-{tie.id}") for tie in links]
    with pytest.raises(Fenced):
        write(shard, people(range(2, 6), at=10) + links + newer)
    assert any(" CALL () {" in text for text in texts.seen) == bool(shard._database.types_at_once)
    assert state_lines([shard]) == before


@pytest.mark.parametrize("way", Way)
def test_a_page_is_refused_whole_where_the_lease_is_another(shards: Shards, way: Way) -> None:
    shard = shards.fresh()
    write(shard, people(range(1, 4)))
    before = state_lines([shard])
    shard.take_lease(Fence(1, 2, (0,)))
    for rows in (people(range(1, 4)), people(range(5, 9)), people(range(2, 4), at=10), ties(range(1, 4))):
        first_by(shard, way)
        with pytest.raises(Fenced):
            write(shard, rows)
    assert state_lines([shard]) == before


def test_whether_all_is_answered_is_told_in_the_time_given(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, rows = shards.fresh(write_rows=2_000), people(range(1, 4_001)) + ties(range(1, 4_001))
    assert shard.answered(0.0), "nothing was sent"
    encoded = shard.encode(frame_of(rows))
    shard.see_cases(FENCE, {("t", "c")})
    shard.begin([(FENCE, encoded)])
    began = time.monotonic()
    assert not shard.answered(0.001)
    assert time.monotonic() - began < 0.5, "some pages later"
    while not shard.answered(0.02):
        assert time.monotonic() - began < 60.0
    monkeypatch.setattr(shard._client, "receive", None)
    assert shard.answered(0.0)
    monkeypatch.undo()
    assert shard.finish().all.applied == len(rows)
    assert len(state_lines([shard])) == len(rows)


def test_answers_of_a_batch_that_was_refused_are_nobody_else_s(shards: Shards) -> None:
    shard, later, rows = shards.fresh(), Fence(1, 2, (0,)), people(range(1, 7)) + ties(range(1, 4))
    first_by(shard, Way.UPSERT)
    shard.see_cases(FENCE, {("t", "c")})
    shard.take_lease(later)
    shard.begin([(FENCE, shard.encode(frame_of(rows)))])
    assert shard.answered(30.0)
    with pytest.raises(Fenced):
        shard.finish()
    shard.begin([(later, shard.encode(frame_of(rows)))])
    assert shard.answered(30.0)
    assert shard.finish().all.applied == len(rows)


def test_what_fails_while_it_is_waited_for_leaves_nothing_behind(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, rows = shards.fresh(), people(range(1, 7))
    shard.see_cases(FENCE, {("t", "c")})
    encoded, receive = shard.encode(frame_of(rows)), shard._client.receive
    answers = iter([receive])

    def breaks() -> list[list[Any]]:
        for answer in answers:
            return answer()
        raise OutcomeUnknown("the shard's connection broke during a write", 0.5)

    shard.begin([(FENCE, encoded)])
    monkeypatch.setattr(shard._client, "receive", breaks)
    with pytest.raises(OutcomeUnknown):
        shard.answered(30.0)
    monkeypatch.undo()
    assert shard.finish().all.total == 0, "nothing is waited for any more"
    shard.begin([(FENCE, encoded)])
    assert shard.finish().all.total == len(rows)


def test_what_would_have_suited() -> None:
    assert [suits(o, creates=True) for o in Outcome] == [Way.CREATE, Way.UPSERT, Way.LOOK, Way.LOOK]
    assert suits(Outcome.NEW, creates=False) is Way.UPSERT


def test_a_large_page_that_is_half_known(shards: Shards) -> None:
    shard, rnd = shards.fresh(write_rows=400), random.Random(4)
    rows = people(range(1, 1000)) + ties(range(1, 1000))
    known = rnd.sample(rows, len(rows) // 2)
    write(shard, known)
    counts = write(shard, rows)
    assert (counts.all.applied, counts.all.duplicate) == (len(rows) - len(known), len(known))
    assert len(state_lines([shard])) == len(rows)
