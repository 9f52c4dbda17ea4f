"""A FalkorDB shard asks its server now and then to merge what writes have left beside its matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from cluster.batch import frame_of
from cluster.embedded import Running
from cluster.errors import Overloaded
from cluster.ids import BUCKETS
from cluster.model import Record
from cluster.stores import falkor_shard
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.graph import CursorMove, Fence
from tests.cluster.stores.lake_records import entity, people, relationship
from tests.graph_stores import FalkorStore

pytestmark = pytest.mark.services
FENCE = Fence(1, 1, (0,))


class Heard:
    """Beside a client: what was asked at once, and refusals to come."""

    def read_all(self, queries: Sequence[tuple[str, Mapping[str, Any]]], timeout_s: float | None = None) -> Any:
        found = super().read_all(queries, timeout_s)  # type: ignore[misc]
        asked = [text for text, _ in queries if "labels(m)" in text or "count(x)" in text]
        if asked:
            self.__dict__.setdefault("asked", []).append(asked)
            if self.__dict__.pop("refuses", False):
                raise Overloaded("too many wait", 0.1)
        return found


@pytest.fixture
def shard(falkor_server: Running, unique: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FalkorShard]:
    monkeypatch.setattr(falkor_shard, "_MERGED_AFTER", 10)
    store = FalkorStore(falkor_server, unique)
    graph = store.fresh()
    made = store.shard(store.client(graph, Heard))
    made.prepare()
    made.raise_epoch(1)
    made.own(1, range(BUCKETS))
    made.take_lease(FENCE)
    made._client.__dict__["asked"] = []
    yield made
    made.close()
    store.drop(graph)


def write(shard: FalkorShard, records: Sequence[Record], at: int) -> list[list[str]]:
    """One batch; what was asked after it."""
    shard.begin([(FENCE, shard.encode(frame_of(list(records))))])
    counts = shard.finish()
    asked: list[list[str]] = shard._client.__dict__["asked"]
    before = len(asked)
    shard.advance(FENCE, [CursorMove(0, at, at + 1, len(records), counts.all.applied, 0, 0)], counts)
    return asked[before:]


def ties(first: int, count: int, type: str) -> list[Record]:
    return [relationship(f"{type}{n}", "p1", "p2", type=type) for n in range(first, first + count)]


def test_matrices_of_what_was_written_are_gone_through_once_there_is_enough(shard: FalkorShard) -> None:
    assert write(shard, [*people(1, 5), *ties(1, 4, "knows")], 0) == []
    assert write(shard, [*people(1, 5), *ties(1, 4, "knows")], 1) == [], "what was there already adds nothing"
    ((nodes, knows, owns),) = write(shard, [*ties(5, 1, "knows"), *ties(1, 3, "owns")], 2)
    assert "labels(m)" in nodes
    assert "[x:`knows`]" in knows
    assert "[x:`owns`]" in owns
    assert write(shard, ties(4, 9, "owns"), 3) == []
    ((_, owns),) = write(shard, [entity("z")], 4)
    assert "[x:`owns`]" in owns


def test_the_plan_goes_through_them(shard: FalkorShard) -> None:
    write(shard, [*people(1, 2), *ties(1, 1, "knows")], 0)
    for text, _ in falkor_shard._through_matrices(["knows"]):
        client = shard._client
        plan = client._connection
        plan.send_command("GRAPH.EXPLAIN", client._graph, text)
        steps = b" ".join(plan.read_response())
        assert b"Traverse" in steps
        assert b"(m:_Shard)" in steps, "from the one node, not from all"


def test_an_overloaded_server_is_asked_again_after_the_next_batch(shard: FalkorShard) -> None:
    shard._client.__dict__["refuses"] = True
    assert len(write(shard, [*people(1, 6), *ties(1, 6, "knows")], 0)) == 1
    ((_, knows),) = write(shard, [entity("z")], 1)
    assert "[x:`knows`]" in knows
    assert write(shard, [entity("y")], 2) == []


def test_of_many_types_those_that_wait_longest_come_first(shard: FalkorShard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(falkor_shard, "_TYPES_AT_ONCE", 1)
    first = write(shard, [*people(1, 6), *ties(1, 6, "owns"), *ties(1, 6, "knows")], 0)
    then = write(shard, ties(7, 12, "knows"), 1)
    assert ["owns" in asked[-1][-1] for asked in (first, then)] == [False, True]
    assert [len(asked[-1]) for asked in (first, then)] == [2, 2]
