"""The change history of ATT&CK as changes of the tables of configs/cdc/postgres.sql: SQL, and what has to come of it.

The mapping is that of `test_attack_history`. A third table has something to say, too: while an entity is revoked or
deprecated, a claim says so, which is inserted, updated and deleted as the history goes on.
"""

# ruff: noqa: S608 - statements are made of the history's rows, quoted here

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actors.connectors.debezium import TABLES as KIND_OF_TABLE
from cluster.fold import Fold
from cluster.model import KIND_NAMES, Kind, Op, Record
from cluster.values import canonical_json
from tests.cdc.capture import Session
from tests.history.test_attack_history import CASE, SOURCE, Row, to_record
from tests.strategies import make

TABLES = {kind: table for table, kind in KIND_OF_TABLE.items()}
STATEMENTS = 100
"""Of a transaction."""
_CLAIM_TYPE, _PREDICATE, _CONFIDENCE = "standing", "is", 0.75


@dataclass(frozen=True, slots=True)
class Change:
    """One INSERT (`create`), UPDATE (`update`) or DELETE (`delete`) of a row, and the record that it means."""

    op: str
    record: Record

    @property
    def table(self) -> str:
        """Whose row it is."""
        return TABLES[KIND_NAMES[self.record.kind]]

    @property
    def statement(self) -> str:
        """It in SQL."""
        row = columns(self.record)
        key = {name: row.pop(name) for name in ("tenant", "case", "type", "id")}
        where = " AND ".join(f'"{name}" = {quoted(value)}' for name, value in key.items())
        if self.op == "delete":
            return f"DELETE FROM {self.table} WHERE {where}"
        if self.op == "update":
            changed = ", ".join(f"{name} = {quoted(value)}" for name, value in row.items())
            return f"UPDATE {self.table} SET {changed} WHERE {where}"
        names = ", ".join(f'"{name}"' for name in (*key, *row))
        return f"INSERT INTO {self.table} ({names}) VALUES ({', '.join(map(quoted, [*key.values(), *row.values()]))})"


def columns(record: Record) -> dict[str, str]:
    """A record's row."""
    row = {"tenant": record.tenant, "case": record.case, "type": record.type, "id": record.id}
    if record.kind == Kind.RELATIONSHIP:
        row |= {"from_type": record.a_type, "from_id": record.a_id, "to_type": record.b_type, "to_id": record.b_id}
    if record.kind == Kind.CLAIM:
        predicate, value, confidence = json.loads(record.claim or "[null,null,null]")
        row |= {"subject_type": record.a_type, "subject_id": record.a_id, "predicate": predicate}
        row |= {"value": json.dumps(value), "confidence": str(confidence)}
    return {**row, "props": record.props, "event_time": record.event_time}


def quoted(text: str) -> str:
    """A literal."""
    return "'" + text.replace("'", "''") + "'"


def changes_of(rows: Iterable[Row], suffix: str = "") -> list[Change]:
    """The history's changes in its order, of tenants whose names end so."""
    found: list[Change] = []
    standings: set[tuple[str, str]] = set()
    for row in rows:
        mine = {**row, "domain": f"{row['domain']}{suffix}"}
        found.append(Change(row["op"], to_record(mine)))
        if row["kind"] != "entity":
            continue
        key = (mine["domain"], row["stix_id"])
        stands = row["op"] != "delete" and (row["revoked"] or row["deprecated"])
        if stands:
            found.append(Change("update" if key in standings else "create", _standing(mine, Op.UPSERT)))
            standings.add(key)
        elif key in standings:
            found.append(Change("delete", _standing(mine, Op.DELETE)))
            standings.remove(key)
    return found


def _standing(row: Row, op: Op) -> Record:
    said = canonical_json([_PREDICATE, "revoked" if row["revoked"] else "deprecated", _CONFIDENCE])
    props = canonical_json({"modified": row["modified"]})
    released, subject = f"{row['released_at']}T00:00:00Z", (row["type"], row["stix_id"], "", "")
    key = (row["domain"], CASE, Kind.CLAIM, _CLAIM_TYPE, row["stix_id"])
    return make(*key, SOURCE, row["seq"], op, subject, props, said, released)


def some(rows: Sequence[Row], one_of: int) -> list[Row]:
    """All changes of one of so many relationships and entities, and of the relationships' ends, in their order."""

    def chosen(row: Row) -> bool:
        return zlib.crc32(row["stix_id"].encode()) % one_of == 0

    edges = [row for row in rows if row["kind"] == "relationship" and chosen(row)]
    ends = {row[end] for row in edges for end in ("source_ref", "target_ref")}
    return [row for row in rows if chosen(row) or row["stix_id"] in ends]


def meant(changes: Iterable[Change]) -> Fold:
    """What they come to, one after the other."""
    return Fold().apply_all(change.record for change in changes)


def held(fold: Fold) -> set[tuple[tuple[str, str], ...]]:
    """What the tables have to hold, as `rows_of` tells it."""
    alive = (record for by in fold.registers.values() for record in by.values() if record.op == Op.UPSERT)
    return {_told({"table": TABLES[KIND_NAMES[record.kind]], **columns(record)}) for record in alive}


def rows_of(rows: Iterable[Row]) -> set[tuple[tuple[str, str], ...]]:
    """Rows as PostgreSQL gives them as JSON; without their times, which it tells in its own zone."""
    as_text = {"props": canonical_json, "value": json.dumps, "confidence": str}
    return {_told({name: as_text.get(name, str)(value) for name, value in row.items()}) for row in rows}


def _told(row: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in row.items() if name != "event_time"))


def differing(expected: Sequence[str], found: Sequence[str]) -> tuple[list[str], list[str]]:
    """The first lines that are missing, and that are too many."""
    wanted, there = set(expected), set(found)
    return sorted(wanted - there)[:3], sorted(there - wanted)[:3]


class Play:
    """Commits the history, some statements a transaction."""

    def __init__(self, session: Session, changes: Sequence[Change]) -> None:
        self._session, self._statements, self._at = session, [change.statement for change in changes], 0

    def to(self, share: float) -> None:
        """Until so much of it is committed."""
        end = round(len(self._statements) * share)
        while self._at < end:
            upto = min(self._at + STATEMENTS, end)
            self._session.run("BEGIN; " + "; ".join(self._statements[self._at : upto]) + "; COMMIT")
            self._at = upto
