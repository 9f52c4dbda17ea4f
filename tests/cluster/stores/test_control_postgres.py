"""The control store in PostgreSQL: schema, locks, any text, copies, and its errors as ours."""

from __future__ import annotations

import string
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import exc, insert, select

from cluster.errors import Conflict, Rejected, Unavailable
from cluster.stores.control import ControlStore, open_control
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.control_tables import audit, metadata
from cluster.stores.control_text import escaped, plain
from tests.cluster.stores.processes import in_processes
from tests.postgres import PostgresServer

pytestmark = pytest.mark.production
T, S = "tenant-1", "feed"


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def another(postgres: PostgresServer, unique: str) -> Iterator[str]:
    """An empty database."""
    yield postgres.create(f"{unique}x")
    postgres.drop(f"{unique}x")


def test_the_migrations_make_the_tables_of_the_code(store: ControlStore) -> None:
    with store.database.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
        assert [change for change in found if change[0] not in ("add_fk", "remove_fk")] == []
        keys = [{"load", "stream", "of"} & {column.name for column in change[1].columns} for change in found]
        assert all(keys), "only that foreign keys can be deferred is another"


def open_once(_: int, url: str) -> None:
    open_control(url).close()


def test_several_processes_may_create_it_at_once(another: str) -> None:
    in_processes(3, open_once, another)
    open_once(0, another)


def test_writers_follow_one_another_and_readers_wait_for_nobody(store: ControlStore, url: str) -> None:
    with closing(open_control(url, busy_timeout_s=0.2)) as impatient:
        with store.database.write() as connection:
            row = {"at": 0.0, "tenant": T, "actor": "a", "action": "b", "subject": "c", "detail": "{}"}
            connection.execute(insert(audit).values(**row))
            with pytest.raises(Unavailable, match="other writers"):
                impatient.sources.register(T, S, 0.0)
            assert impatient.audit.list(T) == []
        assert len(impatient.audit.list(T)) == 1
        with impatient.database.read() as connection, pytest.raises(exc.DBAPIError, match="read-only"):
            connection.execute(insert(audit).values(**row))


