"""The event is one format: the same events as JSON lines, as dotted CSV and as Parquet become the same records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.connectors import RawRecord, open_source
from actors.stages import Origin, decode, normalise, place, validate
from cluster.config import RecordLimits
from cluster.model import Record

LIMITS = RecordLimits()
ORIGIN = Origin(frozenset({"acme"}), frozenset({"crm", "feed"}), epoch=3)
Event = dict[str, Any]

text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1, max_size=6)
types = st.sampled_from(("person", "org", "a-b_1"))
ends = st.fixed_dictionaries({"type": types, "id": text})
COLUMNS: dict[str, tuple[str, pa.DataType]] = {
    "tenant": ("", pa.string()), "case": ("", pa.string()), "kind": ("", pa.string()), "op": ("", pa.string()),
    "type": ("", pa.string()), "id": ("", pa.string()), "from.type": ("", pa.string()), "from.id": ("", pa.string()),
    "to.type": ("", pa.string()), "to.id": ("", pa.string()), "subject.type": ("", pa.string()),
    "subject.id": ("", pa.string()), "predicate": ("", pa.string()), "value": (":float", pa.float64()),
    "confidence": ("", pa.float64()), "source": ("", pa.string()), "epoch": ("", pa.int64()),
    "partition": ("", pa.string()), "position": ("", pa.list_(pa.int64())), "event_time": ("", pa.string()),
    "props.name": ("", pa.string()), "props.n": (":int", pa.int64()), "props.x": (":float", pa.float64()),
    "props.flag": (":bool", pa.bool_()), "props.tags": (":json", pa.list_(pa.string())),
}  # fmt: skip
"""Every field of an event → its type in a CSV title, and in Parquet."""


@st.composite
def events(draw: Any) -> Event:
    """A good event of any kind, with any of the fields that it may have."""
    kind = draw(st.sampled_from(("entity", "relationship", "claim")))
    event: Event = {
        "tenant": "acme",
        "case": draw(text),
        "kind": kind,
        "op": draw(st.sampled_from(("upsert", "delete"))),
    }
    event |= {"type": draw(types), "id": draw(text), "source": draw(st.sampled_from(("crm", "feed")))}
    if kind == "relationship":
        event |= {"from": draw(ends), "to": draw(ends)}
    if kind == "claim":
        event |= {"subject": draw(ends), "predicate": draw(text), "value": draw(st.floats(-1e9, 1e9))}
        event |= draw(st.fixed_dictionaries({}, optional={"confidence": st.floats(0, 1)}))
    version = {"epoch": st.integers(0, 2**62), "position": st.lists(st.integers(0, 2**62), min_size=1, max_size=3)}
    event |= draw(st.just({}) | st.fixed_dictionaries(version))
    more = {"partition": text, "event_time": st.sampled_from(("2026-01-01T00:00:00Z", "2026-01-01T01:00:00.5+01:00"))}
    event |= draw(st.fixed_dictionaries({}, optional=more))
    props = {
        "name": text, "n": st.integers(-(2**63), 2**63 - 1), "x": st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(), "tags": st.lists(text, max_size=3),
    }  # fmt: skip
    return event | {"props": draw(st.fixed_dictionaries({}, optional=props))}


def cell(event: Event, column: str) -> Any:
    """The value of a dotted column, None where it is absent."""
    outer, _, inner = column.partition(".")
    value = event.get(outer)
    return value.get(inner) if inner and value is not None else value


def as_csv_text(value: Any) -> str:
    """A cell as one writes it: JSON where it is no string."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def write_all(folder: Path, given: Sequence[Event]) -> list[Path]:
    """The events in the three formats."""
    lines, table, parquet = (folder / name for name in ("e.jsonl", "e.csv", "e.parquet"))
    lines.write_text("".join(json.dumps(event) + "\n" for event in given))
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")  # a bare CR outside of quotes is refused
    writer.writerow([name + hint for name, (hint, _) in COLUMNS.items()])
    writer.writerows([as_csv_text(cell(event, name)) for name in COLUMNS] for event in given)
    table.write_bytes(out.getvalue().encode())
    arrays = {name: pa.array([cell(event, name) for event in given], kind) for name, (_, kind) in COLUMNS.items()}
    pq.write_table(pa.table(arrays), parquet)
    return [lines, table, parquet]


def records(path: Path) -> list[Any]:
    """What the stages make of a file."""
    raw = [item for batch in open_source(path).batches(None, 7, 1 << 20) for item in batch]
    assert all(isinstance(item, RawRecord) for item in raw), raw
    slots = normalise(validate(decode([item.payload for item in raw], LIMITS), ORIGIN, LIMITS), LIMITS)
    return place(slots, ORIGIN, 9, [(100 + number,) for number, _ in enumerate(raw)], LIMITS)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events(), min_size=1, max_size=5))
def test_the_same_events_are_the_same_records_in_every_format(tmp_path: Path, given: list[Event]) -> None:
    lines, table, parquet = (records(path) for path in write_all(tmp_path, given))
    assert len(lines) == len(given)
    assert all(isinstance(record, Record) for record in lines), lines
    assert table == lines
    assert parquet == lines
