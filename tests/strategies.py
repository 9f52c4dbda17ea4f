"""Hypothesis strategies of records: few tenants, cases, ids, sources and positions, so that everything collides."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import strategies as st

from actors.stages import record_of
from cluster import versions
from cluster.model import KIND_NAMES, OP_NAMES, Event, Kind, Op, Record, Ref, floor_record, priority_record
from cluster.values import canonical_json

TENANTS = ("acme", "globex")
CASES = ("c1", "c2")
SOURCES = ("crm", "feed", "overlay/pagerank")
IDS = ("a", "b", "c")
TYPES = ("person", "org")
REL_TYPES = ("KNOWS", "owns-1")

_text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=6)
_scalar = st.one_of(
    _text,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.one_of(
    _scalar,
    st.lists(_text, max_size=3),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    st.lists(st.booleans(), max_size=3),
)
names = st.sampled_from(("name", "score", "a.b", "x-y", "label"))
props = st.dictionaries(names, values, max_size=3).map(canonical_json)
times = st.sampled_from(("", "2026-01-01T00:00:00Z"))


def make(
    tenant: str, case: str, kind: int, type: str, id: str, source: str, position: int, op: int = Op.UPSERT,
    ends: tuple[str, str, str, str] = ("", "", "", ""), props: str = "{}", claim: str = "", time: str = "",
    epoch: int = 1,
) -> Record:  # fmt: skip
    """A record made as the ingest path makes it."""
    a, b = (Ref(type=end[0], id=end[1]) if end[0] else None for end in (ends[:2], ends[2:]))
    related = kind == Kind.RELATIONSHIP
    predicate, value, confidence = msgspec.json.decode(claim) if claim else (None, None, None)
    event = Event(
        case=case, kind=KIND_NAMES[kind], op=OP_NAMES[op], type=type, id=id, props=msgspec.json.decode(props),
        from_=a if related else None, to=b if related else None, subject=None if related else a, predicate=predicate,
        value=value, confidence=confidence, event_time=time or None,
    )  # fmt: skip
    return record_of(event, tenant, source, epoch, [position])


@st.composite
def facts(draw: Any) -> Record:
    """An entity, relationship or claim record."""
    kind = draw(st.sampled_from((Kind.ENTITY, Kind.ENTITY, Kind.RELATIONSHIP, Kind.CLAIM)))
    source = draw(st.sampled_from(SOURCES[:2] if kind != Kind.ENTITY else SOURCES))
    end = st.tuples(st.sampled_from(TYPES), st.sampled_from(IDS))
    a, b = draw(end), draw(end)
    ends = (*a, *b) if kind == Kind.RELATIONSHIP else (*a, "", "") if kind == Kind.CLAIM else ("", "", "", "")
    claim = canonical_json([draw(names), draw(values), draw(st.none() | st.just(0.5))]) if kind == Kind.CLAIM else ""
    types = REL_TYPES if kind == Kind.RELATIONSHIP else TYPES
    return make(
        draw(st.sampled_from(TENANTS)), draw(st.sampled_from(CASES)), kind, draw(st.sampled_from(types)),
        draw(st.sampled_from(IDS)), source, draw(st.integers(1, 6)), draw(st.sampled_from((0, 0, 0, 1))),
        ends, draw(props), claim, draw(times),
    )  # fmt: skip


floors = st.builds(
    lambda tenant, source, type, position: floor_record(tenant, source, type, versions.encode(1, [position]), 0),
    st.sampled_from(TENANTS), st.sampled_from(SOURCES), st.sampled_from(("", *TYPES, *REL_TYPES)), st.integers(1, 6),
)  # fmt: skip
priorities = st.builds(
    lambda tenant, source, priority, revision: priority_record(tenant, source, priority, revision, 0),
    st.sampled_from(TENANTS), st.sampled_from(SOURCES[:2]), st.integers(0, 3), st.integers(1, 4),
)  # fmt: skip
_any_record = st.one_of(facts(), facts(), facts(), facts(), facts(), floors, priorities)
_PROPS = (
    "{}",
    '{"name":"x"}',
    '{"name":"y"}',
    '{"score":1}',
    '{"score":1.0}',
    '{"a.b":true,"name":"z"}',
    '{"x-y":[1,2]}',
)


def crowd(seed: int, size: int) -> list[Record]:
    """Records of a seed that meet all the time: one case of each tenant, few things, several sources on each; one of
    ten is a floor or a priority. A smaller size gives the beginning of a larger one."""
    rnd = random.Random(seed)
    return [_crowded(rnd) for _ in range(size)]


def _crowded(rnd: random.Random) -> Record:
    tenant, source = rnd.choice(TENANTS), rnd.choice(SOURCES[:2])
    if rnd.random() < 0.1:
        if rnd.random() < 0.5:
            return priority_record(tenant, source, rnd.randrange(4), rnd.randint(1, 9), 0)
        source, type_ = rnd.choice((*SOURCES, source)), rnd.choice(("", "person", REL_TYPES[0]))
        return floor_record(tenant, source, type_, versions.encode(1, [rnd.randint(1, 12)]), 0)
    kind = rnd.choice((Kind.ENTITY, Kind.ENTITY, Kind.RELATIONSHIP, Kind.RELATIONSHIP, Kind.CLAIM))
    a, b = (("person", rnd.choice(IDS)) for _ in "ab")
    ends = (*a, *b) if kind == Kind.RELATIONSHIP else (*a, "", "") if kind == Kind.CLAIM else ("", "", "", "")
    if kind == Kind.ENTITY and rnd.random() < 0.15:
        source = SOURCES[2]
    claim = f'["said",{rnd.randrange(3)},null]' if kind == Kind.CLAIM else ""
    type_ = rnd.choice(REL_TYPES) if kind == Kind.RELATIONSHIP else "person"
    id_ = rnd.choice(IDS[:2] if kind == Kind.CLAIM else IDS)
    op = Op.DELETE if rnd.random() < 0.2 else Op.UPSERT
    return make(tenant, CASES[0], kind, type_, id_, source, rnd.randint(1, 20), op, ends, rnd.choice(_PROPS), claim)


histories = st.one_of(st.lists(_any_record, max_size=40), st.builds(crowd, st.integers(0, 2**32), st.integers(0, 80)))
"""Lists have any values and mostly too few records to meet; crowds meet."""