def test_who_waited_sees_what_the_one_before_has_written(store: ControlStore, url: str) -> None:
    """Twenty threads take the same counter: no number twice, none left out, and nobody has to try again."""
    store.sources.register(T, S, 0.0)
    taken: list[int] = []
    with closing(open_control(url)) as other:

        def take(control: ControlStore, n: int) -> None:
            taken.append(control.loads.epoch_of(T, S, f"digest-{n}", 0.0))

        threads = [threading.Thread(target=take, args=(store if n % 2 else other, n)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(taken) == list(range(min(taken), min(taken) + 20))


def test_a_commit_is_on_disk_whatever_the_server_s_default_is(
    store: ControlStore, postgres: PostgresServer, unique: str
) -> None:
    with postgres.connected() as connection:
        connection.execute(f'ALTER DATABASE "{unique}" SET synchronous_commit = off')
    with store.database.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


@given(st.text(alphabet=st.one_of(st.sampled_from("\0\x01\x0201a"), st.characters(codec="utf-8"))))
def test_what_is_escaped_comes_back_and_no_two_become_one(text: str) -> None:
    kept = escaped(text)
    assert "\0" not in kept
    assert plain(kept) == text
    assert text == kept or "\x01" in kept


NASTY = f"n\0u\x01l\x010 {string.punctuation} ‮ \U0001f9e8"


def letter(number: int) -> NewDeadLetter:
    return NewDeadLetter(S, 1, [number], "decode", NASTY, b"\0payload", partition=NASTY, headers={"a": NASTY})


def test_any_text_is_kept(store: ControlStore) -> None:
    store.sources.register(T, S, 0.0)
    store.dead_letters.add(T, [letter(1)], 1.0)
    (found,) = store.dead_letters.list(T)
    assert (found.partition, found.reason, found.headers) == (NASTY, NASTY, {"a": NASTY})
    store.audit.append(T, NASTY, "b", NASTY, 0.0, {"x": NASTY})
    (said,) = store.audit.list(T)
    assert (said.actor, said.subject, said.detail) == (NASTY, NASTY, {"x": NASTY})


def rows(store: ControlStore) -> dict[str, list[Any]]:
    with store.database.read() as connection:
        return {
            str(table.name): sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
        }


def filled(store: ControlStore) -> None:
    store.sources.register(T, S, 0.0)
    load = store.loads.start(T, S, "digest", 1.0, label=NASTY)
    store.loads.commit(T, load.id, 0, 0, 100, acked=9, dead=1)
    store.dead_letters.add(T, [letter(n) for n in range(5)], 1.0)
    store.leases.acquire("l", "me", 10.0, 1.0)


def test_a_copy_is_a_file_of_sqlite_and_comes_back_from_it(store: ControlStore, another: str, tmp_path: Path) -> None:
    filled(store)
    before = rows(store)
    assert before["control_touched"]
    store.database.copy_to(tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == ["copy.db"]
    with closing(open_control(f"sqlite:///{tmp_path / 'copy.db'}")) as copy:
        assert rows(copy) == before
    with closing(open_control(another)) as restored:
        restored.sources.register("somebody", "else", 0.0)
        restored.database.copy_from(tmp_path / "copy.db")
        restored.database.migrate()
        assert rows(restored) == before
        restored.dead_letters.add(T, [letter(5)], 1.0)
        assert len(restored.dead_letters.list(T)) == 6, "numbers of letters go on behind those that were copied"


def test_errors_of_the_database_become_ours_and_bad_sql_crashes(
    store: ControlStore, postgres: PostgresServer, unique: str
) -> None:
    def broken(sql: str) -> None:
        with store.database.write() as connection:
            connection.exec_driver_sql(sql)

    with pytest.raises(Conflict):
        broken("INSERT INTO leases VALUES (NULL, 'h', NULL, 0)")
    with pytest.raises(exc.ProgrammingError, match="syntax error"):
        broken("SELEKT 1")
    with pytest.raises(Unavailable), store.database.write() as connection:
        postgres.cut_off(unique)
        with store.database.read() as other:
            assert other.exec_driver_sql("SELECT 1").scalar() == 1
        connection.exec_driver_sql("SELECT 1")
    store.sources.register(T, S, 0.0)


def test_a_trigger_that_is_gone_or_disabled_is_put_back(store: ControlStore, url: str) -> None:
    """As after a restore of one table."""
    with store.database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER intelgraph_noted_sources ON sources")
        connection.exec_driver_sql("ALTER TABLE leases DISABLE TRIGGER USER")
    with closing(open_control(url)) as again:
        again.sources.register(T, S, 0.0)
        again.leases.acquire("l", "me", 10.0, 1.0)
    assert {of for of, _ in rows(store)["control_touched"]} >= {"sources", "leases"}


def test_what_is_set_up_wrongly_is_refused_and_says_how_it_should_be(
    store: ControlStore, postgres: PostgresServer, unique: str
) -> None:
    with postgres.connected() as beside:
        beside.execute(
            f"CREATE DATABASE \"{unique}l\" ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        beside.execute(f"CREATE ROLE \"{unique}\" LOGIN PASSWORD 'word'")
    try:
        with pytest.raises(Rejected, match="LATIN1, and has to be UTF8"):
            open_control(postgres.url(f"{unique}l"))
        at = postgres.service.details
        theirs = postgres.url(unique).replace(f"{at['user']}:{at['password']}", f"{unique}:word")
        with pytest.raises(Rejected, match="belong to"):
            open_control(theirs)
    finally:
        postgres.drop(f"{unique}l")
        with postgres.connected() as beside:
            beside.execute(f'DROP ROLE "{unique}"')


def test_who_is_refused_is_told_so_without_the_password(postgres: PostgresServer) -> None:
    address = postgres.url("postgres")
    password = postgres.service.details["password"]
    with pytest.raises(Unavailable, match="authentication") as told:
        open_control(address.replace(password, "wrong-word"))
    assert "wrong-word" not in str(told.value)
    with pytest.raises(Unavailable, match="does not exist"):
        open_control(postgres.url("absent"))
    with pytest.raises(psycopg.OperationalError), postgres.connected() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_one_node_at_a_time(store: ControlStore, url: str) -> None:
    store.database.take_tenure()
    store.database.take_tenure()
    with closing(open_control(url)) as other:
        with pytest.raises(Conflict, match=r"another node works on it: intelgraph node on .*intelgraph down"):
            other.database.take_tenure()
        other.sources.register(T, S, 0.0)  # commands and actors are no nodes
        store.database.end_tenure()
        other.database.take_tenure()
        with pytest.raises(Conflict, match="another node"):
            store.database.take_tenure()
    store.database.take_tenure()


def test_a_session_that_the_server_lost_is_taken_anew_unless_another_node_came(
    store: ControlStore, url: str, postgres: PostgresServer, unique: str
) -> None:
    store.database.take_tenure()
    postgres.cut_off(unique)
    with pytest.raises(Unavailable):
        store.database.take_tenure()
    store.database.take_tenure()
    with closing(open_control(url)) as other:
        with pytest.raises(Conflict, match="another node"):
            other.database.take_tenure()
        postgres.cut_off(unique)
        with pytest.raises(Unavailable):
            store.database.take_tenure()
        other.database.take_tenure()
        with pytest.raises(Conflict, match="another node"):
            store.database.take_tenure()
