"""Where SQLite and PostgreSQL want other SQL of the control store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from cluster.stores.control_text import escaped, plain

SILENT = "intelgraph.silent"
"""A setting of a transaction in PostgreSQL: while it is on, triggers note nothing."""


def is_postgres(connection: Connection) -> bool:
    """Whether the store is in PostgreSQL."""
    return connection.dialect.name == "postgresql"


def insert_into(connection: Connection, table: Table) -> Any:
    """An INSERT with ON CONFLICT: both databases have the same."""
    return postgresql.insert(table) if is_postgres(connection) else sqlite.insert(table)


def defer_foreign_keys(connection: Connection) -> None:
    """To the end of the transaction."""
    statement = "SET CONSTRAINTS ALL DEFERRED" if is_postgres(connection) else "PRAGMA defer_foreign_keys = ON"
    connection.exec_driver_sql(statement)


def note_nothing(connection: Connection, on: bool) -> None:
    """Whether triggers note nothing from now on, in this transaction. In SQLite they always do."""
    if is_postgres(connection):
        connection.exec_driver_sql("SELECT set_config(%s, %s, true)", (SILENT, "on" if on else "off"))


def key_of_note(connection: Connection, noted: str) -> list[Any]:
    """The primary key that a trigger has noted as JSON."""
    key: list[Any] = json.loads(noted)
    return [plain(part) if isinstance(part, str) else part for part in key] if is_postgres(connection) else key


def remove_note(connection: Connection, table: Table, key: Sequence[Any]) -> None:
    """That a row has changed is not to be said any more."""
    if is_postgres(connection):
        said = json.dumps([escaped(part) if isinstance(part, str) else part for part in key])
        statement = "DELETE FROM control_touched WHERE of = %s AND key::jsonb = %s::jsonb"
        connection.exec_driver_sql(statement, (str(table.name), said))
        return
    marks = ", ".join("?" * len(key))  # as the triggers write it: a database's own JSON is not ours to imitate
    statement = f"DELETE FROM control_touched WHERE of = ? AND key = json_array({marks})"  # noqa: S608
    connection.exec_driver_sql(statement, (table.name, *key))


def count_on(connection: Connection, table: Table) -> None:
    """Numbers that the database gives go on behind those that rows brought along; SQLite sees to that itself."""
    column = table.autoincrement_column
    if column is None or not is_postgres(connection):
        return
    highest = connection.execute(select(func.max(column))).scalar_one()
    if highest is not None:
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        connection.execute(select(func.setval(sequence, highest)))
