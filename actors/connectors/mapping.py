"""How rows of any shape become events: a mapping of columns, in YAML or as `key=value` pairs.

    types: {age: int}                 # type of a column's values; without: string (CSV), as it is (JSON, Parquet)
    delimiter: ";"                    # CSV only
    events:                           # one event of each for every row, in this order
      - {kind: entity, type: person, id: "{email}", props: [name, age]}
      - {kind: entity, type: company, id: "{firm}", when: firm, props: {name: firm}}
      - {kind: relationship, type: works_for, id: "{email} at {firm}", when: firm,
         from: {type: person, id: "{email}"}, to: {type: company, id: "{firm}"}, constants: {role: staff}}

Text with `{column}` in it is filled from the row (`{{` and `}}` stand for braces); a template that is nothing but
one `{column}` keeps the value's type. Other text is a constant. An empty cell is absent: as a property it is left
out; where a key needs it the row is a bad record, unless `when` names a column whose emptiness skips the event.
Columns within JSON objects and Parquet structs are named with dots.

As pairs: `type=person`, `id={email}`, `props=name,age`, `props.full_name=name`, `constants.role=staff`,
`types.age=int`, `delimiter=;`; for several events `1.type=person`, `2.kind=relationship`, `2.from.id={email}`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cluster.errors import Rejected

ColumnType = Literal["string", "int", "float", "bool", "json"]
_PROPERTY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")
_EVENTS_MAX = 32


class Column(str):
    """The name of a column inside a template."""

    __slots__ = ()


def template_parts(text: str) -> list[str | Column]:
    """Literal texts and columns of a template, in order.

    Raises:
        ValueError: a brace stands alone.
    """
    parts: list[str | Column] = []
    literal, at = "", 0
    for token in _TOKEN.finditer(text):
        literal += text[at : token.start()]
        at = token.end()
        if token[0] in ("{{", "}}"):
            literal += token[0][0]
        elif token[1] is None:
            raise ValueError(f"a lone brace in {text!r}: write {{column}}, or {{{{ for a brace")
        else:
            parts += [literal, Column(token[1])] if literal else [Column(token[1])]
            literal = ""
    literal += text[at:]
    return [*parts, literal] if literal or not parts else parts


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @field_validator("*")
    @classmethod
    def _braces_are_closed(cls, value: Any) -> Any:
        if isinstance(value, str):
            template_parts(value)
        return value


class EndMapping(_Part):
    """One end of a relationship, or the subject of a claim."""

    type: str = Field(min_length=1)
    id: str = Field(min_length=1)


class EventMapping(_Part):
    """One event that each row gives; all texts are templates, save `when` and the values of `props` (columns)."""

    kind: Literal["entity", "relationship", "claim"] = "entity"
    op: str = "upsert"
    tenant: str | None = None
    case: str | None = None
    type: str = Field(min_length=1)
    id: str = Field(min_length=1)
    from_: EndMapping | None = Field(None, alias="from")
    to: EndMapping | None = None
    subject: EndMapping | None = None
    predicate: str | None = None
    value: str | None = None
    confidence: str | float | None = None
    event_time: str | None = None
    props: dict[str, str] = {}
    constants: dict[str, bool | int | float | str] = {}
    when: str | None = None

    @field_validator("props", mode="before")
    @classmethod
    def _names_are_columns(cls, value: Any) -> Any:
        return {str(name): name for name in value} if isinstance(value, list) else value

    @field_validator("props", "constants")
    @classmethod
    def _names_are_properties(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not _PROPERTY_NAME.fullmatch(name) or name in ("id", "tenant", "case"):
                raise ValueError(f"{name!r} cannot be a property's name: rename it, as in {{other_name: {name}}}")
        return value

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        needs = {"relationship": ("from_", "to"), "claim": ("subject", "predicate", "value"), "entity": ()}
        for kind, names in needs.items():
            for name in names:
                if (getattr(self, name) is not None) != (kind == self.kind):
                    verb = "needs" if kind == self.kind else "has no"
                    raise ValueError(f"{self.kind} {verb} {name.rstrip('_')!r}")
        if self.confidence is not None and self.kind != "claim":
            raise ValueError(f"{self.kind} has no 'confidence'")
        return self

    def templates(self) -> Iterator[tuple[str, str]]:
        """(dotted field of the event, template) of every field that is set, properties aside."""
        ends = {"from": self.from_, "to": self.to, "subject": self.subject}
        for name in ("tenant", "case", "kind", "op", "type", "id"):
            if (text := getattr(self, name)) is not None:
                yield name, text
        for name, end in ends.items():
            if end is not None:
                yield from ((f"{name}.type", end.type), (f"{name}.id", end.id))
        for name in ("predicate", "value", "confidence", "event_time"):
            if isinstance(text := getattr(self, name), str):
                yield name, text

    def columns(self) -> Iterator[tuple[str, str]]:
        """(where it is used, column) of every column that the event reads."""
        for name, text in self.templates():
            yield from ((name, part) for part in template_parts(text) if isinstance(part, Column))
        yield from ((f"props.{name}", column) for name, column in self.props.items())
        if self.when is not None:
            yield "when", self.when


class ColumnMapping(_Part):
    """The whole mapping of one file's rows."""

    types: dict[str, ColumnType] = {}
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    events: tuple[EventMapping, ...] = Field(min_length=1, max_length=_EVENTS_MAX)

    def check_columns(self, columns: Sequence[str], prefixes: bool = False) -> None:
        """Refuse a mapping that names a column which the file lacks.

        Args:
            columns: names in the file.
            prefixes: a name may also reach into a column, as `address.city` does.

        Raises:
            Rejected: the message names the column, where it is used, and the columns there are.
        """
        known = set(columns)
        used = [(f"events[{n}].{where}", c) for n, e in enumerate(self.events, 1) for where, c in e.columns()]
        for where, column in [*used, *(("types", column) for column in self.types)]:
            if column not in known and not (prefixes and column.split(".")[0] in known):
                near = difflib.get_close_matches(column, columns, 1)
                meant = f" Did you mean {near[0]!r}?" if near else ""
                raise Rejected(f"mapping, {where}: no column {column!r}.{meant} Columns: {listed(columns)}")


