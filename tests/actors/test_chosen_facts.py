"""Which facts a replay takes: against the plain meaning of each filter, and each record once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.chosen_facts import Chosen, Once
from cluster import batch, versions
from cluster.errors import Rejected
from cluster.model import Kind, Record, floor_record, priority_record
from tests.strategies import make

FLOORS = [
    floor_record("acme", "crm", "", versions.encode(1, [3]), 0),
    priority_record("acme", "crm", 5, 1, 0),
    floor_record("beta", "crm", "", versions.encode(1, [3]), 0),
]
FACTS = [
    make(tenant, case, Kind.ENTITY, "person", id, source, position)
    for tenant in ("acme", "beta")
    for case in ("c1", "c2")
    for source in ("crm", "feed")
    for id, position in (("p1", 1), ("p2", 15), ("p1", 16), ("p2", 300))
]
FACTS += [make("acme", "c1", Kind.RELATIONSHIP, "KNOWS", "p1", "crm", 16, ends=("person", "p1", "person", "p2"))]


def taken(chosen: Chosen) -> list[Record]:
    return batch.records_of(chosen.of(batch.frame_of([*FACTS, *FLOORS])))


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (Chosen(None), lambda r: True),
        (Chosen("acme"), lambda r: r.tenant == "acme"),
        (Chosen("acme", source="crm"), lambda r: (r.tenant, r.source) == ("acme", "crm")),
        (Chosen("acme", case="c1"), lambda r: (r.tenant, r.case) == ("acme", "c1")),
        (Chosen("acme", type="KNOWS"), lambda r: (r.tenant, r.type) == ("acme", "KNOWS")),
        (Chosen("acme", case="c2", type="person", id="p1"), lambda r: (r.tenant, r.case, r.id) == ("acme", "c2", "p1")),
        (Chosen("nobody"), lambda r: False),
    ],
)  # fmt: skip
def test_filters(chosen: Chosen, wanted: Callable[[Record], bool]) -> None:
    found = taken(chosen)
    assert [r for r in found if r.kind < Kind.FLOOR] == [r for r in FACTS if wanted(r)]


@pytest.mark.parametrize(("first", "last"), [(1, 15), (16, None), (None, 16), (15, 16), (17, 299), (2, 2)])
def test_positions_are_compared_as_numbers(first: int | None, last: int | None) -> None:
    chosen = Chosen("acme", "crm", first=first and (first,), last=last and (last,))  # type: ignore[arg-type]
    found = {versions.decode(r.version)[1][0] for r in taken(chosen) if r.kind < Kind.FLOOR}
    assert found == {n for n in (1, 15, 16, 300) if (first or 0) <= n <= (last or 1_000)}


def test_a_position_includes_what_is_within_it_whatever_the_epoch() -> None:
    stamps = [versions.encode(epoch, position) for epoch in (0, 7, 2**63) for position in ([4, 9], [5], [5, 1], [6])]
    rows = [FACTS[0]._replace(stamp=f"{stamp}.{'0' * 15}") for stamp in stamps]
    found = batch.records_of(Chosen("acme", "crm", first=(5,), last=(5,)).of(batch.frame_of(rows)))
    assert [versions.decode(r.version)[1] for r in found] == [(5,), (5, 1)] * 3


def test_floors_and_priorities_of_the_same_sources_come_along() -> None:
    assert set(taken(Chosen("acme", case="c1", type="person", id="p1"))) & set(FLOORS) == set(FLOORS[:2])
    assert set(taken(Chosen("acme", source="crm", first=(300,)))) & set(FLOORS) == set(FLOORS[:2])
    assert set(taken(Chosen("acme", source="feed"))) & set(FLOORS) == set()
    assert set(taken(Chosen(None))) & set(FLOORS) == set(FLOORS)


def test_times_of_entries() -> None:
    chosen = Chosen("acme", since_ms=10, until_ms=20)
    assert [at for at in (9, 10, 19, 20) if chosen.in_time(at)] == [10, 19]


@pytest.mark.parametrize(
    ("parts", "reason"), [({"first": (1,)}, "--source"), ({"last": (1,)}, "--source"), ({"id": "p1"}, "--type")]
)
def test_what_does_not_go_together(parts: dict[str, object], reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        Chosen("acme", **parts)  # type: ignore[arg-type]


def test_each_record_once_in_order() -> None:
    once, rows = Once(), batch.frame_of
    assert batch.records_of(once.first(rows([FACTS[0], FACTS[1], FACTS[0]]))) == FACTS[:2]
    assert batch.records_of(once.first(rows(FACTS[:5][::-1]))) == FACTS[2:5][::-1]
    assert once.first(rows(FACTS[:5])).is_empty()
    other_case = FACTS[0]._replace(case="other")
    assert batch.records_of(once.first(rows([other_case]))) == [other_case]
