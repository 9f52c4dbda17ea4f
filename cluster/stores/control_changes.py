"""What changes in the control store, as rows: noted by triggers, taken as one change set, put into another copy.

    a statement ─► trigger: control_touched (table, key) ─► take: the rows as they are now ─► put: the same rows there

So whatever statement changed a row, from whichever process, it is known that it did; and what a change set says is the
state of its rows, so to put one twice is harmless. The triggers are those of `control_sqlite` and `control_postgres`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, delete, func, insert, select, tuple_

from cluster.errors import Corrupt, Rejected
from cluster.stores.control_dialect import (
    count_on,
    defer_foreign_keys,
    insert_into,
    key_of_note,
    note_nothing,
    remove_note,
)
from cluster.stores.control_tables import control_log, control_touched, metadata

LEFT_OUT = {
    "pushes": "answers of pushes may be forgotten: the same push again gets the same positions, which are not left out",
    "control_log": "says up to where this very copy is complete",
    "control_touched": "says what this very copy has to say still",
}
"""Tables whose rows are not noted, and why."""

_CHUNK = 200


class TableChanges(msgspec.Struct, array_like=True):
    """Rows of one table.

    Args:
        columns: of each of `rows`.
        gone: primary keys of rows that are there no more.
    """

    columns: list[str]
    rows: list[list[Any]]
    gone: list[list[Any]]


class ChangeSet(msgspec.Struct, array_like=True):
    """What one transaction, and those before it that are not in the log, left behind.

    Args:
        schema: revision of the store's schema that the rows are of.
        tables: by name.
    """

    schema: str
    tables: dict[str, TableChanges]


def covered() -> list[Table]:
    """The tables whose rows are noted; those that others refer to come first."""
    return [table for table in metadata.sorted_tables if table.name not in LEFT_OUT]


def is_empty(connection: Connection) -> bool:
    """Whether no covered table has a row."""
    return not any(connection.execute(select(table).limit(1)).first() for table in covered())


def pending(connection: Connection) -> int:
    """How many rows have changed since a change set was taken last."""
    return int(connection.execute(select(func.count()).select_from(control_touched)).scalar_one())


def take(connection: Connection) -> ChangeSet | None:
    """What has changed since this was called last; None: nothing. To be committed with what keeps the change set."""
    touched: dict[str, list[list[Any]]] = {}
    for of, key in connection.execute(select(control_touched).order_by(control_touched.c.of, control_touched.c.key)):
        touched.setdefault(of, []).append(key_of_note(connection, key))
    if not touched:
        return None
    tables = {
        str(table.name): _rows(connection, table, touched[table.name]) for table in covered() if table.name in touched
    }
    connection.execute(delete(control_touched))
    return ChangeSet(schema_of(connection), tables)


def put(connection: Connection, changes: ChangeSet) -> None:
    """Makes the rows of a change set what it says. They count as taken; other rows that wait for it wait on.

    A column that the change set does not know keeps its default, and one that is there no more is left out.

    Raises:
        Rejected: a newer version wrote it.
    """
    if changes.schema > schema_of(connection):
        raise Rejected(
            f"the log's control partition has entries of schema {changes.schema}, which this version does not know;"
            " upgrade"
        )
    defer_foreign_keys(connection)
    note_nothing(connection, True)
    for table in reversed(covered()):
        for key in changes.tables[table.name].gone if table.name in changes.tables else ():
            connection.execute(delete(table).where(_is(table, key)))
            remove_note(connection, table, key)
    for table in covered():
        if table.name in changes.tables:
            _put_rows(connection, table, changes.tables[table.name])
    note_nothing(connection, False)


def latest(sets: Sequence[ChangeSet]) -> list[ChangeSet]:
    """The same, without rows that a later one of them says anew: to be put one after the other, in their order. What is
    deleted is deleted in its turn: another row may have its unique values since."""
    said: set[tuple[str, tuple[Any, ...]]] = set()
    keys = {str(table.name): [column.name for column in table.primary_key] for table in covered()}
    found: list[ChangeSet] = []
    for one in reversed(sets):
        tables: dict[str, TableChanges] = {}
        for name in one.tables.keys() & keys.keys():
            changes = one.tables[name]
            at = [changes.columns.index(column) for column in keys[name] if column in changes.columns]
            rows = [(row, (name, tuple(row[index] for index in at))) for row in changes.rows]
            tables[name] = TableChanges(changes.columns, [row for row, key in rows if key not in said], changes.gone)
            said.update(key for _, key in rows)
            said.update((name, tuple(key)) for key in changes.gone)
        found.append(ChangeSet(one.schema, tables))
    return found[::-1]


def schema_of(connection: Connection) -> str:
    """The revision of the store's schema."""
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())


def number_of(connection: Connection) -> Any:
    """The row that binds the store to the log's control partition; None where none does."""
    return connection.execute(select(control_log)).one_or_none()


def bind(connection: Connection, name: str, number: int, *, serving: bool, size: int = 0) -> None:
    """Binds the store to a control partition, up to one of its entries.

    Args:
        name: of the log that the partition is.
        serving: whether changes have to be in the log before they are committed.
        size: bytes appended since the last checkpoint.
    """
    connection.execute(delete(control_log))
    row = {"id": 1, "name": name, "number": number, "serving": int(serving), "bytes": size}
    connection.execute(insert(control_log).values(**row))


def _put_rows(connection: Connection, table: Table, changes: TableChanges) -> None:
    known = [name for name in changes.columns if name in table.c]
    key = [column.name for column in table.primary_key]
    if not set(key) <= set(known):
        raise Corrupt(f"the log's control partition says rows of {table.name} without their keys; restore it")
    rest = [name for name in known if name not in key]
    statement = insert_into(connection, table)
    new = statement.excluded
    done = statement.on_conflict_do_update(index_elements=key, set_={name: new[name] for name in rest}) if rest else (
        statement.on_conflict_do_nothing()
    )  # fmt: skip
    for values in changes.rows:
        row = {name: value for name, value in zip(changes.columns, values, strict=True) if name in table.c}
        connection.execute(done, row)
        remove_note(connection, table, [row[name] for name in key])
    count_on(connection, table)


def _rows(connection: Connection, table: Table, keys: Sequence[list[Any]]) -> TableChanges:
    columns = [str(column.name) for column in table.c]
    at = [columns.index(column.name) for column in table.primary_key]
    rows: list[list[Any]] = []
    for start in range(0, len(keys), _CHUNK):
        chunk = [tuple(key) for key in keys[start : start + _CHUNK]]
        query = select(table).where(tuple_(*table.primary_key).in_(chunk))
        rows += [list(row) for row in connection.execute(query)]
    there = {tuple(row[index] for index in at) for row in rows}
    return TableChanges(columns, rows, [key for key in keys if tuple(key) not in there])


def _is(table: Table, key: Sequence[Any]) -> Any:
    return tuple_(*table.primary_key).in_([tuple(key)])
