"""Changes in PostgreSQL, through Debezium and Kafka, into the log: what the log means is what the tables hold."""

# ruff: noqa: S608 - statements are made of this file's own constants

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from actors.connectors.debezium import TABLES as KINDS
from cluster.config import Settings
from cluster.fold import Fold
from cluster.model import KIND_NAMES
from cluster.stores.control import ControlStore
from cluster.stores.log import EventLog
from services.runner import Services
from services.spec import NotInstallable
from tests.cdc.capture import TABLES, Session, claim, entity, relationship
from tests.cdc.captured import CapturedDatabase
from tests.faults.harness import wait_until
from tests.stream_feed import Feed

pytestmark = [pytest.mark.services, pytest.mark.production]
TENANTS = ("acme", "other")


@pytest.fixture
def database(production: Services, unique: str) -> Iterator[CapturedDatabase]:
    """A captured database; its connector is not there yet."""
    try:
        made = CapturedDatabase(production, unique)
    except NotInstallable as error:
        pytest.skip(f"connect: {error}")
    yield made
    made.close()


@pytest.fixture
def feeds(
    database: CapturedDatabase, control: ControlStore, event_log: EventLog, ingest_settings: Settings
) -> Iterator[dict[str, Feed]]:
    """A stream a table, registered once the connector has made their topics."""
    bootstrap = database.broker.address
    made = {
        table: Feed(bootstrap, database.topic(table), control, event_log, ingest_settings, f"crm/{table}")
        for table in TABLES
    }
    yield made
    for feed in made.values():
        feed.close()


def visible(fold: Fold) -> set[tuple[str, ...]]:
    """Things with what they say, as `held` has them."""
    return {
        (tenant, case, KIND_NAMES[kind], type, id, one.props, one.a_id, one.b_id, one.claim)
        for (tenant, case, kind, type, id), one in fold.visible()
    }


def held(database: CapturedDatabase) -> set[tuple[str, ...]]:
    """The tables' rows."""
    return {_thing(row) for row in database.rows()}


def _thing(row: dict[str, Any]) -> tuple[str, ...]:
    key = (row["tenant"], row["case"], KINDS[row["table"]], row["type"], row["id"])
    stated = ""
    if row["table"] == "claims":
        stated = _json([row["predicate"], row["value"], row["confidence"]])
    ends = (row.get("from_id") or row.get("subject_id") or "", row.get("to_id") or "")
    return (*key, _json(row["props"] or {}), *ends, stated)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def change_something(random: random.Random, one: Session, two: Session) -> None:
    """One change, or two transactions that overlap."""
    id, value = f"p{random.randrange(12)}", random.randrange(1_000)
    match random.randrange(10):
        case 0 | 1 | 2 | 3:
            one.run(f"""{entity(id, f'{{"v": {value}}}')} ON CONFLICT (tenant, "case", type, id)
                DO UPDATE SET props = excluded.props""")
        case 4:
            one.run(f"DELETE FROM entities WHERE id = '{id}' AND tenant = 'acme'")
        case 5:
            one.run(f"DELETE FROM entities WHERE id = '{id}' AND tenant = 'other'")
            one.run(f"UPDATE entities SET tenant = 'other' WHERE id = '{id}' AND tenant = 'acme'")
        case 6:
            one.run(f"{claim(f'k{id}', id, str(value))} ON CONFLICT DO NOTHING")
        case 7:
            one.run(f"DELETE FROM claims WHERE id = 'k{id}'")
        case 8:
            one.run(f"""{relationship(f"r{id}", "hub", "hub")} ON CONFLICT (tenant, "case", type, id)
                DO UPDATE SET props = '{{"v": {value}}}'""")
        case 9:
            one.run(f"""BEGIN; UPDATE entities SET props = '{{"open": {value}}}' WHERE id = '{id}'""")
            two.run(f"""UPDATE entities SET props = '{{"hub": {value}}}' WHERE id = 'hub'""")
            one.run("COMMIT")


def test_what_the_log_means_is_what_the_tables_hold_whatever_ends_on_the_way(
    database: CapturedDatabase, feeds: dict[str, Feed], folded: Callable[[], Fold], control: ControlStore
) -> None:
    """Random changes; Connect is killed, and readers end, in their midst; a table is truncated and filled again."""
    chance = random.Random(7)
    with database.session() as one, database.session() as two:
        one.run(f"{entity('hub', '{}')}; {entity('p1', '{}')}; {claim('kp1', 'p1', '1')}")
        one.run(relationship("r0", "hub", "hub"))
        database.connect()
        for feed in feeds.values():
            wait_until(lambda feed=feed: feed.exists(), 60.0, "the connector has made its topics")  # type: ignore[misc]
        for table, feed in feeds.items():
            feed.add(*TENANTS, format="debezium", table=table)
            feed.start("w1")
        wait_until(lambda: visible(folded()) == held(database), 60.0, "the initial snapshot is read")
        for round in range(3):
            for _ in range(30):
                change_something(chance, one, two)
            if round == 0:
                database.kill_worker()
            if round == 1:
                for feed in feeds.values():
                    feed.stop("w1")
                    feed.start("w2")
                one.run(f"TRUNCATE claims; {claim('after', 'hub', '2')}")
        one.run(f"{entity('last', '{}')}; {claim('last', 'hub', '3')}; {relationship('last', 'hub', 'hub')}")

    def settled() -> bool:
        for feed in feeds.values():
            feed.watch.turn()
        return visible(folded()) == held(database)

    with suppress(AssertionError):
        wait_until(settled, 60.0)
    assert visible(folded()) == held(database)
    assert [control.dead_letters.list(tenant) for tenant in TENANTS] == [[], []]
    assert {part.partition for feed in feeds.values() for part in feed.parts()} == {0}
