"""Changes in PostgreSQL, through Debezium and an Avro converter, into the log; the table gets a column meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.config import Settings
from cluster.fold import Fold
from cluster.stores.control import ControlStore
from cluster.stores.redis_log import RedisEventLog
from services.runner import Services
from services.spec import NotInstallable
from services.spec import Running as Service
from tests.cdc.capture import entity
from tests.cdc.captured import CapturedDatabase
from tests.faults.harness import wait_until
from tests.registered import Registered, opened
from tests.stream_feed import Feed

pytestmark = [pytest.mark.services, pytest.mark.production]


@pytest.fixture
def registered(service: Callable[[str], Service]) -> Iterator[Registered]:
    """The run's registry."""
    yield from opened(service("registry"))


@pytest.fixture
def database(production: Services, registered: Registered, unique: str) -> Iterator[CapturedDatabase]:
    """A captured database whose connector writes Avro; it is not there yet."""
    native = registered.settings.url.rpartition("/apis/")[0] + "/apis/registry/v2"
    options = {
        "value.converter": "io.apicurio.registry.utils.converter.AvroConverter",
        "value.converter.apicurio.registry.url": native,
        "value.converter.apicurio.registry.auto-register": "true",
        "value.converter.apicurio.registry.as-confluent": "true",
        "value.converter.apicurio.registry.headers.enabled": "false",
        "value.converter.apicurio.registry.use-id": "contentId",
        "schema.name.adjustment.mode": "avro",
        "field.name.adjustment.mode": "avro",
    }
    try:
        made = CapturedDatabase(production, unique, options)
    except NotInstallable as error:
        pytest.skip(f"connect: {error}")
    yield made
    made.close()


def test_envelopes_in_avro_say_what_those_in_json_say(
    database: CapturedDatabase,
    registered: Registered,
    control: ControlStore,
    event_log: RedisEventLog,
    ingest_settings: Settings,
    folded: Callable[[], Fold],
) -> None:
    topic = database.topic("entities")
    feed = Feed(database.broker.address, topic, control, event_log, ingest_settings, "crm")
    streams = feed.settings.streams.model_copy(update={"registry": registered.settings})
    feed.settings = feed.settings.model_copy(update={"streams": streams})

    def visible() -> dict[str, Any]:
        feed.watch.turn()
        return {thing[4]: merged.props for thing, merged in folded().visible()}

    with database.session() as session:
        session.run(entity("a", "{}"))
        session.run(entity("b", '{"n": 1.0, "deep": {"x": [1, null]}}'))
        database.connect()
        wait_until(feed.exists, 60.0, "the connector has made its topic")
        feed.add(format="debezium", table="entities", schema="registry", subject=f"{topic}-value")
        feed.start("w")
        session.run("UPDATE entities SET props = '{\"v\": 2}' WHERE id = 'a'; DELETE FROM entities WHERE id = 'b'")
        session.run("ALTER TABLE entities ADD COLUMN colour text")
        session.run(entity("c", "{}"))
        wait_until(lambda: visible() == {"a": '{"v":2}', "c": "{}"}, 60.0, "all changes are read")
    feed.close()
    assert not control.dead_letters.list("acme")
    (first, second) = control.stream_schemas.list("crm")
    assert (first.state, second.state) == ("pinned", "seen")
    assert "after.colour" in second.note
    assert control.audit.list("acme", action="schema.drift")[-1].detail["outcome"] == "additive"
