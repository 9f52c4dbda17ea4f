"""The plan of a write-back: pure, bounded, and what the fold makes of it in any order."""

from __future__ import annotations

import itertools
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import batch
from cluster.errors import Rejected
from cluster.fold import Fold
from cluster.ids import bucket_of
from cluster.model import Op, Record
from overlays.write_back import Bounds, RunStamp, floor_entries, plan, tenant_ranks, top_by_case, value_entries
from tests.overlays.facts import AS_OF, PARTITIONS, TENANT, entity, values
from workloads.overlay.input import Membership

NAMES = [("person", name) for name in "abcdef"]
CASES = ["c1", "c2"]
BOUNDS = Bounds(records=100, record_bytes=2000, entry_records=4, entry_bytes=1 << 20)


def membership(*pairs: tuple[int, int]) -> Membership:
    case, vertex = zip(*pairs, strict=True) if pairs else ((), ())
    return Membership(CASES, np.array(case, np.int32), np.array(vertex, np.int64))


def stamp(run: int) -> RunStamp:
    return RunStamp(TENANT, "overlay/pagerank", run, f"snapshot-{run}", AS_OF)


def planned(run: int, scores: list[float], members: Membership, k: int = 2, limit: int = 100) -> list[Record]:
    score = np.array(scores)
    props = {v: {"score": s} for v, s in enumerate(scores)}
    ranked, best = top_by_case(score, members, k), tenant_ranks(score, k)
    return plan(stamp(run), ranked, best, CASES, dict(enumerate(NAMES)), props, BOUNDS._replace(records=limit))


EVERYONE = membership(*((case, vertex) for case in (0, 1) for vertex in range(case, 6)))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=6, max_size=6),
    st.sets(st.tuples(st.integers(0, 1), st.integers(0, 5))),
    st.integers(1, 7),
)
def test_top_of_each_case_by_its_definition(scores: list[float], pairs: set[tuple[int, int]], k: int) -> None:
    found = top_by_case(np.array(scores), membership(*random.sample(sorted(pairs), len(pairs))), k)
    rows = list(zip(found.case.tolist(), found.vertex.tolist(), found.rank.tolist(), strict=True))
    wanted = []
    for case in (0, 1):
        mine = sorted((v for c, v in pairs if c == case), key=lambda v: (-scores[v], v))
        wanted += [(case, v, rank) for rank, v in enumerate(mine[:k], start=1)]
    assert rows == wanted
    best = tenant_ranks(np.array(scores), k)
    there = {(c, v) for c, v, _ in rows}
    assert all((c, v) in there for c, v in pairs if v in best), "the tenant's best are among each case's best"


def test_records_say_everything() -> None:
    records = planned(3, [0.5, 0.1, 0.1, 0.2, 0.05, 0.05], EVERYONE)
    first = records[0]
    assert (first.tenant, first.case, first.type, first.id, first.source) == (
        TENANT,
        "c1",
        "person",
        "a",
        "overlay/pagerank",
    )
    assert first.bucket == bucket_of(TENANT, "c1")
    assert first.is_overlay
    assert msgspec.json.decode(first.props) == {
        "score": 0.5, "asOf": AS_OF, "snapshot": "snapshot-3", "run": 3, "rank_in_case": 1, "rank_in_tenant": 1,
    }  # fmt: skip
    assert [(r.case, r.id) for r in records] == [("c1", "a"), ("c1", "d"), ("c2", "d"), ("c2", "b")]
    assert "rank_in_tenant" not in msgspec.json.decode(records[3].props)
    assert len({r.version for r in records}) == len(records)
    assert planned(3, [0.5, 0.1, 0.1, 0.2, 0.05, 0.05], EVERYONE) == records


