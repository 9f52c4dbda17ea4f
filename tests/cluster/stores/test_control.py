"""The control store on SQLite: sources, epochs, loads, shards, runs, leases, names, positions, audit."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import exc, insert
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from cluster.errors import BadRecord, Conflict, Corrupt, Fenced, Forbidden, NotFound, Rejected, Unavailable
from cluster.shard_map import add_shard, adopt_empty, initial
from cluster.stores import control_database
from cluster.stores.control import ControlStore, open_control
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_names import refusal
from cluster.stores.control_pushes import PushClaim
from cluster.stores.control_tables import audit, metadata
from cluster.stores.log import LogIdentity

T, S = "tenant-1", "feed"
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("control") / "empty.db"
    open_control(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def url(migrated: Path, tmp_path: Path) -> str:
    shutil.copy(migrated, tmp_path / "control.db")
    return f"sqlite:///{tmp_path / 'control.db'}"


@pytest.fixture
def store(url: str) -> Iterator[ControlStore]:
    opened = open_control(url)
    yield opened
    opened.close()


def in_processes(count: int, target: Callable[..., None], *arguments: Any) -> None:
    workers = [SPAWN.Process(target=target, args=(n, *arguments)) for n in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0


def test_the_migrations_make_the_tables_of_the_code(store: ControlStore) -> None:
    with store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_keys_of_the_first_schema_keep_their_answers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    database = ControlDatabase(url)
    config = Config()
    config.set_main_option("script_location", str(Path(control_database.__file__).with_name("migrations")))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
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


def test_a_commit_is_synced_and_the_journal_is_wal(store: ControlStore) -> None:
    with store.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_the_tables_are_sql_that_postgresql_takes() -> None:
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]


def open_once(_: int, url: str) -> None:
    open_control(url).close()


def test_several_processes_may_create_it_at_once(tmp_path: Path) -> None:
    in_processes(3, open_once, f"sqlite:///{tmp_path / 'new.db'}")
    open_once(0, f"sqlite:///{tmp_path / 'new.db'}")


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


def test_errors_of_the_database_become_ours_and_bad_sql_crashes(store: ControlStore, tmp_path: Path) -> None:
    def broken(sql: str) -> None:
        with store.database.write() as connection:
            connection.exec_driver_sql(sql)

    with pytest.raises(Conflict):
        broken("INSERT INTO leases VALUES (NULL, 'h', NULL, 0)")
    with pytest.raises(exc.OperationalError, match="syntax error"):
        broken("SELEKT 1")
    with store.database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full"):
        store.audit.append(T, "a", "b", "c", 0.0, {"x": "y" * 100_000})
    with pytest.raises(Unavailable):
        open_control(f"sqlite:///{tmp_path / 'absent' / 'control.db'}")
    (tmp_path / "garbage.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(Corrupt, match="damaged"):
        open_control(f"sqlite:///{tmp_path / 'garbage.db'}")


def test_a_source_is_registered_once_per_tenant(store: ControlStore) -> None:
    first = store.sources.register(T, S, 5.0, owner="desk", priority=3)
    assert store.sources.register(T, S, 9.0, owner="other") == first
    other = store.sources.register("tenant-2", S, 6.0)
    assert (first.owner, first.priority, first.positions, first.state) == ("desk", 3, None, "active")
    assert (other.tenant, other.owner) == ("tenant-2", "")
    assert store.sources.list(T) == [first]
    with pytest.raises(NotFound):
        store.sources.get(T, "absent")


@pytest.mark.parametrize("name", ["overlay/pagerank", "system/x", "overlay/"])
def test_reserved_names_are_refused_from_outside(store: ControlStore, name: str) -> None:
    with pytest.raises(Forbidden):
        store.sources.register(T, name, 0.0)
    assert store.sources.register(T, name, 0.0, ours=True).name == name
    with pytest.raises(Forbidden):
        store.sources.register(T, "feed", 0.0, ours=True)


@pytest.mark.parametrize("name", ["", " ", "a b", "/x", "a" * 256, "a\n", "é", "a`b"])
def test_malformed_names_are_refused(store: ControlStore, name: str) -> None:
    with pytest.raises(Rejected):
        store.sources.register(T, name, 0.0)


def test_a_killed_source_writes_nothing_more(store: ControlStore) -> None:
    store.sources.register(T, S, 0.0)
    store.sources.kill(T, S)
    store.sources.kill(T, S)
    for call in (
        lambda: store.acceptance.accept(T, S, None, "h", 1, 0.0), lambda: store.loads.start(T, S, "d", 0.0),
        lambda: store.sources.own_or_assigned(T, S, "own"),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            call()


def test_a_source_has_positions_always_or_never(store: ControlStore) -> None:
    store.sources.register(T, "own", 0.0)
    store.sources.register(T, "none", 0.0)
    store.sources.own_or_assigned(T, "own", "own")
    store.sources.own_or_assigned(T, "own", "own")
    store.acceptance.accept(T, "none", None, "h", 1, 0.0)
    assert store.sources.get(T, "none").positions == "assigned"
    with pytest.raises(BadRecord) as raised:
        store.sources.own_or_assigned(T, "none", "own")
    assert raised.value.error_class == "schema"
    with pytest.raises(BadRecord):
        store.acceptance.accept(T, "own", None, "h", 1, 0.0)


def take_epochs(worker: int, url: str, out: str) -> None:
    store = open_control(url)
    taken = {f"digest-{n}": store.loads.epoch_of(T, S, f"digest-{n}", 0.0) for n in range(20)}
    taken |= {f"own-{worker}-{n}": store.loads.epoch_of(T, S, f"own-{worker}-{n}", 0.0) for n in range(5)}
    Path(out, str(worker)).write_text(json.dumps(taken))
    store.close()


def test_a_digest_has_one_epoch_for_ever_in_every_process(store: ControlStore, url: str, tmp_path: Path) -> None:
    store.sources.register(T, S, 0.0)
    in_processes(3, take_epochs, url, str(tmp_path))
    seen = [json.loads((tmp_path / str(n)).read_text()) for n in range(3)]
    everything: dict[str, int] = {}
    for taken in seen:
        for digest, epoch in taken.items():
            assert everything.setdefault(digest, epoch) == epoch
    assert sorted(everything.values()) == list(range(1, 36))
    assert store.sources.get(T, S).next_epoch == 36


def test_a_load_goes_on_where_it_was_committed(store: ControlStore) -> None:
    store.sources.register(T, S, 0.0)
    load = store.loads.start(T, S, "digest", 1.0, label="a.csv", mapping={"id": "name"})
    assert (load.state, load.epoch, load.mapping) == ("running", 1, {"id": "name"})
    assert store.loads.start(T, S, "digest", 2.0) == load
    store.loads.commit(T, load.id, 0, 0, 100, acked=9, dead=1)
    store.loads.commit(T, load.id, 1, 0, 50, acked=5)
    store.loads.commit(T, load.id, 0, 100, 130, acked=3)
    with pytest.raises(Conflict):
        store.loads.commit(T, load.id, 0, 100, 130, acked=3)
    with pytest.raises(Rejected):
        store.loads.commit(T, load.id, 0, 130, 130)
    assert store.loads.positions(T, load.id) == {0: 130, 1: 50}
    store.loads.record_outcomes(T, load.id, applied=10, duplicate=6, stale=1)
    store.loads.end(T, load.id, "done", 3.0)
    ended = store.loads.get(T, load.id)
    assert (ended.acked, ended.dead, ended.applied, ended.duplicate, ended.stale) == (17, 1, 10, 6, 1)
    assert (ended.state, ended.ended) == ("done", 3.0)
    with pytest.raises(Rejected, match="ended"):
        store.loads.commit(T, load.id, 0, 130, 140)
    again = store.loads.start(T, S, "digest", 4.0)
    assert again.id != load.id
    assert again.epoch == load.epoch
    store.loads.end(T, load.id, "undone", 5.0)
    with pytest.raises(Rejected, match="undone"):
        store.loads.end(T, load.id, "done", 6.0)
    assert [found.id for found in store.loads.list(T)] == [again.id, load.id]
    with pytest.raises(NotFound):
        store.loads.get("tenant-2", load.id)


def test_a_map_follows_its_own_parent_only_and_raises_the_epochs_it_touches(store: ControlStore) -> None:
    for name in "abc":
        store.shards.register(name, f"unix:/{name}", 0.0)
    assert store.shard_maps.current() is None
    first = initial(["a", "b"], 8)
    assert store.shard_maps.publish(0, first, 1.0, "up") == {"a": 1, "b": 1}
    assert store.shard_maps.current() == first
    only_from_a = adopt_empty(first, "c", first.buckets_of("a")[:10])
    assert store.shard_maps.publish(1, only_from_a, 2.0, "add") == {"a": 2, "c": 1}
    assert [shard.epoch for shard in store.shards.list()] == [2, 1, 1]
    with pytest.raises(Conflict):
        store.shard_maps.publish(1, add_shard(first, "c"), 3.0, "late")
    with pytest.raises(Conflict):
        store.shard_maps.publish(5, replace(only_from_a, revision=6), 3.0, "ahead")
    with pytest.raises(Rejected, match="follow"):
        store.shard_maps.publish(2, first, 3.0, "older")
    with pytest.raises(Rejected, match="register"):
        store.shard_maps.publish(2, add_shard(only_from_a, "stranger"), 3.0, "x")
    assert store.shard_maps.current() == only_from_a
    assert store.shards.raise_epoch("b") == 2


def publish_race(worker: int, url: str) -> None:
    store = open_control(url)
    won = 0
    while (current := store.shard_maps.current()) and current.revision < 12:
        try:
            target = current.shards[worker % len(current.shards)]
            owners = (target, *current.owners[1:])
            new = type(current)(current.revision + 1, current.partitions, owners)
            store.shard_maps.publish(current.revision, new, 0.0, f"worker-{worker}")
            won += 1
        except Conflict:
            continue
    store.close()


def test_racing_publishers_make_one_line_of_revisions(store: ControlStore, url: str) -> None:
    for name in "ab":
        store.shards.register(name, "", 0.0)
    store.shard_maps.publish(0, initial(["a", "b"], 8), 0.0, "up")
    in_processes(3, publish_race, url)
    with store.database.read() as connection:
        revisions = connection.exec_driver_sql("SELECT revision FROM shard_maps ORDER BY revision").scalars().all()
    assert list(revisions) == list(range(1, 13))


def test_shards_have_roles_states_and_lag(store: ControlStore) -> None:
    store.shards.register("a", "unix:/1", 0.0, region="eu", weight=2.0)
    store.shards.register("r", "unix:/2", 0.0, role="replica", of="a")
    assert store.shards.register("a", "unix:/3", 1.0).uri == "unix:/3"
    store.shards.report_lag("r", 12, 0.5, 2.0)
    store.shards.set_state("r", "active", "draining", 3.0)
    with pytest.raises(Conflict):
        store.shards.set_state("r", "active", "down", 4.0)
    replica = store.shards.get("r")
    assert (replica.of, replica.state, replica.lag_records, replica.lag_seconds) == ("a", "draining", 12, 0.5)
    wrong: list[Callable[[], object]] = [
        lambda: store.shards.register("x", "", 0.0, role="replica"),
        lambda: store.shards.register("x", "", 0.0, of="a"),
        lambda: store.shards.register("x", "", 0.0, weight=0.0), lambda: store.shards.register("r", "", 0.0),
        lambda: store.shards.register("x", "", 0.0, role="replica", of="r"), lambda: store.shards.get("x"),
    ]  # fmt: skip
    for call in wrong:
        with pytest.raises(Rejected):
            call()


def register_names(worker: int, url: str, out: str) -> None:
    store = open_control(url)
    refused = store.names.register(T, "relationship_type", [f"T{worker}_{n}" for n in range(10)], limit=15)
    Path(out, f"refused-{worker}").write_text(json.dumps(sorted(refused)))
    store.close()


def test_a_tenants_names_stay_within_the_limit_whoever_registers(store: ControlStore, url: str, tmp_path: Path) -> None:
    in_processes(3, register_names, url, str(tmp_path))
    known = store.names.list(T, "relationship_type")
    refused = [name for n in range(3) for name in json.loads((tmp_path / f"refused-{n}").read_text())]
    assert (len(known), len(refused)) == (15, 15)
    assert (store.names.count(T, "relationship_type"), store.names.count(T, "property_name")) == (15, 0)
    assert not known & set(refused)
    assert store.names.register(T, "relationship_type", known, limit=15) == frozenset()
    assert store.names.register(T, "relationship_type", ["New"], limit=15) == {"New"}
    assert store.names.register("tenant-2", "relationship_type", ["New"], limit=15) == frozenset()
    assert store.names.register(T, "property_name", ["New"], limit=15) == frozenset()
    assert refusal("relationship_type", "New", 15).error_class == "constraint"


def test_runs_count_up_per_overlay_and_tenant(store: ControlStore) -> None:
    assert [store.runs.start(T, "pagerank", "s1", float(n)).run for n in range(3)] == [1, 2, 3]
    assert store.runs.start(T, "louvain", "s1", 5.0).run == 1
    assert store.runs.start("tenant-2", "pagerank", "s1", 5.0).run == 1
    done = store.runs.finish(T, "pagerank", 2, "published", 9.0, {"overlap": 0.9})
    assert (done.state, done.gate, done.ended) == ("published", {"overlap": 0.9}, 9.0)
    assert store.runs.finish(T, "pagerank", 2, "published", 10.0) == done
    with pytest.raises(Conflict):
        store.runs.finish(T, "pagerank", 2, "failed", 10.0)
    with pytest.raises(NotFound):
        store.runs.finish(T, "pagerank", 9, "failed", 10.0)
    store.runs.finish(T, "pagerank", 3, "gated", 9.0)
    assert store.runs.latest(T, "pagerank") == done
    assert store.runs.latest(T, "louvain") is None
    assert [run.run for run in store.runs.list(T, "pagerank")] == [3, 2, 1]


def test_a_pointer_only_advances(store: ControlStore) -> None:
    assert store.pointers.get("snapshot") is None
    store.pointers.advance("snapshot", 0, 5, "m5", 1.0)
    with pytest.raises(Conflict):
        store.pointers.advance("snapshot", 0, 6, "m6", 2.0)
    with pytest.raises(Rejected):
        store.pointers.advance("snapshot", 5, 5, "m5b", 2.0)
    pointer = store.pointers.advance("snapshot", 5, 9, "m9", 2.0)
    assert store.pointers.get("snapshot") == pointer


def test_a_lease_has_one_holder_and_each_take_over_a_greater_token(store: ControlStore) -> None:
    leases = store.leases
    assert leases.acquire("lake", "one", 10.0, now=100.0) == 1
    with pytest.raises(Conflict) as raised:
        leases.acquire("lake", "two", 10.0, now=107.0)
    assert raised.value.retry_after_s == 3.0
    leases.renew("lake", 1, 10.0, now=108.0)
    with pytest.raises(Conflict):
        leases.acquire("lake", "two", 10.0, now=117.0)
    assert leases.acquire("lake", "two", 10.0, now=118.0) == 2
    with pytest.raises(Fenced):
        leases.renew("lake", 1, 10.0, now=118.0)
    with pytest.raises(Fenced):
        leases.check("lake", 1)
    leases.release("lake", 1)
    leases.check("lake", 2)
    assert leases.acquire("lake", "two", 10.0, now=119.0) == 3, "a restarted holder fences its former self"
    leases.release("lake", 3)
    with pytest.raises(Fenced):
        leases.renew("lake", 3, 10.0, now=120.0)
    assert leases.acquire("lake", "one", 10.0, now=120.0) == 4


def test_a_map_that_was_planned_under_leases_is_refused_once_one_of_them_is_anothers(store: ControlStore) -> None:
    for shard in ("a", "b"):
        store.shards.register(shard, f"unix:///{shard}", 0.0)
    first = initial(["a"], 8)
    store.shard_maps.publish(0, first, 0.0, "up")
    assert store.leases.acquire("writer/a", "writer", 10.0, now=100.0) == 1
    held = {"writer/a": store.leases.acquire("writer/a", "shards add", 10.0, now=101.0, by_force=True)}
    with pytest.raises(Fenced):
        store.leases.renew("writer/a", 1, 10.0, now=101.0)
    with pytest.raises(Conflict):
        store.leases.acquire("writer/a", "writer", 10.0, now=102.0)
    store.leases.acquire("writer/a", "writer", 10.0, now=112.0)  # it ran out: the writer writes again
    with pytest.raises(Fenced):
        store.shard_maps.publish(1, add_shard(first, "b"), 112.0, "add", held)
    assert store.shard_maps.current() == first
    held = {"writer/a": store.leases.acquire("writer/a", "shards add", 10.0, now=113.0, by_force=True)}
    store.shard_maps.publish(1, add_shard(first, "b"), 113.0, "add", held)


def test_a_clock_that_goes_back_ends_no_lease_early(store: ControlStore) -> None:
    token = store.leases.acquire("lake", "one", 10.0, now=5000.0)
    store.leases.renew("lake", token, 10.0, now=1400.0)
    with pytest.raises(Conflict):
        store.leases.acquire("lake", "two", 10.0, now=5009.0)


def lease_race(worker: int, url: str, out: str) -> None:
    store = open_control(url)
    tokens = [store.leases.acquire("lake", f"holder-{worker}", 0.0, now=1.0) for _ in range(20)]
    Path(out, f"tokens-{worker}").write_text(json.dumps(tokens))
    store.close()


def test_no_token_is_given_twice(url: str, tmp_path: Path) -> None:
    in_processes(3, lease_race, url, str(tmp_path))
    tokens = [token for n in range(3) for token in json.loads((tmp_path / f"tokens-{n}").read_text())]
    assert sorted(tokens) == list(range(1, 61))


def test_the_log_may_be_trimmed_by_the_slowest_consumer(store: ControlStore) -> None:
    positions = store.positions
    assert positions.least() == {}
    positions.report_durable("shard-0", {0: 10, 1: 20}, 1.0)
    assert positions.least() == {0: 10, 1: 20}
    positions.register("lake", [0, 1], 2.0)
    assert positions.least() == {0: 0, 1: 0}, "a consumer that has reported nothing holds everything"
    positions.report_durable("lake", {0: 4, 1: 30}, 3.0)
    positions.register("lake", [0, 1], 4.0)
    assert (positions.least(), positions.greatest()) == ({0: 4, 1: 20}, {0: 10, 1: 30})
    positions.report_durable("shard-0", {0: 2}, 5.0)
    assert positions.of("shard-0") == {0: 2, 1: 20}
    positions.remove("lake")
    assert positions.least() == {0: 2, 1: 20}


def test_positions_are_of_one_log(store: ControlStore) -> None:
    identity = LogIdentity("a" * 32, 1, 8)
    store.positions.bind_log(identity)
    store.positions.bind_log(identity)
    with pytest.raises(Corrupt, match="not the one"):
        store.positions.bind_log(identity._replace(name="b" * 32))
    store.positions.bind_log(identity._replace(name="b" * 32, generation=2))


def test_the_audit_pages_by_tenant(store: ControlStore) -> None:
    first = store.audit.append(T, "alice", "dlq.replay", "abc", 1.0, {"count": 2})
    store.audit.append("tenant-2", "bob", "source.kill", "feed", 2.0)
    second = store.audit.append(T, "alice", "source.kill", "feed", 3.0)
    assert [entry.sequence for entry in store.audit.list(T)] == [first, second]
    assert store.audit.list(T, limit=1)[0].detail == {"count": 2}
    assert [entry.sequence for entry in store.audit.list(T, after=first)] == [second]
    assert [entry.sequence for entry in store.audit.list(T, action="dlq.replay")] == [first]
    assert not any(name.startswith(("update", "delete", "remove", "set")) for name in dir(store.audit))
    with pytest.raises(Rejected):
        store.audit.list(T, limit=0)
