"""The control store in SQLite: one file of the state directory. The default.

WAL mode with `synchronous=FULL`: a committed transaction survives a power loss. Writers take the lock with
`BEGIN IMMEDIATE`, so that what they read is still so when they write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from cluster.errors import Corrupt, IntelGraphError, Unavailable
from cluster.stores.control_changes import covered
from cluster.stores.control_tenure import NoTenure

_BEGIN = "intelgraph_begin"
_TRIGGER = "noted"


class SqliteControl:
    """See `control_database.Backend`.

    Args:
        busy_timeout_s: how long a writer waits for others.
    """

    def __init__(self, url: str | URL, busy_timeout_s: float) -> None:
        self.engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
        _configure(self.engine, busy_timeout_s)

    @contextmanager
    def transaction(self, writes: bool) -> Iterator[Connection]:
        """See `Backend.transaction`."""
        begin = {_BEGIN: "BEGIN IMMEDIATE" if writes else "BEGIN"}
        with self.engine.connect().execution_options(**begin) as connection, connection.begin():
            yield connection

    def note_changes(self, connection: Connection) -> None:
        """See `Backend.note_changes`."""
        wanted = dict(_triggers())
        found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        there = {str(name): str(sql) for name, sql in found if name.startswith(f"{_TRIGGER}~")}
        for name in there.keys() - wanted.keys():
            connection.exec_driver_sql(f'DROP TRIGGER "{name}"')
        for name, sql in wanted.items():
            if there.get(name) != sql:
                connection.exec_driver_sql(f'DROP TRIGGER IF EXISTS "{name}"')
                connection.exec_driver_sql(sql)

    def copy_to(self, path: Path) -> None:
        """See `Backend.copy_to`. Blocks neither readers nor writers."""
        with self._driver() as driver:
            driver.execute("VACUUM INTO ?", (str(path),))

    def copy_from(self, path: Path) -> None:
        """See `Backend.copy_from`; its schema comes along, too."""
        with self._driver() as driver, closing(sqlite3.connect(path)) as copy:
            copy.backup(driver)

    def tenure(self) -> NoTenure:
        """See `Backend.tenure`."""
        return NoTenure()

    def translate(self, error: DBAPIError) -> IntelGraphError | None:
        """See `Backend.translate`."""
        name = getattr(error.orig, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return Unavailable("control store: other writers hold it for too long; try again", 0.5)
        if name == "SQLITE_FULL":
            return Unavailable("control store: the disk is full; free space, then try again", 5.0)
        if "malformed" in str(error.orig) or "not a database" in str(error.orig):
            return Corrupt(f"control store: the file is damaged ({error.orig}); restore it from a backup")
        if name and name != "SQLITE_ERROR" and not name.startswith("SQLITE_CONSTRAINT"):
            return Unavailable(f"control store: {error.orig}; see its database", 2.0)
        return None

    @contextmanager
    def _driver(self) -> Iterator[sqlite3.Connection]:
        connection = self.engine.raw_connection()
        try:
            yield connection.driver_connection  # type: ignore[misc]
        except sqlite3.Error as error:
            raise Unavailable(f"control store: it was not copied ({error}); see its disk", 2.0) from error
        finally:
            connection.close()


def _configure(engine: Engine, busy_timeout_s: float) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours to send
        for pragma in (
            f"busy_timeout={int(busy_timeout_s * 1000)}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _triggers() -> Iterator[tuple[str, str]]:
    for table in covered():
        for change, rows in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
            name = f"{_TRIGGER}~{table.name}~{change.lower()}"
            notes = " ".join(_note(table, row) for row in rows)
            yield name, f'CREATE TRIGGER "{name}" AFTER {change} ON "{table.name}" BEGIN {notes} END'


def _note(table: Table, row: str) -> str:
    """One of a row's key, unless it is noted: an outer statement's own way with conflicts would hold for OR IGNORE."""
    names = ", ".join(f'{row}."{column.name}"' for column in table.primary_key)
    key = f"json_array({names})"
    there = f"SELECT 1 FROM control_touched WHERE of = '{table.name}' AND key = {key}"  # noqa: S608
    return f"INSERT INTO control_touched (of, key) SELECT '{table.name}', {key} WHERE NOT EXISTS ({there});"
