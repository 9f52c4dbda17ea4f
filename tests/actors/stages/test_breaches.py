"""Every rule that an event breaks: the same ones that the stages know, and all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stages import Bad, Origin, decode, normalise, validate
from actors.stages.breaches import breaches
from cluster.config import RecordLimits
from tests.actors.stages.test_stages import BAD, BASE, CLAIM, REL

LIMITS = RecordLimits()
ORIGIN = Origin(frozenset({"acme"}), frozenset({"crm"}))
ODD: list[Any] = [None, True, "", "x", "\x00", "a b", 1, -1, 2**64, 0.5, [], [1], ["x", None], {},
                  {"type": "t", "id": "i"}, {"type": "", "id": ""}, {"a": 1}, {"id": 2**63, "a b": "\x00"},
                  "2026-01-01T00:00:00Z", "entity",
                  "claim", "relationship", "delete", "upsert"]  # fmt: skip
FIELDS = sorted({*BASE, *REL, *CLAIM, "confidence", "props", "epoch", "partition", "position", "event_time", "colour"})


def refused(event: Any) -> bool:
    """Whether the stages refuse it, whoever sends it."""
    events = validate(decode([json.dumps(event).encode()], LIMITS), ORIGIN, LIMITS)
    return isinstance(normalise(events, LIMITS)[0], Bad)


@pytest.mark.parametrize(
    ("names", "event"),
    [(names, event) for error_class, names, event in BAD
     if isinstance(event, dict) and error_class != "policy" and names != "record"],
)  # fmt: skip
def test_what_the_stages_refuse_breaks_a_rule(names: str, event: Any) -> None:
    assert list(breaches(event, LIMITS))


def test_all_of_them_are_found_each_at_its_place() -> None:
    event = {**REL, "case": 5, "type": "a b", "to": None, "props": {"id": 1, "a": "\x00", "b": 1}, "position": -1,
             "value": 1, "colour": "red"}  # fmt: skip
    del event["op"]
    found = {"/".join(place): rule for place, rule in breaches(event, LIMITS)}
    assert sorted(found) == ["case", "colour", "op", "position", "props/a", "props/id", "to", "type", "value"]
    assert found["case"] == "Expected `str`, got `int`"


def test_of_a_kind_that_is_none_nothing_is_wanted() -> None:
    assert [place for place, _ in breaches({**BASE, "kind": "floor"}, LIMITS)] == [("kind",)]


@given(st.sampled_from([BASE, REL, CLAIM]), st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(ODD), max_size=3),
       st.sets(st.sampled_from(FIELDS), max_size=1))  # fmt: skip
def test_an_event_breaks_a_rule_where_the_stages_refuse_it_and_else_none(
    base: dict[str, Any], changed: dict[str, Any], without: set[str]
) -> None:
    event = {name: value for name, value in {**base, **changed}.items() if name not in {*without, "tenant", "source"}}
    assert bool(list(breaches(event, LIMITS))) == refused(event)
