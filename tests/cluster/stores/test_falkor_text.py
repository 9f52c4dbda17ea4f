"""The parameter text, fuzzed against a real FalkorDB: what goes in comes out, and nothing else happens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster.embedded import Running
from cluster.errors import Rejected
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_text import header, literal, name, properties, string, survives
from cluster.values import canonical_json

texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=40)
hostile = st.lists(st.sampled_from(list("'\"\\`{}[]$:,\n\r\t\x01\x7f é😀 nu0x/*-")), max_size=20).map("".join)
floats = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
values = st.one_of(texts, hostile, st.booleans(), integers, floats, st.lists(hostile, max_size=3))
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,12}", fullmatch=True)


@pytest.fixture
def client(falkor_server: Running, unique: str) -> Iterator[FalkorClient]:
    opened = FalkorClient(f"unix://{falkor_server.socket}", falkor_server.password, graph=unique)
    opened.write("CREATE (:Here)", {})
    yield opened
    opened.close()


fuzz = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(st.one_of(texts, hostile))
@example("' RETURN 1 //")
@example('"}] UNWIND [1] AS x CREATE (:Owned) //')
@example("\\")
@example("\\'")
def test_any_text_is_a_value_and_nothing_else(client: FalkorClient, text: str) -> None:
    assert client.read("RETURN $x, $y", {"x": text, "y": [text, {"a": text}["a"]]}) == [[text, [text, text]]]
    assert client.read("MATCH (n) RETURN count(n)", {}) == [[1]]


@fuzz
@given(st.lists(st.one_of(texts, hostile, st.sampled_from(["plain", 'a","b', "'"]), st.integers(0, 9)), max_size=9))
@example(["a", "b", "c", "d"])
@example(["a", "b", '"', "d"])
@example(["a", "b", "c", "\\"])
@example(["a", "b", "c", 1])
def test_a_list_is_written_as_its_items_are(client: FalkorClient, items: list[str | int]) -> None:
    assert client.read("RETURN $x", {"x": items}) == [[items]]
    assert literal(items) in (f"[{','.join(map(literal, items))}]", "[]")


@fuzz
@given(st.dictionaries(names, values, max_size=6))
@example({"x": -0.0, "y": 5e-324, "z": 0.1 + 0.2, "w": [5e-324, 1e308]})
@example({"a": '","b":"', "b": '"b":'})
def test_properties_come_back_as_they_were_sent(client: FalkorClient, props: dict[str, Any]) -> None:
    text = canonical_json(props)
    entries, exact = properties(text)
    client.send([f"CYPHER r={{`_`:1{entries}}} MERGE (x:Thing) SET x = $r"])
    client.receive()
    stored = client.read("MATCH (x:Thing) RETURN properties(x)", {})[0][0]
    del stored["_"]
    for key, value in json.loads(json.dumps(exact or {})).items():
        stored[key] = value
    assert canonical_json(stored) == canonical_json({k: v for k, v in props.items() if v is not None})


@given(floats)
def test_a_float_survives_or_is_known_not_to(value: float) -> None:
    if survives(value):
        back = float(f"{value:.15g}")
        assert back == value and math.copysign(1, back) == math.copysign(1, value)


@pytest.mark.parametrize("text", ["", "a`b", "1a", "a b", "é", "a\n", "a$"])
def test_a_name_is_allow_listed(text: str) -> None:
    with pytest.raises(Rejected):
        name(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_no_value_is_refused(value: Any) -> None:
    with pytest.raises(Rejected):
        literal(value)


def test_the_header_names_each_parameter() -> None:
    assert header({"a": 1, "b": None, "c": True}) == "CYPHER a=1 b=null c=true "
    assert string("a'b\"c") == "'a\\'b\"c'"
