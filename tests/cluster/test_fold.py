"""The fold is a function of the set of records, and each execution that the design names is stopped."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import batch, versions
from cluster.config import RecordLimits
from cluster.errors import BadRecord, Corrupt
from cluster.fold import Floors, Fold, Outcome, fold_batch, hash_lines, thing_of
from cluster.model import Op, Record, floor_record, priority_record
from cluster.stores.log import entry_as_read
from cluster.values import canonical_json, normal_value
from tests.strategies import facts, histories, make


def entity(position: int, source: str = "crm", op: int = Op.UPSERT, props: str = "{}", id: str = "a") -> Record:
    return make("acme", "c1", 0, "person", id, source, position, op, props=props)


def relationship(position: int, a: str, b: str, op: int = Op.UPSERT) -> Record:
    return make("acme", "c1", 1, "KNOWS", "r", "crm", position, op, ("person", a, "person", b))


@given(histories, st.integers(0, 2**32))
def test_order_and_repetition_do_not_matter(records: list[Record], seed: int) -> None:
    rnd = random.Random(seed)
    again = [*records, *rnd.choices(records, k=len(records))] if records else []
    rnd.shuffle(again)
    one, other = Fold().apply_all(records), Fold().apply_all(again)
    assert one.state_lines() == other.state_lines()
    assert one.export_lines() == other.export_lines()
    assert hash_lines(one.export_lines()) == hash_lines(other.export_lines())


@given(st.lists(facts(), max_size=30))
def test_a_batch_folds_to_one_row_a_register_and_loses_no_outcome(records: list[Record]) -> None:
    kept, settled, _ = fold_batch(records, Floors())
    assert len(kept) + len(settled) == len(records)
    registers = {(thing_of(r), r.source) for r in records}
    assert len(kept) == len(registers) == len({(thing_of(r), r.source) for r in kept})
    assert Fold().apply_all(kept).state_lines() == Fold().apply_all(records).state_lines()
    assert {o for _, o in settled} <= {Outcome.DUPLICATE, Outcome.STALE}


def test_a_late_older_record_changes_nothing() -> None:
    fold = Fold()
    assert [fold.apply(entity(2)), fold.apply(entity(1)), fold.apply(entity(2))] == [
        Outcome.NEW, Outcome.STALE, Outcome.DUPLICATE,
    ]  # fmt: skip


def test_of_two_contents_of_one_version_the_greater_hash_wins_in_any_order() -> None:
    a, b = entity(1, props='{"v":1}'), entity(1, props='{"v":2}')
    assert Fold().apply_all([a, b]).state_lines() == Fold().apply_all([b, a]).state_lines()
    assert fold_batch([a, b], Floors())[2] == {(a.tenant, a.source): 1}


def test_a_late_update_does_not_revive_a_tombstone() -> None:
    assert Fold().apply_all([entity(3, op=Op.DELETE), entity(2)]).export_lines() == []


def test_a_delete_touches_its_own_register_only() -> None:
    lines = Fold().apply_all([entity(1, "crm"), entity(1, "feed"), entity(2, "crm", Op.DELETE)]).export_lines()
    assert len(lines) == 1


def test_an_overlay_makes_nothing_visible() -> None:
    assert Fold().apply_all([make("acme", "c1", 0, "person", "a", "overlay/x", 1)]).export_lines() == []


def test_each_property_comes_from_the_highest_priority_then_the_least_name() -> None:
    records = [entity(1, "crm", props='{"a":1,"b":1}'), entity(1, "feed", props='{"a":2,"c":2}')]
    assert '"props":{"a":1,"b":1,"c":2}' in Fold().apply_all(records).export_lines()[0]
    records.append(priority_record("acme", "feed", 5, 1, 0))
    assert '"props":{"a":2,"b":1,"c":2}' in Fold().apply_all(records).export_lines()[0]


def test_a_floor_hides_older_registers_whenever_they_come_and_nothing_else() -> None:
    floor = floor_record("acme", "crm", "", versions.encode(1, [5]), 0)
    for order in ([entity(4), floor], [floor, entity(4)]):
        assert Fold().apply_all(order).export_lines() == []
    kept = Fold().apply_all([floor, entity(5), entity(4, "feed", id="b")])
    assert len(kept.export_lines()) == 2


def test_a_relationship_waits_for_its_ends_and_moves_with_them() -> None:
    fold = Fold().apply_all([relationship(1, "a", "b"), entity(1, id="a")])
    assert len(fold.export_lines()) == 1
    fold.apply(entity(1, id="b"))
    assert len(fold.export_lines()) == 3
    fold.apply(relationship(2, "a", "gone"))
    assert len(fold.export_lines()) == 2


@given(st.lists(facts(), max_size=20))
def test_a_batch_comes_back_from_its_bytes(records: list[Record]) -> None:
    assert batch.decode(batch.encode(records)) == [Record(*map(_plain, r)) for r in records]


def _plain(value: object) -> object:
    return int(value) if isinstance(value, int) else value


def test_bytes_that_are_no_batch_are_corrupt() -> None:
    good = batch.encode([entity(1)])
    for bad in (b"junk", good[: len(good) // 2]):
        with pytest.raises(Corrupt):
            batch.decode(bad)


def test_an_entry_that_lost_its_bytes_is_corrupt() -> None:
    assert entry_as_read(7, b"", 0, 1).data == b"", "it fills a number"
    with pytest.raises(Corrupt, match="entry 7 was appended with 2 records"):
        entry_as_read(7, b"", 2, 1)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (1, 1), (1.0, 1.0), (True, True), ("x", "x"), (None, None), ([1, 2], [1, 2]), ([], []),
        ([1, 1.5], "[1,1.5]"), ([1, True], "[1,true]"), ([[1]], "[[1]]"), ({"b": 1, "a": [None]}, '{"a":[null],"b":1}'),
    ],
)  # fmt: skip
def test_values_are_kept_or_become_canonical_text(value: object, kept: object) -> None:
    found = normal_value("x", value, RecordLimits())
    assert found == kept and type(found) is type(kept)


@pytest.mark.parametrize(
    "value",
    [
        "a\x00b",
        ["a\x00"],
        {"a": "\x00"},
        2**63,
        -(2**63) - 1,
        float("nan"),
        float("inf"),
        [2**64],
        "\ud800",
        "x" * 300_000,
    ],
)
def test_values_that_cannot_be_kept_are_refused(value: object) -> None:
    with pytest.raises(BadRecord):
        normal_value("x", value, RecordLimits())


def test_one_and_one_point_zero_differ() -> None:
    assert canonical_json({"a": 1}) != canonical_json({"a": 1.0})
