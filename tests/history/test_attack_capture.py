"""The real change history of ATT&CK as changes in PostgreSQL, captured by Debezium, through Kafka into two shards.

Every row is an INSERT, UPDATE or DELETE in the order of the history. On the way Connect is killed and sends some again,
the broker is killed, readers die, and a shard is killed. The shards' hash is the fold's over the history.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.fold import Fold, hash_lines
from cluster.stores.shard_export import export_lines
from services.runner import Services
from services.spec import NotInstallable
from tests.cdc.capture import TABLES, Session
from tests.cdc.captured import CapturedDatabase
from tests.faults.harness import Installation, wait_until
from tests.history.captured_history import STATEMENTS, changes_of, differing, meant
from tests.history.test_attack_history import Row, rows
from tests.kafka_topics import Topic
from tests.stream_feed import Feed

__all__ = ["rows"]

pytestmark = [pytest.mark.services, pytest.mark.production, pytest.mark.chaos]
PAUSE_S = 0.1
"""After a transaction: so that changes are captured while they come, and not by a snapshot in the end."""


@pytest.fixture
def database(production: Services) -> Iterator[CapturedDatabase]:
    """A captured database of this test's own."""
    try:
        made = CapturedDatabase(production, "attack")
    except NotInstallable as error:
        pytest.skip(f"connect: {error}")
    yield made
    made.close()


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_history_captured_from_postgres_has_the_folds_hash(
    server_root: Path, production: Services, database: CapturedDatabase, rows: list[Row]
) -> None:
    changes = changes_of(rows)
    lines = meant(changes).export_lines()
    expected = hash_lines(lines)
    tenants, bootstrap = sorted({change.record.tenant for change in changes}), database.broker.address
    with Installation(server_root / "ac") as system, database.session() as session:
        system.start(lake=True)
        control, log = system.stack.control, system.stack.open_log()
        play = Play(session, [change.statement for change in changes])
        feeds = []
        for table in TABLES:
            Topic(database.broker, database.topic(table))
            feed = Feed(bootstrap, database.topic(table), control, log, system.settings, f"crm/{table}")
            feed.add(*tenants, format="debezium", table=table)
            feed.start("w1")
            feeds.append(feed)
        database.connect()
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
        said = Fold().apply_all(r for _, _, records in system.log_records() for r in records).export_lines()
        assert differing(lines, said) == ([], []), told
        assert differing(lines, export_lines(system.opened())) == ([], []), told
        assert system.hashes()[0] == expected
        assert [letter for tenant in tenants for letter in control.dead_letters.list(tenant)] == []
        assert sum(part.acked for feed in feeds for part in feed.parts()) > 40_000, "it was read, not only its end"
        for feed in feeds:
            feed.close()
        log.close()
