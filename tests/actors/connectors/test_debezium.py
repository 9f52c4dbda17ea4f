"""Envelopes of the real connector (tests/cdc) give the tables' state, in any order and any number of times."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from actors.connectors.debezium import TABLES, UNAVAILABLE, Changes, Floor, changes
from actors.stages import Bad, Origin, decode, normalise, place, validate
from cluster import versions
from cluster.config import RecordLimits
from cluster.errors import BadRecord
from cluster.fold import Fold
from cluster.model import KINDS, Record, floor_record

CORPUS = Path(__file__).parents[2] / "cdc" / "corpus"
LIMITS = RecordLimits()
EPOCH = 3
KINDS_OF_CORPUS = ("plain", "schemas")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / f"{name}.jsonl").read_text().splitlines()]


def read(records: Iterable[dict[str, Any]]) -> tuple[list[Changes], list[BadRecord]]:
    """What each record says, topic by topic as a reader goes through them, and those that say nothing."""
    found, bad, lsn = [], [], dict[str, int]()
    for record in records:
        value = record["value"] and record["value"].encode()
        try:
            found.append(changes(value, lsn.get(record["topic"], 0)))
            lsn[record["topic"]] = found[-1].snapshot_lsn
        except BadRecord as error:
            bad.append(error)
    return found, bad


def source_of(kind: str) -> str:
    """Each table is a source of its own, so that its truncation is a floor of its own."""
    return f"crm/{kind}"


def records_of(found: Iterable[Changes]) -> list[Record]:
    """Through the stages of ingest, as records of the log; a truncation is a floor."""
    made: list[Record] = []
    for change in found:
        for payload in change.payloads:
            kind = json.loads(payload)["kind"]
            origin = Origin(frozenset({"acme", "other"}), frozenset({source_of(kind)}), epoch=EPOCH)
            slots = normalise(validate(decode([payload], LIMITS), origin, LIMITS), LIMITS)
            (record,) = place(slots, origin, EPOCH, [(0,)], LIMITS)
            assert not isinstance(record, Bad), record
            made.append(record)
        if change.floor:
            version = versions.encode(EPOCH, change.floor.position)
            kind = TABLES[change.floor.table]
            made.append(floor_record("acme", source_of(kind), "", version, 0))
    return made


def folded(records: Iterable[Record]) -> list[str]:
    return Fold().apply_all(records).export_lines()


def final_state() -> list[str]:
    """The tables' rows, as one reads them with SQL, folded as events of a file."""
    payloads = []
    for row in rows("final"):
        kind = {"entities": "entity", "relationships": "relationship", "claims": "claim"}[row["table"]]
        event = {"kind": kind, "op": "upsert", "position": 1, **{n: row[n] for n in ("tenant", "case", "type", "id")}}
        event |= {"props": row["props"], "event_time": row["event_time"]}
        for end in ("from", "to", "subject"):
            if f"{end}_id" in row:
                event[end] = {"type": row[f"{end}_type"], "id": row[f"{end}_id"]}
        event |= {name: row[name] for name in ("predicate", "value", "confidence") if name in row}
        payloads.append(json.dumps(event).encode())
    return folded(records_of(Changes((payload,), None, 0) for payload in payloads))


@pytest.mark.parametrize("name", KINDS_OF_CORPUS)
def test_the_corpus_gives_what_the_tables_hold(name: str) -> None:
    found, bad = read(rows(name))
    records = records_of(found)
    assert folded(records) == final_state()
    assert {record.kind for record in records} >= set(KINDS.values())
    # the only envelopes that are none are those whose table had no full identity for a moment
    assert len(bad) == 2
    assert all("REPLICA IDENTITY FULL" in str(error) for error in bad)


@pytest.mark.parametrize("seed", range(20))
def test_order_and_repetition_make_no_difference(seed: int) -> None:
    records = records_of(read(rows("plain"))[0])
    rnd = random.Random(seed)
    shuffled = records + rnd.choices(records, k=len(records))
    rnd.shuffle(shuffled)
    whole = Fold().apply_all(records)
    again = Fold().apply_all(shuffled)
    assert again.export_lines() == whole.export_lines() == final_state()
    assert again.state_lines() == whole.state_lines()


