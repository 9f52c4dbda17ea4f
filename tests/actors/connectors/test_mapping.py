"""Mappings: both notations, templates, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connectors import mapping_from_pairs, mapping_from_yaml
from actors.connectors.mapping import Column, template_parts
from actors.connectors.rows import typed
from cluster.errors import BadRecord, Rejected


def test_pairs_and_yaml_say_the_same() -> None:
    pairs = [
        "type=person",
        "id={email}",
        "props=name, age",
        "props.full_name=Full Name",
        "types.age=int",
        "delimiter=;",
    ]
    text = """
    {types: {age: int}, delimiter: ";",
     events: [{type: person, id: "{email}", props: {name: name, age: age, full_name: Full Name}}]}
    """
    assert mapping_from_pairs(pairs) == mapping_from_yaml(text)
    several = mapping_from_pairs(
        ["1.type=person", "1.id={a}", "2.kind=relationship", "2.type=knows", "2.id={a}-{b}", "2.from.type=person",
         "2.from.id={a}", "2.to.type=person", "2.to.id={b}", "2.constants.sure=yes"]
    )  # fmt: skip
    assert [event.kind for event in several.events] == ["entity", "relationship"]
    assert several.events[1].from_ is not None
    assert several.events[1].from_.id == "{a}"


def test_templates() -> None:
    assert template_parts("a{b c}d{e}") == ["a", Column("b c"), "d", Column("e")]
    assert [type(part) for part in template_parts("{x}")] == [Column]
    assert template_parts("{{x}}") == ["{x}"]
    assert template_parts("") == [""]


@given(st.text("ab{}", max_size=12))
def test_templates_are_read_or_refused(text: str) -> None:
    try:
        parts = template_parts(text)
    except ValueError:
        return
    back = "".join(
        "{" + part + "}" if isinstance(part, Column) else part.replace("{", "{{").replace("}", "}}") for part in parts
    )
    assert template_parts(back) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{type: person}", "id: Field required"),
        ("{type: person, id: '{a'}", "a lone brace"),
        ("{type: person, id: '{a}', colour: x}", "colour: Extra inputs are not permitted"),
        ("{kind: relationship, type: knows, id: '{a}'}", "relationship needs 'from'"),
        ("{type: person, id: '{a}', to: {type: x, id: y}}", "entity has no 'to'"),
        ("{type: person, id: '{a}', props: [first name]}", "'first name' cannot be a property's name: rename it"),
        ("{type: person, id: '{a}', props: {id: a}}", "'id' cannot be a property's name"),
        ("{type: person, id: '{a}', types: {a: date}}", "types.a"),
        ("[1]", "write `key: value` lines"),
        ("{", "mapping:"),
        ("{events: []}", "events"),
        ("{}", "events"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(Rejected) as refused:
        mapping_from_yaml(text)
    assert message in str(refused.value)


def test_pairs_that_are_none() -> None:
    with pytest.raises(Rejected, match="no key=value"):
        mapping_from_pairs(["type"])
    with pytest.raises(Rejected, match="exclude each other"):
        mapping_from_pairs(["from=x", "from.id=y"])


def test_columns_are_checked_against_the_file() -> None:
    mapping = mapping_from_pairs(["type=person", "id={emial}", "when=email"])
    with pytest.raises(Rejected) as refused:
        mapping.check_columns(["email", "name"])
    assert str(refused.value) == (
        "mapping, events[1].id: no column 'emial'. Did you mean 'email'? Columns: 'email', 'name'"
    )
    mapping_from_pairs(["type=person", "id={who.mail}"]).check_columns(["who"], prefixes=True)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("007", "int", 7), ("-5", "int", -5), ("1e3", "float", 1000.0), ("Yes", "bool", True), ("0", "bool", False),
     ("007", "string", "007"), ('{"a":[1]}', "json", {"a": [1]})],
)  # fmt: skip
def test_cells_as_their_declared_type(text: str, kind: str, value: object) -> None:
    found = typed(text, kind, "c")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("1.0", "int"), ("1_000", "int"), ("١", "int"), (" 1", "int"), ("nan", "float"), ("inf", "float"),
     ("1_0", "float"), ("maybe", "bool"), ("{", "json"), ("[" * 100_000, "json"), ("9" * 5000, "int")],
)  # fmt: skip
def test_cells_that_are_not(text: str, kind: str) -> None:
    with pytest.raises(BadRecord, match="column 'c'"):
        typed(text, kind, "c")
