"""The control store's database: transactions, on each; schema, and errors as ours, on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, exc, insert

from cluster.errors import Conflict, Corrupt, Rejected, Unavailable
from cluster.stores import control_database
from cluster.stores.control import ControlStore, open_control
from cluster.stores.control_database import SCHEMA, ControlDatabase
from cluster.stores.control_pushes import PushClaim
from cluster.stores.control_tables import audit, metadata
from tests.cluster.stores.processes import in_processes

T, S = "tenant-1", "feed"


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[ControlStore]:
    opened = open_control(sqlite_url)
    yield opened
    opened.close()


def test_the_migrations_make_the_tables_of_the_code(sqlite_store: ControlStore) -> None:
    with sqlite_store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_keys_of_the_first_schema_keep_their_answers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    database = ControlDatabase(url)
    with database.write() as connection:
        upgrade(connection, "0001")
        row = "(tenant, source, key, body_hash, epoch, first_position, count, answer, created)"
        for source, answer in (("system/push", '{"accepted":2}'), ("crm", None)):
            values = (T, source, "k", "hash", 1, 1, 2, answer, 5.0)
            statement = f"INSERT INTO acceptances {row} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
            connection.exec_driver_sql(statement, values)
    database.close()
    store = open_control(url)
    store.sources.register(T, "crm", 0.0)
    assert store.pushes.claim(T, "k", "hash", "me", 15.0, 6.0, 100) == PushClaim({"accepted": 2})
    assert store.acceptance.accept(T, "crm", "k", "hash", 2, 6.0).replayed
    store.close()


def test_streams_of_events_go_on_under_the_newest_epoch_that_they_had(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    database = ControlDatabase(url)
    with database.write() as connection:
        upgrade(connection, "0004")
        for name, kind in (("hr", "event"), ("crm", "debezium"), ("new", "event")):
            connection.exec_driver_sql(
                "INSERT INTO streams (name, tenants, topic, format, begin, state, timeline_epoch, created)"
                " VALUES (?, '[\"a\"]', 't', ?, 'earliest', 'active', 1, 0.0)",
                (name, kind),
            )
        for name, partition, epoch in (("hr", 0, 2), ("hr", 1, 5), ("crm", 0, 3)):
            connection.exec_driver_sql(
                'INSERT INTO stream_partitions (stream, partition, epoch, start, "offset") VALUES (?, ?, ?, 0, 7)',
                (name, partition, epoch),
            )
    database.close()
    store = open_control(url)
    assert {s.spec.name: s.timeline_epoch for s in store.streams.list()} == {"hr": 5, "crm": 1, "new": 1}
    (part,) = store.streams.partitions("crm")
    assert (part.offset, part.leader_epoch, part.note, part.partial) == (7, -1, "", 0)
    store.close()


def upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(control_database.__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def test_a_commit_is_synced_and_the_journal_is_wal(sqlite_store: ControlStore) -> None:
    with sqlite_store.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def open_once(_: int, url: str) -> None:
    open_control(url).close()


def test_several_processes_may_create_it_at_once(tmp_path: Path) -> None:
    in_processes(3, open_once, f"sqlite:///{tmp_path / 'new.db'}")
    open_once(0, f"sqlite:///{tmp_path / 'new.db'}")


def test_the_newest_migration_is_the_schema_that_is_not_migrated(store: ControlStore) -> None:
    assert ScriptDirectory(str(Path(control_database.__file__).with_name("migrations"))).get_current_head() == SCHEMA
    with store.database.read() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == [SCHEMA]


def test_a_newer_schema_is_refused(store: ControlStore, url: str) -> None:
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Rejected, match="upgrade"):
        open_control(url)


def test_a_transaction_that_raises_leaves_nothing(store: ControlStore) -> None:
    def halfway() -> None:
        with store.database.write() as connection:
            row = {"at": 0.0, "tenant": T, "actor": "a", "action": "b", "subject": "c", "detail": "{}"}
            connection.execute(insert(audit).values(**row))
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        halfway()
    assert store.audit.list(T) == []


def test_a_locked_database_is_unavailable(store: ControlStore, url: str) -> None:
    impatient = open_control(url, busy_timeout_s=0.05)
    with store.database.write(), pytest.raises(Unavailable, match="other writers"):
        impatient.sources.register(T, S, 0.0)
    assert impatient.sources.register(T, S, 0.0).name == S
    impatient.close()


def test_errors_of_the_database_become_ours_and_bad_sql_crashes(sqlite_store: ControlStore, tmp_path: Path) -> None:
    def broken(sql: str) -> None:
        with sqlite_store.database.write() as connection:
            connection.exec_driver_sql(sql)

    with pytest.raises(Conflict):
        broken("INSERT INTO leases VALUES (NULL, 'h', NULL, 0)")
    with pytest.raises(exc.OperationalError, match="syntax error"):
        broken("SELEKT 1")
    with sqlite_store.database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full"):
        sqlite_store.audit.append(T, "a", "b", "c", 0.0, {"x": "y" * 100_000})
    with pytest.raises(Unavailable):
        open_control(f"sqlite:///{tmp_path / 'absent' / 'control.db'}")
    (tmp_path / "garbage.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(Corrupt, match="damaged"):
        open_control(f"sqlite:///{tmp_path / 'garbage.db'}")