def test_with_and_without_schemas_the_same_is_said() -> None:
    """Two connectors take their snapshots at two moments; what they stream afterwards stands at the same LSNs."""

    def said(name: str) -> list[Any]:
        events = [json.loads(payload) for change in read(rows(name))[0] for payload in change.payloads]
        return [{**event, "position": event["position"][0] > 0} for event in events]

    assert said("plain") == said("schemas")


def test_reading_again_from_any_record_gives_the_same_positions() -> None:
    """Where a reader goes on, it knows the snapshot's LSN from the position it had kept."""
    records = rows("plain")
    by_topic: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_topic.setdefault(record["topic"], []).append(record)
    for topic in by_topic.values():
        good = [r for r in topic if UNAVAILABLE not in (r["value"] or "")]
        whole = read(good)[0]
        for start in range(1, len(good)):
            value = good[start]["value"] and good[start]["value"].encode()
            assert changes(value, whole[start - 1].snapshot_lsn) == whole[start]


def eve() -> list[Record]:
    return [record for record in records_of(read(rows("plain"))[0]) if record.id == "eve"]


def test_a_row_that_was_read_again_does_not_hide_a_change_that_committed_later() -> None:
    """The execution of docs/adr/0008: by the change's LSN alone the reading would win."""
    reading, change = [r for r in eve() if '"v":3' in r.props][-1], next(r for r in eve() if "late" in r.props)
    (_, lsn_read), (_, lsn_changed) = (versions.decode(r.version)[1] for r in (reading, change))
    assert lsn_changed < lsn_read
    assert change.stamp > reading.stamp


def test_positions_of_one_row_grow_along_the_stream() -> None:
    for id in ("ada", "bob", "cid", "eve"):
        found = records_of(read(rows("plain"))[0])
        stamps = [r.stamp for r in found if (r.tenant, r.case, r.id) == ("acme", "c-1", id)]
        assert stamps == sorted(stamps)


def test_a_truncated_table_loses_what_was_in_it_and_keeps_what_comes() -> None:
    found = read(rows("plain"))[0]
    said = [change.floor for change in found if change.floor and not change.payloads]
    assert len(said) == 2, "the connector was killed, and sent it again"
    assert said[0] == said[1]
    assert said[0].table == "claims"
    claims = [json.loads(p) for change in found for p in change.payloads if b'"claim"' in p]
    before = [tuple(c["position"]) < said[0].position for c in claims]
    assert dict(zip([c["id"] for c in claims], before, strict=True)) == {"k1": True, "k2": True, "k3": False}


def envelope(**changed: Any) -> bytes:
    source = {"table": "entities", "sequence": '["10","20"]', "snapshot": "false", "lsn": 20}
    row = {"tenant": "acme", "case": "c", "type": "T", "id": "1", "props": '{"a":1}', "event_time": None}
    return json.dumps({"op": "u", "before": row, "after": row, "source": source, **changed}).encode()


def test_a_row_whose_key_changes_in_one_envelope_leaves_no_ghost() -> None:
    """Tables whose primary key is not the fact's key say it so."""
    after = {"tenant": "acme", "case": "d", "type": "T", "id": "1", "props": "{}", "event_time": None}
    events = [json.loads(payload) for payload in changes(envelope(after=after), 0).payloads]
    assert [(e["op"], e["case"], e["position"]) for e in events] == [
        ("delete", "c", [10, 20]),
        ("upsert", "d", [10, 20]),
    ]


