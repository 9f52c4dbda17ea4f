"""The real change history of ATT&CK as changes in PostgreSQL, captured by Debezium, through Kafka into two shards.

Every row is an INSERT, UPDATE or DELETE in the order of the history. On the way Connect is killed and sends some again,
the broker is killed, readers die, and a shard is killed. The shards' hash is the fold's over the history.
"""

# ruff: noqa: S608 - statements are made of the history's rows, quoted here

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.fold import Fold, hash_lines
from cluster.model import Kind, Op, Record
from cluster.stores.shard_export import export_lines
from services.runner import Services
from services.spec import NotInstallable
from tests.cdc.capture import Session
from tests.cdc.captured import CapturedDatabase
from tests.faults.harness import Installation, wait_until
from tests.history.test_attack_history import records, rows
from tests.stream_feed import Feed

__all__ = ["records", "rows"]

pytestmark = [pytest.mark.services, pytest.mark.production, pytest.mark.chaos]
STATEMENTS, PAUSE_S = 200, 0.2
"""Of a transaction, and after it: so that changes are captured while they come, and not by a snapshot in the end."""
_TABLES = {Kind.ENTITY: "entities", Kind.RELATIONSHIP: "relationships"}


@pytest.fixture
def database(production: Services) -> Iterator[CapturedDatabase]:
    """A captured database of this test's own."""
    try:
        made = CapturedDatabase(production, "attack")
    except NotInstallable as error:
        pytest.skip(f"connect: {error}")
    yield made
    made.close()


def statement(record: Record) -> str:
    """What a change is in SQL."""
    table = _TABLES[Kind(record.kind)]
    key = {"tenant": record.tenant, "case": record.case, "type": record.type, "id": record.id}
    if record.op == Op.DELETE:
        where = " AND ".join(f'"{name}" = {quoted(value)}' for name, value in key.items())
        return f"DELETE FROM {table} WHERE {where}"
    ends = {"from_type": record.a_type, "from_id": record.a_id, "to_type": record.b_type, "to_id": record.b_id}
    row = {**key, **(ends if record.kind == Kind.RELATIONSHIP else {}), "props": record.props}
    columns, values = ", ".join(f'"{name}"' for name in row), ", ".join(map(quoted, row.values()))
    changed = ", ".join(f"{name} = excluded.{name}" for name in row if name not in key)
    at = 'tenant, "case", type, id'
    return f"INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT ({at}) DO UPDATE SET {changed}"


def quoted(text: str) -> str:
    """A literal."""
    return "'" + text.replace("'", "''") + "'"


class Play:
    """Runs the history in a thread, some statements a transaction; `done` is the share that is committed."""

    def __init__(self, session: Session, lines: Sequence[str]) -> None:
        self._session, self._lines, self.done = session, lines, 0.0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for at in range(0, len(self._lines), STATEMENTS):
            self._session.run("BEGIN; " + "; ".join(self._lines[at : at + STATEMENTS]) + "; COMMIT")
            self.done = min(1.0, (at + STATEMENTS) / len(self._lines))
            time.sleep(PAUSE_S)

    def wait(self, share: float) -> None:
        """Until so much is committed."""
        while self.done < share:
            assert self.thread.is_alive()
            time.sleep(0.05)


def differing(expected: Sequence[str], found: Sequence[str]) -> tuple[list[str], list[str]]:
    """The first lines that are missing, and that are too many."""
    wanted, there = set(expected), set(found)
    return sorted(wanted - there)[:3], sorted(there - wanted)[:3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_history_captured_from_postgres_has_the_folds_hash(
    server_root: Path, production: Services, database: CapturedDatabase, records: list[Record]
) -> None:
    lines = Fold().apply_all(records).export_lines()
    expected = hash_lines(lines)
    tenants, bootstrap = sorted({record.tenant for record in records}), database.broker.address
    with Installation(server_root / "ac") as system, database.session() as session:
        system.start(lake=True)
        control, log = system.stack.control, system.stack.open_log()
        play = Play(session, [statement(record) for record in records])
        session.run(statement(records[0]))
        session.run(statement(next(record for record in records if record.kind == Kind.RELATIONSHIP)))
        database.connect()
        feeds = []
        for table in _TABLES.values():
            feed = Feed(bootstrap, database.topic(table), control, log, system.settings, f"crm/{table}")
            wait_until(feed.exists, 60.0, f"the topic of {table}")
            feed.add(*tenants, format="debezium", table=table)
            feed.start("w1")
            feeds.append(feed)
        play.thread.start()

        def broker_back() -> None:
            production.start("kafka")
            database.kill_worker()

        faults: list[tuple[float, Callable[[], object]]] = [
            (0.2, database.kill_worker),
            (0.35, lambda: [feed.kill("w1", "w2") for feed in feeds]),
            (0.5, lambda: system.kill("shard-0")),
            (0.55, lambda: system.restart("shard-0")),
            (0.7, lambda: production.kill("kafka")),
            (0.75, broker_back),
        ]
        for share, fault in faults:
            play.wait(share)
            fault()
        play.thread.join()

        def equal() -> bool:
            time.sleep(2.0)
            return all(feed.drained() for feed in feeds) and system.hashes()[0] == expected

        with suppress(AssertionError):
            wait_until(equal, 180.0)
        told = [(feed.control.streams.get(feed.name).note, feed.status("w2"), *feed.parts()) for feed in feeds]
        assert all(feed.drained() for feed in feeds), told
        system.settle()
        meant = Fold().apply_all(r for _, _, rows in system.log_records() for r in rows).export_lines()
        assert differing(lines, meant) == ([], []), told
        assert differing(lines, export_lines(system.opened())) == ([], []), told
        assert system.hashes()[0] == expected
        assert [letter for tenant in tenants for letter in control.dead_letters.list(tenant)] == []
        assert sum(part.acked for feed in feeds for part in feed.parts()) > 40_000, "it was read, not only its end"
        for feed in feeds:
            feed.close()
        log.close()