def test_bounds_and_reserved_names() -> None:
    with pytest.raises(Rejected, match=r"lower overlays\.top_k"):
        planned(1, [1.0] * 6, EVERYONE, k=6, limit=10)
    with pytest.raises(Rejected, match="asOf"):
        plan(stamp(1), top_by_case(np.ones(6), EVERYONE, 1), {}, CASES, dict(enumerate(NAMES)),
             {v: {"asOf": 1} for v in range(6)}, BOUNDS)  # fmt: skip
    with pytest.raises(Rejected, match="not numbers"):
        planned(1, [float("nan")] * 6, EVERYONE)


def test_entries_are_of_one_partition_and_bounded() -> None:
    records = planned(1, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], EVERYONE, k=6)
    entries = list(value_entries(records, PARTITIONS, BOUNDS))
    decoded = [batch.decode(entry.data) for entry in entries]
    assert sorted(itertools.chain(*decoded)) == sorted(records)
    for entry, held in zip(entries, decoded, strict=True):
        assert {record.bucket % PARTITIONS for record in held} == {entry.partition}
        assert entry.records == len(held) <= 4
    floors = floor_entries(stamp(1), PARTITIONS)
    assert [entry.partition for entry in floors] == list(range(PARTITIONS))
    assert all(entry.records == 0 for entry in floors)
    assert list(value_entries([], PARTITIONS, BOUNDS)) == []


FACTS = [*(entity(name, case) for case in CASES for _, name in NAMES), entity("a", "c1", 2, Op.DELETE)]


def everything() -> list[Record]:
    """Facts, a deleted entity that both runs annotate, and two runs with their floors."""
    runs: list[Record] = []
    for run, scores in ((1, [0.9, 0.1, 0.1, 0.2, 0.3, 0.4]), (2, [0.9, 0.5, 0.1, 0.2, 0.3, 0.05])):
        runs += planned(run, scores, EVERYONE)
        runs += [record for entry in floor_entries(stamp(run), 2) for record in batch.decode(entry.data)]
    return FACTS + runs


def test_the_last_run_is_cleared_and_the_deleted_stay_deleted() -> None:
    fold = Fold().apply_all(everything())
    assert {key: msgspec.json.decode(r.props)["run"] for key, r in values(fold).items()} == {
        ("c1", "a"): 2, ("c1", "b"): 2, ("c2", "b"): 2, ("c2", "e"): 2,
    }  # fmt: skip
    without = Fold().apply_all(FACTS)
    assert fold.export_lines() == without.export_lines(), "overlays annotate and never make visible"
    assert not any('"id":"a"' in line and '"case":"c1"' in line for line in fold.export_lines())


@pytest.mark.parametrize("seed", range(20))
def test_in_any_order_and_twice(seed: int) -> None:
    shuffled = everything() * 2
    random.Random(seed).shuffle(shuffled)
    assert Fold().apply_all(shuffled).state_lines() == Fold().apply_all(everything()).state_lines()


def test_the_first_index_of_a_run_is_not_below_its_floor() -> None:
    one = planned(7, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0], membership((0, 0)))
    floors = [record for entry in floor_entries(stamp(7), 1) for record in batch.decode(entry.data)]
    assert len(values(Fold().apply_all([*one, *floors]))) == 1
    later = [record for entry in floor_entries(stamp(8), 1) for record in batch.decode(entry.data)]
    assert not values(Fold().apply_all([*one, *later]))


def test_entries_are_bounded_in_bytes() -> None:
    records = planned(1, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], EVERYONE, k=6)
    small = list(value_entries(records, 1, BOUNDS._replace(entry_records=1000, entry_bytes=700)))
    assert [entry.records for entry in small] == [3, 3, 3, 2]
    assert [r for entry in small for r in batch.decode(entry.data)] == records
    with pytest.raises(Rejected, match="bytes; at most 100"):
        plan(stamp(1), top_by_case(np.ones(6), EVERYONE, 1), {}, CASES, dict(enumerate(NAMES)),
             {v: {"note": "x" * 99} for v in range(6)}, BOUNDS._replace(record_bytes=100))  # fmt: skip
