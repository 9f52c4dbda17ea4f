"""The control store's database: transactions, schema and the translation of its errors.

    with database.write() as connection: …     one serialised transaction: all of it, or none
    with database.read() as connection: …      one consistent view

`control_sqlite` and `control_postgres` have what the two databases want. Threads may share an instance; a child process
has to open its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Table, column, inspect, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cluster.errors import Conflict, IntelGraphError, OutcomeUnknown, Rejected, Unavailable
from cluster.stores.control_dialect import insert_into
from cluster.stores.control_journal import Appended, LogIsAhead
from cluster.stores.control_postgres import PostgresControl
from cluster.stores.control_sqlite import SqliteControl
from cluster.stores.control_tenure import Tenure

SCHEMA = "0008"
"""The newest migration. A database that is at it already needs no Alembic, which takes a while to import."""
_MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATING = Lock()  # Alembic keeps its context in a global of the process


class Journal(Protocol):
    """Where changes go before they are committed; see `control_journal.ControlJournal`."""

    def append(self, connection: Connection) -> Appended | None: ...

    def note(self, connection: Connection, appended: Appended) -> None: ...

    def catch_up(self, connection: Connection) -> None: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """What a database wants of its own."""

    engine: Engine

    def transaction(self, writes: bool) -> AbstractContextManager[Connection]:
        """One that no other writer's interleaves with; or one consistent view."""

    def note_changes(self, connection: Connection) -> None:
        """Sees that there is a trigger for every change of a covered table. Safe to call twice."""

    def copy_to(self, path: Path) -> None:
        """Writes a copy, of one moment, to a new file of SQLite."""

    def copy_from(self, path: Path) -> None:
        """Makes the database what a copy was, in one transaction; `migrate` afterwards."""

    def tenure(self) -> Tenure:
        """What a node takes before it works on the store; its errors are the driver's."""

    def translate(self, error: DBAPIError) -> IntelGraphError | None:
        """The error of our tree; None where it is a programmer's."""


class ControlDatabase:
    """The engine and its transactions.

    Args:
        url: of SQLAlchemy: `sqlite:////path/control.db`, `postgresql+psycopg://…`.
        busy_timeout_s: how long a writer waits for others.
        journal: takes every change before it is committed.
    """

    def __init__(self, url: str | URL, busy_timeout_s: float = 10.0, journal: Journal | None = None) -> None:
        self._journal, self._may_lack = journal, False
        is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._backend: Backend = (SqliteControl if is_sqlite else PostgresControl)(url, busy_timeout_s)
        self._tenure = self._backend.tenure()

    @contextmanager
    def write(self, *, later: bool = False) -> Iterator[Connection]:
        """One transaction that no other writer's interleaves with; committed at the end, rolled back if it raises.

        Args:
            later: it may be lost with the database's newest second: it is in the log with the next one that may not.
                For what is done again, or said again, harmlessly: how far a file is read, that a lease goes on.

        Raises:
            Conflict: a constraint, or another transaction, stood against it: read again, try again.
            Unavailable: the database is locked, full or gone; or the log does not take the change.
            OutcomeUnknown: the log has, or may have taken it: then it is done by whoever writes next.
        """
        if later or self._journal is None:
            with self._transaction(writes=True) as connection:
                yield connection
            return
        if self._may_lack:
            self.catch_up()
        recording, appended = False, None
        try:
            with self._transaction(writes=True) as connection:
                yield connection
                recording = True
                if (appended := self._journal.append(connection)) is not None:
                    self._journal.note(connection, appended)
        except LogIsAhead:
            self._may_lack = True
            self.catch_up()
            raise
        except Unavailable as error:
            self._may_lack = self._may_lack or recording
            if appended is not None:
                raise OutcomeUnknown(f"{error}; the log has the change, so whoever writes next does it") from error
            raise
        except BaseException:
            self._may_lack = self._may_lack or recording
            raise

    def catch_up(self) -> None:
        """Puts into the store what the log has of it and it lacks. Safe to call twice."""
        if self._journal is not None:
            with self._transaction(writes=True) as connection:
                self._journal.catch_up(connection)
            self._may_lack = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view. Raises Unavailable as `write` does."""
        with self._transaction(writes=False) as connection:
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
        with _MIGRATING, self.write(later=True) as connection:
            if _schema_of(connection) != SCHEMA:
                _upgrade(connection)
            self._backend.note_changes(connection)

    def copy_to(self, path: Path) -> None:
        """Writes a copy of the database, of one moment, to a new file of SQLite. Blocks neither readers nor writers."""
        with self._translated():
            self._backend.copy_to(path)

    def copy_from(self, path: Path) -> None:
        """Makes the database what a copy of it was, in one transaction; `migrate` afterwards."""
        with self._translated():
            self._backend.copy_from(path)

    def take_tenure(self) -> None:
        """Keeps every other node off the store, from now on; to be called again now and then. Raises as `Tenure`."""
        with self._translated():
            self._tenure.take()

    def end_tenure(self) -> None:
        """Lets another node work on it. Safe to call twice."""
        self._tenure.end()

    def close(self) -> None:
        """Closes the connections. Safe to call twice."""
        self._tenure.end()
        if self._journal is not None:
            self._journal.close()
        self._backend.engine.dispose()

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        with self._translated(), self._backend.transaction(writes) as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._translate(error) from error

    def _translate(self, error: SQLAlchemyError) -> IntelGraphError | SQLAlchemyError:
        """The error of our tree; a programmer error (bad SQL, wrong type) stays as it is."""
        match error:
            case IntegrityError():
                return Conflict(
                    f"control store: another write stood against this one ({error.orig}); read again, try again", 0.1
                )
            case PoolTimeout():
                return Unavailable("control store: all connections are in use; try again")
            case DBAPIError():
                return self._backend.translate(error) or error
        return error


def _schema_of(connection: Connection) -> str | None:
    """The migration that a database is at; None where it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(select(column("version_num")).select_from(table("alembic_version")))


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Rejected(f"control store: its schema is not one this version knows ({error}); upgrade") from error


def insert_new(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> int:
    """Inserts those rows that no unique constraint stands against; returns how many."""
    values = list(rows)
    if not values:
        return 0
    inserted = 0
    for row in values:
        statement = insert_into(connection, table).values(**row).on_conflict_do_nothing()
        inserted += len(connection.execute(statement.returning(*table.primary_key)).all())
    return inserted


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Inserts a row, or overwrites all but the key of the one with its primary key."""
    key = [column.name for column in table.primary_key]
    statement = insert_into(connection, table).values(**row)
    rest = {name: value for name, value in row.items() if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=rest))
