"""The control store in PostgreSQL, for installations whose actors run on several hosts.

Whoever writes takes one advisory lock first, so writers follow one another as on SQLite, and what they read is still so
when they write; readers wait for nobody. A commit is on the server's disk (and its synchronous standbys', where it has
them) when it returns. A client that stands still amid a transaction loses it, and the lock, after `IDLE_S`.

Copies, the checkpoints of the log's control partition, are files of SQLite, as those of a store in SQLite are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, LargeBinary, MetaData, Table, create_engine, delete, insert, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from cluster.errors import Conflict, Corrupt, IntelGraphError, Rejected, Unavailable
from cluster.stores.control_changes import LEFT_OUT, covered, schema_of
from cluster.stores.control_dialect import SILENT, count_on, defer_foreign_keys, note_nothing
from cluster.stores.control_sqlite import SqliteControl
from cluster.stores.control_tables import metadata
from cluster.stores.control_tenure import SessionTenure

IDLE_S = 60
_LEAST_VERSION = 14
_LOCK = 0x17E16
_PREFIX = "intelgraph_noted_"
_CHUNK, _CHUNK_OF_BYTES = 1_000, 16
"""Rows of a copy that are in memory; of tables whose rows hold whole records, fewer."""
_NOT_FIT = {
    "42501": "its user may not do that: the database has to belong to control.user",
    "3F000": "its schema is not there: the database has to belong to control.user",
    "42P01": "a table is not there: restore the database whole",
    "22P05": "its encoding does not have every character: it has to be UTF8",
}
_FAILURES = {"40001", "40P01"}
"""Of transactions that came first."""
_WAITS = {"55P03": "other writers hold it for too long; try again", "57014": "it takes too long; try again"}
_PASSING = ("08", "25P03", "25006", "28", "3D", "53", "57", "58", "XX")
"""The server's: connections, idle transactions, a standby, access, resources, shutdown, I/O."""


class PostgresControl:
    """See `control_database.Backend`.

    Args:
        url: `postgresql+psycopg://…`, with what libpq wants to know as its query.
        busy_timeout_s: how long a writer waits for others.
    """

    def __init__(self, url: str | URL, busy_timeout_s: float) -> None:
        wait_ms = max(1, int(busy_timeout_s * 1000))
        options = (
            f"-c lock_timeout={wait_ms} -c idle_in_transaction_session_timeout={IDLE_S * 1000}"
            f" -c statement_timeout={max(IDLE_S * 1000, 2 * wait_ms)} -c synchronous_commit=on -c timezone=UTC"
            " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
        )
        asked = make_url(url)
        alive = {
            "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "25000",
            "target_session_attrs": "read-write",
        }  # fmt: skip
        query: Mapping[str, Any] = {"connect_timeout": "5", "application_name": "intelgraph", **alive, **asked.query}
        self.engine = create_engine(
            asked.set(query=query), connect_args={"options": options}, isolation_level="READ COMMITTED",
            pool_pre_ping=True, hide_parameters=True,
        )  # fmt: skip

    @contextmanager
    def transaction(self, writes: bool) -> Iterator[Connection]:
        """See `Backend.transaction`."""
        with self.engine.connect() as connection, connection.begin():
            if writes:  # what the statements that follow read is of after the one before
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            else:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    def note_changes(self, connection: Connection) -> None:
        """See `Backend.note_changes`."""
        asked = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')"
        version, encoding = connection.exec_driver_sql(asked).one()
        if version < _LEAST_VERSION * 10_000:
            raise Rejected(
                f"control store: PostgreSQL {_LEAST_VERSION} or newer is needed, this is {version // 10_000}"
            )
        if encoding != "UTF8":
            raise Rejected(f"control store: the database's encoding is {encoding}, and has to be UTF8")
        query = (
            "SELECT p.proname, p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
            " WHERE t.tgname = p.proname AND t.tgenabled IN ('O', 'A') AND t.tgrelid::regclass::text"
            " = substr(p.proname, %s) AND p.pronamespace = current_schema()::regnamespace"
        )
        there = {str(name): str(body) for name, body in connection.exec_driver_sql(query, (len(_PREFIX) + 1,))}
        for table in covered():
            name, body = f"{_PREFIX}{table.name}", _body(table)
            if there.get(name) != body:
                connection.exec_driver_sql(
                    f'CREATE OR REPLACE FUNCTION "{name}"() RETURNS trigger LANGUAGE plpgsql'
                    f" SET search_path FROM CURRENT AS $note${body}$note$"
                )
                connection.exec_driver_sql(
                    f'CREATE OR REPLACE TRIGGER "{name}" AFTER INSERT OR UPDATE OR DELETE ON "{table.name}"'
                    f' FOR EACH ROW EXECUTE FUNCTION "{name}"()'
                )
                connection.exec_driver_sql(f'ALTER TABLE "{table.name}" ENABLE TRIGGER "{name}"')
        for table_name in LEFT_OUT:
            connection.exec_driver_sql(f'DROP TRIGGER IF EXISTS "{_PREFIX}{table_name}" ON "{table_name}"')
        keys = (
            "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f' AND NOT condeferrable"
            " AND connamespace = current_schema()::regnamespace"
        )
        for relation, name in connection.exec_driver_sql(keys).all():
            connection.exec_driver_sql(f'ALTER TABLE {relation} ALTER CONSTRAINT "{name}" DEFERRABLE')

    def copy_to(self, path: Path) -> None:
        """See `Backend.copy_to`. Blocks neither readers nor writers."""
        copy = SqliteControl(f"sqlite:///{path}", 1.0)
        try:
            with _of_file(path), self.transaction(writes=False) as here, copy.transaction(writes=True) as there:
                metadata.create_all(there)
                defer_foreign_keys(there)
                _copied(here, there)
                revision = here.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
                there.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
                there.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (revision,))
        finally:
            copy.engine.dispose()

    def copy_from(self, path: Path) -> None:
        """See `Backend.copy_from`."""
        copy = SqliteControl(f"sqlite:///{path}", 1.0)
        try:
            with _of_file(path), self.transaction(writes=True) as here, copy.transaction(writes=False) as there:
                if schema_of(there) > schema_of(here):
                    raise Rejected(f"{path} is of schema {schema_of(there)}, which this version does not know; upgrade")
                defer_foreign_keys(here)
                note_nothing(here, True)
                for table in reversed(metadata.sorted_tables):
                    here.execute(delete(table))
                _copied(there, here)
                for table in metadata.sorted_tables:
                    count_on(here, table)
        finally:
            copy.engine.dispose()

    def tenure(self) -> SessionTenure:
        """See `Backend.tenure`."""
        return SessionTenure(self.engine)

    def translate(self, error: DBAPIError) -> IntelGraphError | None:
        """See `Backend.translate`."""
        state = str(getattr(error.orig, "sqlstate", "") or "")
        if state in _NOT_FIT:
            return Rejected(f"control store: {_NOT_FIT[state]}")
        if state in _FAILURES:
            return Conflict("control store: another transaction came first; try again", 0.1)
        if state in _WAITS:
            return Unavailable(f"control store: {_WAITS[state]}", 0.5)
        if error.connection_invalidated or state.startswith(_PASSING) or (not state and _is_connection(error)):
            said = str(error.orig).strip().splitlines()
            return Unavailable(f"control store: {said[0] if said else 'it does not answer'}; see its database", 2.0)
        return None


