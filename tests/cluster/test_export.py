"""The export is the visible graph as events; sources, order, times and overlays are in the state alone."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from actors.stages import Origin, decode, normalise, place, validate
from actors.stages.records import restamped
from cluster import versions
from cluster.config import RecordLimits
from cluster.fold import Fold
from cluster.model import Kind, Record
from tests.strategies import TENANTS, crowd, histories, make

LIMITS = RecordLimits()


@given(histories)
def test_an_export_is_taken_in_again_and_exports_the_same(records: list[Record]) -> None:
    lines = Fold().apply_all(records).export_lines()
    origin = Origin(frozenset(TENANTS), frozenset({"copy"}), "copy")
    slots = normalise(validate(decode([line.encode() for line in lines], LIMITS), origin, LIMITS), LIMITS)
    again = place(slots, origin, 1, [(number,) for number, _ in enumerate(lines)], LIMITS)
    assert all(isinstance(record, Record) for record in again), again
    assert Fold().apply_all(again).export_lines() == lines  # type: ignore[arg-type]


def told_otherwise(records: list[Record], first: int) -> list[Record]:
    """The same facts of other sources, at other positions of another epoch, with other times and partitions."""
    return [
        restamped(
            r._replace(source=f"z-{r.source}", event_time="2031-02-03T04:05:06Z", partition="9"),
            versions.encode(7, [first + number]),
        )
        for number, r in enumerate(records)
    ]


@given(st.integers(0, 2**32), st.integers(0, 80), st.integers(0, 10**9))
def test_sources_positions_and_times_are_in_the_state_and_not_in_the_export(seed: int, size: int, first: int) -> None:
    facts = [r for r in crowd(seed, size) if r.kind < Kind.FLOOR and not r.is_overlay]
    facts = [restamped(r, versions.encode(1, [number])) for number, r in enumerate(facts)]
    one, other = Fold().apply_all(facts), Fold().apply_all(told_otherwise(facts, first))
    assert one.export_lines() == other.export_lines()
    assert not facts or one.state_lines() != other.state_lines()


@given(st.integers(0, 2**32), st.integers(0, 80))
def test_overlays_are_in_the_state_and_not_in_the_export(seed: int, size: int) -> None:
    records, rnd = crowd(seed, size), random.Random(seed)
    ranked = [
        make(r.tenant, r.case, Kind.ENTITY, r.type, r.id, "overlay/other", 1 + number, props='{"rank":0.5,"asOf":"x"}')
        for number, r in enumerate(records)
        if r.kind == Kind.ENTITY
    ]
    mixed = records + ranked
    rnd.shuffle(mixed)
    one, other = Fold().apply_all(records), Fold().apply_all(mixed)
    assert one.export_lines() == other.export_lines()
    assert not ranked or one.state_lines() != other.state_lines()