def listed(columns: Sequence[str]) -> str:
    """Column names for a message, the first fifty."""
    shown = ", ".join(repr(column[:80]) for column in columns[:50])
    return f"{shown}, and {len(columns) - 50} more" if len(columns) > 50 else shown


def parse_mapping(values: Mapping[str, Any]) -> ColumnMapping:
    """A mapping from plain values; one event may stand without `events`.

    Raises:
        Rejected: a key is unknown or a value does not fit; the message names it.
    """
    shared = {name: values[name] for name in ("types", "delimiter") if name in values}
    rest = {name: value for name, value in values.items() if name not in shared}
    if rest and "events" not in rest:
        rest = {"events": [rest]}
    try:
        return ColumnMapping.model_validate({**shared, **rest})
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Rejected(f"mapping: {lines}") from error


def mapping_from_yaml(text: str) -> ColumnMapping:
    """A mapping from YAML text.

    Raises:
        Rejected: it is no YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Rejected(f"mapping: {error}") from error
    if not isinstance(values, dict):
        raise Rejected("mapping: write `key: value` lines, with `events:` or the fields of one event")
    return parse_mapping(values)


def mapping_from_pairs(pairs: Iterable[str]) -> ColumnMapping:
    """A mapping from `key=value` texts (the module's docstring shows them).

    Raises:
        Rejected: a pair has no `=`, or the mapping that they make is wrong.
    """
    values: dict[str, Any] = {}
    events: dict[int, dict[str, Any]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Rejected(f"mapping: {pair!r} is no key=value")
        number, dot, rest = key.partition(".")
        numbered = bool(dot) and number.isascii() and number.isdigit()
        _put(events.setdefault(int(number), {}) if numbered else values, rest if numbered else key, value)
    if events:
        values["events"] = [events[number] for number in sorted(events)]
    return parse_mapping(values)


def _put(values: dict[str, Any], key: str, value: str) -> None:
    """Set one pair; the first dot of a key opens a level, as in `props.full_name` and `from.id`."""
    section, dot, name = key.partition(".")
    if dot:
        level = values.setdefault(section, {})
        if not isinstance(level, dict):
            raise Rejected(f"mapping: {key!r} and {section!r} exclude each other")
        level[name] = value
    elif key == "props":
        columns = {column.strip(): column.strip() for column in value.split(",")}
        values["props"] = {**columns, **values.get("props", {})}
    else:
        values[key] = value