@contextmanager
def _of_file(path: Path) -> Iterator[None]:
    """Errors of a copy's file, and not of the server."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise
        if "malformed" in str(error.orig) or "not a database" in str(error.orig):
            raise Corrupt(f"control store: its copy {path} is damaged ({error.orig})") from error
        raise Unavailable(f"control store: its copy {path}: {error.orig}; see the disk", 5.0) from error


def _is_connection(error: DBAPIError) -> bool:
    return type(error.orig).__name__ in ("OperationalError", "InterfaceError")


def _body(table: Table) -> str:
    """Notes a row's key, before and after."""

    def note(row: str) -> str:
        key = ", ".join(f'{row}."{column.name}"' for column in table.primary_key)
        values = f"('{table.name}', json_build_array({key})::text)"
        return f"INSERT INTO control_touched (of, key) VALUES {values} ON CONFLICT DO NOTHING;"  # noqa: S608

    silent = f"IF current_setting('{SILENT}', true) = 'on' THEN RETURN NULL; END IF;"
    after, before = (
        f"IF TG_OP <> 'DELETE' THEN {note('NEW')} END IF;",
        f"IF TG_OP <> 'INSERT' THEN {note('OLD')} END IF;",
    )
    return f" BEGIN {silent} {after} {before} RETURN NULL; END "


def _copied(source: Connection, target: Connection) -> None:
    """All rows of every table; columns that the source does not have keep their defaults."""
    there = MetaData()
    there.reflect(source, only=lambda name, _: name in metadata.tables)
    for table in metadata.sorted_tables:
        if table.name not in there.tables:
            continue
        columns = [column for column in table.c if column.name in there.tables[table.name].c]
        chunk = _CHUNK_OF_BYTES if any(isinstance(column.type, LargeBinary) for column in columns) else _CHUNK
        rows = source.execute(select(*columns).execution_options(yield_per=chunk))
        for some in rows.mappings().partitions(chunk):
            target.execute(insert(table), [dict(row) for row in some])