def test_a_first_change_after_a_snapshot_is_newer_than_it_wherever_its_transaction_began() -> None:
    source = {"table": "entities", "snapshot": "first", "sequence": '[null,"100"]'}
    read_first = changes(envelope(op="r", source=source), 0)
    early = {"table": "entities", "snapshot": "false", "sequence": '[null,"90"]'}  # written before, committed after
    change = changes(envelope(source=early), read_first.snapshot_lsn)
    later = {"table": "entities", "snapshot": "false", "sequence": '["105","101"]'}
    last = changes(envelope(source=later), change.snapshot_lsn)
    positions = [json.loads(found.payloads[0])["position"] for found in (read_first, change, last)]
    assert positions == sorted(positions) == [[100, 0], [100, 90], [105, 101]]


def test_a_second_snapshot_is_newer_than_what_was_streamed_before() -> None:
    streamed = json.loads(changes(envelope(), 5).payloads[0])["position"]
    source = {"table": "entities", "snapshot": "first", "sequence": '[null,"30"]'}
    assert json.loads(changes(envelope(op="r", source=source), 5).payloads[0])["position"] > streamed


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"{", "no envelope"),
        (b"[]", "no envelope"),
        (b'{"op":"u"}', "no envelope"),
        (b"\xff\xfe", "no envelope"),
        (envelope(op="m"), "op 'm'"),
        (envelope(after=None), "missing"),
        (envelope(op="d", before=None), "missing"),
        (envelope(source={"table": "users", "sequence": '["1","2"]'}), "table 'users'"),
        (envelope(source={"table": "entities"}), "no LSN"),
        (envelope(source={"table": "entities", "sequence": '["1",null]'}), "no LSN"),
        (envelope(source={"table": "entities", "sequence": '["1","x"]'}), "no LSN"),
        (envelope(source={"table": "entities", "sequence": f'["1","{2**63}"]'}), "an LSN is"),
        (envelope(source={"table": "entities", "sequence": f'["{2**70}","2"]'}), "an LSN is"),
        (envelope(op="t", source={"table": "entities", "sequence": '["-1","-1"]'}), "an LSN is"),
        (envelope(source={"table": "entities", "snapshot": "first", "sequence": f'[null,"{2**70}"]'}), "an LSN is"),
        (envelope(after={"tenant": "acme", "case": "c", "type": "T", "id": "1", "props": UNAVAILABLE}), "FULL"),
        (envelope(after={"tenant": "acme", "case": "c", "type": "T", "id": "1", "props": "{"}), "no JSON"),
        (envelope(after={"tenant": "acme", "case": "c", "type": "T", "id": "1", "props": {}}), "comes as text"),
    ],
)
def test_what_is_no_change_says_why(value: bytes, message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        changes(value, 7)


def test_the_reason_is_short_however_long_the_text_is() -> None:
    with pytest.raises(BadRecord, match="no LSN") as caught:
        changes(envelope(source={"table": "entities", "sequence": "[" * 100_000}), 7)
    assert len(caught.value.reason) < 1_000


def test_tombstones_and_empty_payloads_say_nothing() -> None:
    assert changes(None, 7) == changes(b'{"schema":null,"payload":null}', 7) == Changes((), None, 7)


def test_a_truncation_has_its_place() -> None:
    source = {"table": "claims", "sequence": '["10","20"]', "snapshot": "false"}
    assert changes(envelope(op="t", source=source, after=None), 0).floor == Floor("claims", (10, 20))


@pytest.mark.parametrize("marker", ["last", "last_in_data_collection"])
def test_a_table_that_was_read_whole_has_said_all_that_there_is(marker: str) -> None:
    """What was deleted before a second initial snapshot is in no envelope: the snapshot ends with a floor."""
    source = {"table": "claims", "sequence": '[null,"30"]', "snapshot": marker}
    found = changes(envelope(op="r", source=source, before=None), 20)
    assert (found.floor, len(found.payloads), found.snapshot_lsn) == (Floor("claims", (30, 0)), 1, 30)


@pytest.mark.parametrize("marker", ["true", "first", "incremental", "false"])
def test_what_was_read_in_part_hides_nothing(marker: str) -> None:
    source = {"table": "claims", "sequence": '["20","30"]', "snapshot": marker}
    assert changes(envelope(op="r", source=source, before=None), 20).floor is None
