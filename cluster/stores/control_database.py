"""The control store's database: transactions, schema and the translation of its errors.

    with database.write() as connection: …     one serialised transaction: all of it, or none
    with database.read() as connection: …      one consistent view

SQLite runs in WAL mode with `synchronous=FULL`: a committed transaction survives a power loss. Writers take the lock
with `BEGIN IMMEDIATE`, so that what they read is still so when they write; PostgreSQL runs serialisable transactions to
the same end. Threads may share an instance; a child process has to open its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cluster.errors import Conflict, Corrupt, IntelGraphError, Rejected, Unavailable
from cluster.stores.control_changes import note_changes
from cluster.stores.control_journal import LogIsAhead

_BEGIN = "intelgraph_begin"
_SERIALIZATION_FAILURES = ("40001", "40P01")
_MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATION_LOCK = 0x17E16
_MIGRATING = Lock()  # Alembic keeps its context in a global of the process


class Journal(Protocol):
    """Where changes go before they are committed; see `control_journal.ControlJournal`."""

    def record(self, connection: Connection) -> None: ...

    def catch_up(self, connection: Connection) -> None: ...

    def close(self) -> None: ...


class ControlDatabase:
    """The engine and its transactions.

    Args:
        url: of SQLAlchemy: `sqlite:////path/control.db`, `postgresql+psycopg://…`.
        busy_timeout_s: how long a writer waits for others.
        journal: takes every change before it is committed.
    """

    def __init__(self, url: str, busy_timeout_s: float = 10.0, journal: Journal | None = None) -> None:
        self._journal, self._may_lack = journal, False
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        if self._sqlite:
            self._engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
            _configure_sqlite(self._engine, busy_timeout_s)
        else:
            self._engine = create_engine(url, isolation_level="SERIALIZABLE", pool_pre_ping=True)

    @contextmanager
    def write(self, *, later: bool = False) -> Iterator[Connection]:
        """One transaction that no other writer's interleaves with; committed at the end, rolled back if it raises.

        Args:
            later: it may be lost with the database's newest second: it is in the log with the next one that may not.
                For what is done again, or said again, harmlessly: how far a file is read, that a lease goes on.

        Raises:
            Conflict: a constraint, or another transaction, stood against it: read again, try again.
            Unavailable: the database is locked, full or gone; or the log does not take the change.
            OutcomeUnknown: the log may have taken it: then it is done by whoever writes next.
        """
        if later or self._journal is None:
            with self._transaction("BEGIN IMMEDIATE") as connection:
                yield connection
            return
        if self._may_lack:
            self.catch_up()
        recording = False
        try:
            with self._transaction("BEGIN IMMEDIATE") as connection:
                yield connection
                recording = True
                self._journal.record(connection)
        except LogIsAhead:
            self._may_lack = True
            self.catch_up()
            raise
        except BaseException:
            self._may_lack = self._may_lack or recording
            raise

    def catch_up(self) -> None:
        """Puts into the store what the log has of it and it lacks. Safe to call twice."""
        if self._journal is not None:
            with self._transaction("BEGIN IMMEDIATE") as connection:
                self._journal.catch_up(connection)
            self._may_lack = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view. Raises Unavailable as `write` does."""
        with self._transaction("BEGIN") as connection:
            yield connection

    def flush(self) -> None:
        """Has the journal take what was written for later. Safe to call twice. Raises as `write` does."""
        with self.write():
            pass

    def migrate(self) -> None:
        """Brings the schema to this version's. Safe to call twice, and from several processes at once.

        Raises:
            Rejected: the database was made by a newer version.
        """
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        with _MIGRATING, self.write(later=True) as connection:
            if not self._sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise Rejected(f"control store: its schema is not one this version knows ({error}); upgrade") from error
            if self._sqlite:
                note_changes(connection)

    def copy_to(self, path: Path) -> None:
        """Writes a copy of the database, of one moment, to a new file. Blocks neither readers nor writers."""
        with self._driver() as driver:
            driver.execute("VACUUM INTO ?", (str(path),))

    def copy_from(self, path: Path) -> None:
        """Makes the database what a copy of it was, in one transaction: its schema, too, so `migrate` afterwards."""
        with self._driver() as driver, closing(sqlite3.connect(path)) as copy:
            copy.backup(driver)

    def close(self) -> None:
        """Closes the connections. Safe to call twice."""
        if self._journal is not None:
            self._journal.close()
        self._engine.dispose()

    @contextmanager
    def _driver(self) -> Iterator[sqlite3.Connection]:
        if not self._sqlite:
            raise Rejected("control store: only one in SQLite is copied by us; use its database's own tools")
        connection = self._engine.raw_connection()
        try:
            yield connection.driver_connection  # type: ignore[misc]
        except sqlite3.Error as error:
            raise Unavailable(f"control store: it was not copied ({error}); see its disk", 2.0) from error
        finally:
            connection.close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(**{_BEGIN: begin}) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise translate(error) from error


def insert_new(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> int:
    """Inserts those rows that no unique constraint stands against; returns how many."""
    values = list(rows)
    if not values:
        return 0
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    inserted = 0
    for row in values:
        statement = dialect.insert(table).values(**row).on_conflict_do_nothing()
        inserted += connection.execute(statement).rowcount
    return inserted


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Inserts a row, or overwrites all but the key of the one with its primary key."""
    key = [column.name for column in table.primary_key]
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(**row)
    rest = {name: value for name, value in row.items() if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=rest))


def translate(error: SQLAlchemyError) -> IntelGraphError | SQLAlchemyError:
    """The error of our tree; a programmer error (bad SQL, wrong type) stays as it is."""
    match error:
        case IntegrityError():
            return Conflict(
                f"control store: another write stood against this one ({error.orig}); read again, try again", 0.1
            )
        case PoolTimeout():
            return Unavailable("control store: all connections are in use; try again")
        case OperationalError() | InterfaceError():
            return _operational(error)
        case DBAPIError() if _sqlstate(error) in _SERIALIZATION_FAILURES:
            return Conflict("control store: another transaction came first; try again", 0.1)
        case DBAPIError() if "malformed" in str(error.orig) or "not a database" in str(error.orig):
            return Corrupt(f"control store: the file is damaged ({error.orig}); restore it from a backup")
    return error


def _operational(error: DBAPIError) -> IntelGraphError | SQLAlchemyError:
    if _sqlstate(error) in _SERIALIZATION_FAILURES:
        return Conflict("control store: another transaction came first; try again", 0.1)
    name = getattr(error.orig, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unavailable("control store: other writers hold it for too long; try again", 0.5)
    if name == "SQLITE_FULL":
        return Unavailable("control store: the disk is full; free space, then try again", 5.0)
    if name == "SQLITE_ERROR":
        return error  # SQL that the database does not understand: ours to mend
    return Unavailable(f"control store: {error.orig}; see its database", 2.0)


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", "") or "")


def _configure_sqlite(engine: Engine, busy_timeout_s: float) -> None:
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
