"""The stages as one function of bytes: what is refused and why, and that what is taken can be stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.stages import Bad, Enrichers, Origin, decode, enrich, normalise, place, record_of, route, validate
from actors.stages.records import restamped
from cluster import batch, versions
from cluster.config import RecordLimits
from cluster.errors import ERROR_CLASSES, Rejected
from cluster.fold import Fold, state_line
from cluster.ids import bucket_of
from cluster.model import Event, Record, Ref
from cluster.stores import falkor_text
from tests import strategies

LIMITS = RecordLimits()
ORIGIN = Origin(frozenset({"acme"}), frozenset({"crm", "feed"}), "crm", epoch=3)
BASE: dict[str, Any] = {"case": "c1", "kind": "entity", "op": "upsert", "type": "person", "id": "ada"}
REL = {**BASE, "kind": "relationship", "type": "KNOWS", "from": {"type": "person", "id": "a"},
       "to": {"type": "person", "id": "b"}}  # fmt: skip
CLAIM = {**BASE, "kind": "claim", "subject": {"type": "person", "id": "a"}, "predicate": "age", "value": 36}


def through(payloads: list[bytes | Bad], origin: Origin = ORIGIN, limits: RecordLimits = LIMITS) -> list[Record | Bad]:
    events = normalise(validate(decode(payloads, limits), origin, limits), limits)
    return place(events, origin, 9, [(100 + index,) for index in range(len(payloads))], limits)


def one(event: Any, **named: Any) -> Record | Bad:
    payload = event if isinstance(event, bytes) else json.dumps(event).encode()
    (slot,) = through([payload], **named)
    return slot


def good(event: Any, **named: Any) -> Record:
    slot = one(event, **named)
    assert isinstance(slot, Record), slot
    return slot


BAD: list[tuple[str, str, Any]] = [
    ("decode", "JSON", b"{"),
    ("decode", "JSON", b""),
    ("decode", "JSON", b"\xff\xfe"),
    ("decode", "JSON", json.dumps(BASE).encode() + b" x"),
    ("decode", "JSON", json.dumps(BASE).replace("ada", "\\ud800").encode()),
    ("decode", "nested", b'{"props":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"),
    ("schema", "null", b"null"),
    ("schema", "array", b"[]"),
    ("schema", "unknown field", {**BASE, "colour": 1}),
    ("schema", "case", {k: v for k, v in BASE.items() if k != "case"}),
    ("schema", "case", {**BASE, "case": 5}),
    ("schema", "case", {**BASE, "case": ""}),
    ("schema", "case", {**BASE, "case": "x" * 257}),
    ("schema", "case", {**BASE, "case": "a\x00"}),
    ("schema", "kind", {**BASE, "kind": "floor"}),
    ("schema", "op", {**BASE, "op": "drop"}),
    ("schema", "id", {**BASE, "id": ""}),
    ("schema", "id", {**BASE, "id": "x" * 1025}),
    ("schema", "id", {**BASE, "id": "\x00"}),
    *[("schema", "type", {**BASE, "type": t}) for t in ("", "1a", "a b", "a`", 'a"', "a" * 65, "é", "a\n", "_a")],
    ("policy", "tenant", {**BASE, "tenant": "globex"}),
    ("policy", "source", {**BASE, "source": "other"}),
    ("policy", "overlay/", {**BASE, "source": "overlay/x"}),
    ("policy", "system/", {**BASE, "source": "system/x"}),
    ("schema", "from", {**BASE, "from": {"type": "p", "id": "x"}}),
    ("schema", "from", {**CLAIM, "to": REL["to"]}),
    ("schema", "from", {k: v for k, v in REL.items() if k != "from"}),
    ("schema", "to", {**REL, "to": None}),
    ("schema", "to.type", {**REL, "to": {"type": "", "id": "x"}}),
    ("schema", "to", {**REL, "to": {"type": "p", "id": ""}}),
    ("schema", "unknown field", {**REL, "to": {"type": "p", "id": "x", "case": "other"}}),
    ("schema", "subject", {k: v for k, v in CLAIM.items() if k != "subject"}),
    ("schema", "predicate", {k: v for k, v in CLAIM.items() if k != "predicate"}),
    ("schema", "predicate", {**CLAIM, "predicate": ""}),
    ("schema", "predicate", {**CLAIM, "predicate": "x" * 257}),
    ("schema", "value", {k: v for k, v in CLAIM.items() if k != "value"}),
    ("schema", "value", {**CLAIM, "value": "\x00"}),
    ("schema", "value", {**CLAIM, "value": 2**63}),
    ("schema", "claims", {**BASE, "value": False}),
    ("schema", "claims", {**BASE, "confidence": 0.0}),
    ("schema", "claims", {**REL, "subject": REL["to"]}),
    ("schema", "confidence", json.dumps({**CLAIM, "confidence": 1}).replace(": 1}", ": 1" + "0" * 400 + "}").encode()),
    ("schema", "confidence", {**CLAIM, "confidence": True}),
    ("schema", "confidence", {**CLAIM, "confidence": "high"}),
    *[("schema", "reserved", {**BASE, "props": {n: 1}}) for n in ("id", "tenant", "case", "_k", "_version", "_")],
    *[("schema", "props", {**BASE, "props": {n: 1}}) for n in ("", "1", "a b", "a`b", "a'", "é", "a" * 129, "a\n")],
    ("schema", "props.a", {**BASE, "props": {"a": 2**63}}),
    ("schema", "props.a", {**BASE, "props": {"a": -(2**63) - 1}}),
    ("schema", "props.a", {**BASE, "props": {"a": [1, 2**64]}}),
    ("schema", "props.a", {**BASE, "props": {"a": "\x00"}}),
    ("schema", "props.a", {**BASE, "props": {"a": {"b": ["\x00"]}}}),
    ("schema", "props", {**BASE, "props": [1]}),
    ("schema", "out of range", json.dumps({**BASE, "props": {"a": 1}}).replace(": 1}", ": 1e999}").encode()),
    ("too_large", "props.a", {**BASE, "props": {"a": "x" * (256 << 10) + "x"}}),
    ("constraint", "items", {**BASE, "props": {"a": [1] * 10_001}}),
    ("constraint", "properties", {**BASE, "props": {f"p{i}": 1 for i in range(257)}}),
    ("too_large", "record", {**BASE, "props": {f"p{i}": "x" * 200_000 for i in range(6)}}),
    ("schema", "position", {**BASE, "position": -1}),
    ("schema", "position", {**BASE, "position": 2**64 - 1}),
    ("schema", "position", {**BASE, "position": []}),
    ("schema", "position", {**BASE, "position": [1] * 9}),
    ("schema", "position", {**BASE, "position": [1, 2**64]}),
    ("schema", "position", {**BASE, "position": 1.5}),
    ("schema", "position", {**BASE, "position": True}),
    ("schema", "position", {**BASE, "position": 10**300}),
    ("schema", "epoch", {**BASE, "epoch": -1, "position": 1}),
    ("schema", "epoch", {**BASE, "epoch": 4}),
    ("schema", "epoch", {**BASE, "epoch": 2**64, "position": 1}),
    ("schema", "partition", {**BASE, "partition": 2**64}),
    ("schema", "partition", {**BASE, "partition": "x" * 257}),
    ("schema", "partition", {**BASE, "partition": "\x00"}),
    ("schema", "event_time", {**BASE, "event_time": "yesterday"}),
    ("schema", "event_time", {**BASE, "event_time": 1}),
]


@pytest.mark.parametrize(("error_class", "names", "event"), BAD)
def test_what_is_refused_and_why(error_class: str, names: str, event: Any) -> None:
    slot = one(event)
    assert isinstance(slot, Bad), slot
    assert slot.error_class == error_class
    assert names in slot.reason
    assert len(slot.reason) < 500


def test_an_entity_becomes_a_record() -> None:
    props = {"b": 1, "a": 1.0, "none": None, "tags": ["x"], "mixed": [1, "x"], "deep": {"z": 1, "a": None}}
    record = good({**BASE, "props": props, "event_time": "2026-01-01T01:00:00+01:00", "partition": 7})
    shown = r'{"a":1.0,"b":1,"deep":"{\"a\":null,\"z\":1}","mixed":"[1,\"x\"]","tags":["x"]}'
    assert record.props == shown
    assert record[:5] == ("acme", "c1", bucket_of("acme", "c1"), 0, 0)
    assert (record.source, record.version) == ("crm", versions.encode(9, [100]))
    assert (record.partition, record.event_time) == ("7", "2026-01-01T00:00:00Z")


def test_null_is_absent() -> None:
    assert good({**BASE, "props": {"a": None}}) == good({**BASE, "props": {}}) == good(BASE)


def test_positions_of_their_own_win_and_take_the_origin_s_epoch() -> None:
    assert good({**BASE, "position": 5}).version == versions.encode(3, [5])
    assert good({**BASE, "position": [5, 6], "epoch": 0}).version == versions.encode(0, [5, 6])
    assert good({**BASE, "position": 2**64 - 2}).version == versions.encode(3, [2**64 - 2])


def test_claims_keep_predicate_value_and_confidence() -> None:
    assert good({**CLAIM, "confidence": 1}).claim == '["age",36,1.0]'
    assert good({**CLAIM, "value": {"b": 1, "a": 2}}).claim == r'["age","{\"a\":2,\"b\":1}",null]'
    assert good(CLAIM)[7:11] == ("person", "a", "", "")


def test_deletes_may_omit_everything_and_keep_nothing() -> None:
    bare = {k: REL[k] for k in ("case", "kind", "type", "id")} | {"op": "delete"}
    assert good(bare) == good({**REL, "op": "delete", "props": {"a": 1}})
    assert good(bare)[7:11] == ("", "", "", "")
    assert good({**bare, "kind": "claim", "type": "person"}).claim == ""
    assert isinstance(one({**bare, "to": {"type": "", "id": "x"}}), Bad)


def test_only_the_platform_writes_overlays() -> None:
    ours = Origin(frozenset({"acme"}), frozenset({"overlay/x", "crm"}), ours=True)
    assert good({**BASE, "source": "overlay/x"}, origin=ours).is_overlay
    assert isinstance(one({**BASE, "source": "crm"}, origin=ours), Bad)
    outside = Origin(frozenset({"acme"}), frozenset({"overlay/x"}))
    assert isinstance(one(BASE, origin=outside), Bad)


def test_tenant_and_source_have_to_be_clear() -> None:
    two = Origin(frozenset({"acme", "globex"}), frozenset({"crm", "feed"}))
    assert "tenant" in one({**BASE, "source": "crm"}, origin=two).reason  # type: ignore[union-attr]
    assert "source" in one({**BASE, "tenant": "acme"}, origin=two).reason  # type: ignore[union-attr]
    assert good({**BASE, "tenant": "globex", "source": "feed"}, origin=two).tenant == "globex"


def test_a_bad_record_keeps_its_place_and_delays_no_other() -> None:
    earlier = Bad("decode", "line 3")
    slots = through([json.dumps(BASE).encode(), b"{", earlier, json.dumps({**BASE, "id": "b"}).encode()])
    assert [type(slot) for slot in slots] == [Record, Bad, Bad, Record]
    assert slots[2] is earlier
    assert slots[3].version == versions.encode(9, [103])  # type: ignore[union-attr]


def test_the_stamp_covers_the_content_and_not_the_key() -> None:
    first = good({**BASE, "props": {"a": 1}})
    assert good({**BASE, "props": {"a": 1}, "id": "other", "source": "feed"}).stamp == first.stamp
    for change in ({"props": {"a": 1.0}}, {"event_time": "2026-01-01T00:00:00Z"}, {"partition": 1}, {"op": "delete"}):
        assert good({**BASE, "props": {"a": 1}, **change}).stamp != first.stamp


@given(strategies.facts())
def test_restamping_is_what_placing_there_would_have_given(record: Record) -> None:
    assert restamped(record, record.version) == record
    assert restamped(restamped(record, "a1a9"), record.version) == record


def test_routing_keeps_order_bounds_entries_and_loses_nothing() -> None:
    events = [{**BASE, "case": f"c{i % 9}", "id": f"n{i}", "props": {"x": "é" * (i * 7 % 50)}} for i in range(300)]
    slots = through([json.dumps(event).encode() for event in events] + [b"bad"])
    routed = route(slots, 4, 4_000)
    assert routed.records == 300
    assert all(len(entry.data) <= 4_000 for entry in routed.entries)
    found = [record for entry in routed.entries for record in batch.decode(entry.data)]
    assert sorted(found) == sorted(slot for slot in slots if isinstance(slot, Record))
    for entry in routed.entries:
        assert {record.bucket % 4 for record in batch.decode(entry.data)} == {entry.partition}
    for case in {record.case for record in found}:
        order = [int(record.id[1:]) for record in found if record.case == case]
        assert order == sorted(order)
    with pytest.raises(Rejected, match="entry_bytes"):
        route(slots, 4, 100)


class Domain:
    name, version = "domain", 2

    def __call__(self, events: list[Event]) -> list[dict[str, object]]:
        return [{"domain": str((e.props or {}).get("mail", "")).partition("@")[2] or None} for e in events]


class Wrong:
    name, version = "wrong", 1

    def __call__(self, events: list[Event]) -> list[dict[str, object]]:
        return [{"_id": 1} for _ in events]


def test_enrichers_add_and_never_replace() -> None:
    enrichers = Enrichers()
    enrichers.register(Domain())
    with pytest.raises(Rejected):
        enrichers.register(Domain())
    assert enrichers.versions() == {"domain": 2}
    mails = [{"mail": "a@b.c"}, {"mail": "a@b.c", "domain": "kept"}, {}]
    events = validate(decode([json.dumps({**BASE, "props": p}).encode() for p in mails], LIMITS), ORIGIN, LIMITS)
    gone, bad = Event(**{**BASE, "op": "delete"}), Bad("decode", "x")
    slots = enrich([*normalise(events, LIMITS), gone, bad], enrichers, LIMITS)
    assert [s.props for s in slots[:3]] == [{"mail": "a@b.c", "domain": "b.c"}, mails[1], {}]  # type: ignore[union-attr]
    assert slots[3:] == [gone, bad]
    enrichers.register(Wrong())
    assert all(isinstance(slot, Bad) for slot in enrich(slots, enrichers, LIMITS)[:3])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
loose_events = st.fixed_dictionaries(
    {
        "case": st.text(min_size=1, max_size=3) | json_values,
        "kind": st.sampled_from(["entity", "relationship", "claim"]),
        "op": st.sampled_from(["upsert", "upsert", "delete"]),
        "type": st.sampled_from(["person", "a-b_1"]) | st.text(max_size=3),
        "id": st.text(min_size=1, max_size=5),
    },
    optional={
        "tenant": st.just("acme"),
        "source": st.sampled_from(["crm", "feed", "overlay/x"]),
        "value": json_values,
        "from": st.just({"type": "p", "id": "é\\'\""}),
        "to": st.just({"type": "p", "id": "x"}),
        "predicate": st.text(max_size=4),
        "subject": st.just({"type": "p", "id": "\u2028"}),
        "confidence": st.integers() | st.floats() | st.none(),
        "props": st.dictionaries(
            st.sampled_from(["a", "b.c", "d-e", "_x"]) | st.text(max_size=3), json_values, max_size=4
        ),
        "epoch": st.integers(-1, 2**65),
        "partition": st.integers() | st.text(max_size=3),
        "position": st.integers(-1, 2**65) | st.lists(st.integers(0, 2**64), max_size=3),
        "event_time": st.sampled_from(["2026-01-01T00:00:00Z", "x"]),
    },
)
payloads = st.one_of(
    st.binary(max_size=40),
    json_values.map(lambda v: json.dumps(v).encode()),
    loose_events.map(lambda e: json.dumps(e).encode()),
    loose_events.map(lambda e: json.dumps(e, ensure_ascii=False).encode(errors="surrogatepass")),
    st.builds(
        lambda e, p: json.dumps({**e, "props": p}).encode(),
        st.sampled_from([BASE, REL, CLAIM]),
        st.dictionaries(strategies.names, json_values, max_size=4),
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(payloads, max_size=4))
def test_anything_is_either_a_bad_record_or_one_that_every_store_takes(some: list[bytes]) -> None:
    slots = through(list(some))
    assert len(slots) == len(some)
    records = [slot for slot in slots if isinstance(slot, Record)]
    assert all(slot.error_class in ERROR_CLASSES and slot.reason.encode() for slot in slots if isinstance(slot, Bad))
    assert batch.decode(batch.encode(records)) == records
    for record in records:
        falkor_text.row(record)
        state_line(record)
    Fold().apply_all(records).export_lines()


@settings(max_examples=200, deadline=None)
@given(payloads)
def test_what_was_normalised_stays_as_it_is(payload: bytes) -> None:
    (first,) = normalise(validate(decode([payload], LIMITS), ORIGIN, LIMITS), LIMITS)
    if isinstance(first, Event):
        before = record_of(first, "acme", "crm", 1, [1])
        (again,) = normalise(validate([first], ORIGIN, LIMITS), LIMITS)
        assert record_of(again, "acme", "crm", 1, [1]) == before  # type: ignore[arg-type]


def test_ends_are_of_the_record_s_own_case() -> None:
    assert set(Ref.__struct_fields__) == {"type", "id"}
