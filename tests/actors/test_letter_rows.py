"""Dead letters that hold rows: replayed with their load's mapping or a corrected one, at the versions of their file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connectors import ColumnMapping, mapping_from_pairs, open_source
from actors.connectors.csv_scan import CsvRow
from actors.connectors.kept_rows import row_reader
from actors.dead_letters import Replay, ReplayResult
from actors.loads import FileLoads, LoadFile
from cluster.config import Settings
from cluster.errors import BadRecord, Rejected
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import DeadLetter, NewDeadLetter
from cluster.stores.redis_log import RedisEventLog
from cluster.versions import decode

Logged = Callable[[], list[Record]]
BY_MAIL = ["type=person", "id={mail}", "props=name"]
BY_NAME = ["type=person", "id={name}", "props=name"]
ROWS: list[dict[str, Any]] = [
    {"mail": "a@x", "name": "Ann"},
    {"mail": "", "name": 'Bob "B", Jr.\r\nof Ulm'},
    {"mail": "c@x", "name": "Cy"},
]


class Desk:
    """Loads a file, replays its letters."""

    def __init__(self, control: ControlStore, log: RedisEventLog, settings: Settings, folder: Path) -> None:
        self.control, self.log, self.settings, self.folder = control, log, settings, folder

    def load(self, path: Path, pairs: list[str] | None = BY_MAIL, dead: int = 1, **ingest: int) -> LoadFile:
        mapping = None if pairs is None else mapping_from_pairs(pairs)
        file = LoadFile(path, "acme", "hr", mapping=mapping, case="c1")
        result = FileLoads(self.control, self.log, self.with_limits(**ingest)).ingest(file)
        assert result.load.dead == dead
        return file

    def with_limits(self, **ingest: int) -> Settings:
        return self.settings.model_copy(update={"ingest": self.settings.ingest.model_copy(update=ingest)})

    def replay(self, pairs: list[str] | None = None, **named: Any) -> ReplayResult:
        mapping: ColumnMapping | None = None if pairs is None else mapping_from_pairs(pairs)
        replays = Replay(self.control, self.log, self.settings, sleep=lambda s: None)
        return replays.replay("acme", "ann", mapping=mapping, **named)

    def letter(self) -> DeadLetter:
        (found,) = self.control.dead_letters.list("acme")
        return found


@pytest.fixture
def desk(control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, tmp_path: Path) -> Desk:
    return Desk(control, event_log, ingest_settings, tmp_path)


def written(folder: Path, form: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"people.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        quoted = [[value.replace('"', '""') for value in row.values()] for row in rows]
        path.write_bytes("".join(f'"{mail}","{name}"\n' for mail, name in [("mail", "name"), *quoted]).encode())
    return path


@pytest.mark.services
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_corrected_mapping_takes_the_row_at_its_place_in_the_file(desk: Desk, logged: Logged, form: str) -> None:
    desk.load(written(desk.folder, form))
    letter = desk.letter()
    assert (letter.headers["holds"], letter.whole) == ("row", True)

    tried = desk.replay(BY_NAME, dry_run=True)
    assert [one.state for one in tried.letters] == ["replayed"]
    assert desk.letter() == letter
    assert desk.replay(BY_NAME).count("replayed") == 1
    (found,) = [record for record in logged() if record.id == ROWS[1]["name"]]
    assert decode(found.version) == (letter.epoch, (*letter.position, 1))
    assert json.loads(found.props) == {"name": ROWS[1]["name"]}
    assert (found.tenant, found.source, found.case) == ("acme", "hr", "c1")
    assert desk.letter().state == "replayed"
    assert desk.replay(BY_NAME).letters == []


@pytest.mark.services
def test_a_row_that_is_replayed_late_overtakes_nothing(desk: Desk, logged: Logged) -> None:
    desk.load(written(desk.folder, "csv"))
    newer = desk.folder / "newer.jsonl"
    newer.write_text(json.dumps({"mail": ROWS[1]["name"], "name": "newer"}) + "\n")
    desk.load(newer, dead=0)
    assert desk.replay(BY_NAME).count("replayed") == 1
    shown = {json.loads(line)["id"]: json.loads(line)["props"] for line in Fold().apply_all(logged()).export_lines()}
    assert shown[ROWS[1]["name"]] == {"name": "newer"}


@pytest.mark.services
def test_without_a_mapping_the_loads_own_is_used_and_what_fails_again_is_quarantined(
    desk: Desk, logged: Logged, ingest_settings: Settings
) -> None:
    desk.load(written(desk.folder, "csv"))
    most = ingest_settings.ingest.dead_letter_attempts
    assert desk.replay(dry_run=True).letters[0].reason.startswith("column 'mail' is empty")
    states = [desk.replay().letters[0].state for _ in range(most)]
    assert states == ["waiting"] * (most - 1) + ["quarantined"]
    assert desk.letter().attempts == most
    assert len(logged()) == 2


@pytest.mark.services
def test_a_row_without_mapping_is_read_as_its_file(desk: Desk, logged: Logged) -> None:
    path = desk.folder / "events.csv"
    path.write_text("kind,op,type,id,props.age:int\nentity,upsert,person,a,old\nentity,upsert,person,b,7\n")
    desk.load(path, None)
    assert desk.replay().letters[0].reason == "column 'props.age:int': 'old' is no int"
    corrected = ["type={type}", "id={id}", "props.age=props.age:int"]
    assert desk.replay(corrected).count("replayed") == 1
    assert {(r.id, r.props) for r in logged()} == {("a", '{"age":"old"}'), ("b", '{"age":7}')}


@pytest.mark.services
def test_a_row_is_taken_whole_or_not_at_all(desk: Desk, logged: Logged) -> None:
    desk.load(written(desk.folder, "csv"))
    two = ["1.type=person", "1.id={name}", "2.type=no type", "2.id={name}"]
    (told,) = desk.replay(two).letters
    assert (told.state, told.error_class) == ("waiting", "schema")
    assert len(logged()) == 2
    assert desk.letter().attempts == 1


@pytest.mark.services
@pytest.mark.parametrize(
    ("pairs", "reason"),
    [(["type=person", "id={nmae}"], "Did you mean 'name'"), (None, "source 'hr' is killed")],
)
def test_what_cannot_be_tried_says_why_and_costs_no_attempt(
    desk: Desk, logged: Logged, pairs: list[str] | None, reason: str
) -> None:
    desk.load(written(desk.folder, "csv"))
    if pairs is None:
        desk.control.sources.kill("acme", "hr")
    for dry_run in (True, False):
        (told,) = desk.replay(pairs, dry_run=dry_run).letters
        assert told.state == "waiting"
        assert reason in told.reason
    assert desk.letter().attempts == 0
    assert len(logged()) == 2


@pytest.mark.services
def test_a_letter_that_holds_an_event_takes_no_mapping(desk: Desk) -> None:
    desk.load(written(desk.folder, "csv", [ROWS[0]]), ["type=no type", "id={mail}"])
    assert desk.letter().headers["holds"] == "event"
    (told,) = desk.replay(BY_MAIL).letters
    assert "it holds no row" in told.reason
    assert desk.letter().attempts == 0


@pytest.mark.services
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_line_that_was_cut_is_marked_and_not_replayed(desk: Desk, logged: Logged, form: str) -> None:
    long = {"mail": "l@x", "name": "L" * 5_000}
    path = written(desk.folder, form, [ROWS[0], long])
    desk.load(path, line_bytes=1_000, dead_letter_payload_bytes=100)
    letter = desk.letter()
    line = path.read_bytes().splitlines(keepends=True)[-1]
    assert (letter.whole, len(letter.payload), letter.payload_bytes) == (False, 100, len(line))
    assert letter.payload_sha256 == ""
    (told,) = desk.replay(BY_MAIL).letters
    offset = f"{path.stat().st_size - len(line):,}"
    assert all(text in told.reason for text in (str(path), offset, "1,000", "100 are kept", f"{len(line):,} bytes"))
    assert desk.letter().attempts == 0
    assert len(logged()) == 1


def test_a_parquet_row_that_json_cannot_hold_is_kept_and_stays_bad(tmp_path: Path) -> None:
    path = written(tmp_path, "parquet", [{"mail": "a@x", "name": "x", "score": float("nan"), "raw": b"\xff"}])
    source = open_source(path, mapping=mapping_from_pairs(BY_MAIL))
    ((bad,),) = source.batches(None, 10, 1 << 20)
    assert json.loads(bad.payload)["raw"] == "/w=="
    read = row_reader(source.row_form, mapping_from_pairs(BY_MAIL), {})
    with pytest.raises(BadRecord, match="no finite number"):
        read(bad.position, bad.payload)


def test_stix_objects_are_read_again_and_take_no_mapping() -> None:
    read = row_reader({"format": "stix"}, None, {"case": "c1"})
    thing = {"type": "tool", "id": "tool--00000000-0000-4000-8000-000000000000", "name": "x"}
    (record,) = read((7,), json.dumps(thing).encode())
    assert (record.position, json.loads(record.payload)["case"]) == ((7, 1), "c1")
    with pytest.raises(BadRecord):
        read((7,), b"{bad")
    for form in ({"format": "stix"}, {}, {"format": "xml"}):
        with pytest.raises(Rejected):
            row_reader(form, mapping_from_pairs(BY_MAIL), {})


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(TEXTS | st.sampled_from(["", '"', "\r", "\n", "a,b", " x "]), min_size=1, max_size=4))
def test_a_csv_row_that_was_kept_has_the_same_cells(cells: list[str]) -> None:
    from actors.connectors.csv_rows import kept_row

    columns = [f"c{n}" for n in range(len(cells))]
    pairs = ["type=t", "id=i", *(f"props.{c}={c}" for c in columns)]
    form = {"format": "csv", "delimiter": ",", "columns": columns}
    (record,) = row_reader(form, mapping_from_pairs(pairs), {})((5,), kept_row(CsvRow(5, 1, cells), ","))
    expected = {c: cell for c, cell in zip(columns, cells, strict=True) if cell}
    assert json.loads(record.payload).get("props", {}) == expected
    assert record.position == (5, 1)


def envelope_letter(desk: Desk, table: str, **changed: Any) -> DeadLetter:
    """A letter of a captured table whose envelope could not be read when it came."""
    row = {"tenant": "acme", "case": "c", "type": "person", "id": "ada", "props": '{"v":1}', "event_time": None}
    source = {"table": "entities", "sequence": '["10","20"]', "snapshot": "false", "lsn": 20}
    payload = json.dumps({"op": "c", "before": None, "after": row, "source": source, **changed}).encode()
    headers = {"holds": "envelope", "table": table, "snapshot_lsn": 5}
    letter = NewDeadLetter("crm", 3, (7, 1), "schema", "was bad", payload, partition="0/4", headers=headers)
    desk.control.sources.register("acme", "crm", 0.0)
    desk.control.dead_letters.add("acme", [letter], 0.0)
    return desk.letter()


@pytest.mark.services
def test_a_letter_that_holds_an_envelope_is_replayed_at_its_place_in_the_databases_log(
    desk: Desk, logged: Logged
) -> None:
    envelope_letter(desk, "entities")
    assert [letter.state for letter in desk.replay().letters] == ["replayed"]
    (record,) = logged()
    assert (record.id, record.source, decode(record.version)) == ("ada", "crm", (3, (10, 20)))


@pytest.mark.services
def test_an_envelope_of_another_table_or_that_says_no_event_is_not_replayed(desk: Desk, logged: Logged) -> None:
    envelope_letter(desk, "claims")
    (told,) = desk.replay().letters
    assert "give it a stream of its own" in told.reason
    assert not logged()
