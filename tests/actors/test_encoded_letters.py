"""Dead letters that hold a value as its topic has it: whose they are, and what is not tried."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.dead_letters import Replay, ReplayedLetter
from actors.letter_findings import HeldAgainst, held_against
from cluster.config import Settings
from cluster.config_registry import RegistrySettings
from cluster.errors import Unavailable
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.redis_log import RedisEventLog
from cluster.streams.model import StreamSpec
from cluster.streams.schemas import SeenSchema
from services.spec import Running as Service
from tests.registered import Registered, avro_event, json_event, opened

pytestmark = [pytest.mark.services, pytest.mark.production]
EVENT = {"tenant": "other", "case": "c1", "kind": "entity", "op": "upsert", "type": "person", "id": "a", "props": {}}


class Desk:
    """A stream of two tenants, a letter of it with its first one, and replays."""

    def __init__(self, control: ControlStore, log: RedisEventLog, settings: Settings) -> None:
        self.control, self._log, self._settings = control, log, settings

    def add(self, schema: Any, payload: bytes) -> None:
        for tenant in ("acme", "other"):
            self.control.sources.register(tenant, "feed", 0.0)
        self.control.streams.add(StreamSpec("feed", ("acme", "other"), "t", schema=schema, subject="t-value"), 0.0)
        letter = NewDeadLetter("feed", 1, (0,), "decode", "", payload, "0", headers={"holds": "encoded"})
        self.control.dead_letters.add("acme", [letter], 0.0)

    def with_registry(self, registry: RegistrySettings) -> Settings:
        streams = self._settings.streams.model_copy(update={"registry": registry})
        return self._settings.model_copy(update={"streams": streams})

    def replay(self, registry: RegistrySettings) -> ReplayedLetter:
        (told,) = Replay(self.control, self._log, self.with_registry(registry)).replay("acme", "ann").letters
        return told

    def held(self, registry: RegistrySettings) -> HeldAgainst:
        (letter,) = self.control.dead_letters.list("acme")
        return held_against(self.control, self.with_registry(registry), letter)


@pytest.fixture
def desk(control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings) -> Desk:
    return Desk(control, event_log, ingest_settings)


@pytest.fixture
def registered(service: Callable[[str], Service]) -> Iterator[Registered]:
    """The run's registry."""
    yield from opened(service("registry"))


def test_a_letter_of_another_tenant_of_the_stream_becomes_that_tenant_s_record(
    desk: Desk, registered: Registered, logged: Callable[[], list[Record]], unique: str
) -> None:
    desk.add("registry", registered.avro(registered.add(unique, avro_event()), EVENT))
    assert desk.replay(registered.settings).state == "replayed"
    assert [(record.tenant, record.source, record.id) for record in logged()] == [("other", "feed", "a")]


def test_a_letter_of_a_tenant_whose_source_is_killed_stays(
    desk: Desk, registered: Registered, logged: Callable[[], list[Record]], unique: str
) -> None:
    desk.add("registry", registered.avro(registered.add(unique, avro_event()), EVENT))
    desk.control.sources.kill("other", "feed")
    told = desk.replay(registered.settings)
    assert (told.state, told.error_class) == ("waiting", "policy")
    assert not logged()


def test_a_letter_by_the_schema_at_which_its_stream_has_stopped_costs_no_attempt(
    desk: Desk, registered: Registered, logged: Callable[[], list[Record]], unique: str
) -> None:
    number = registered.add(unique, avro_event())
    desk.add("registry", registered.avro(number, EVENT))
    key = registered.registry.schema(number).fingerprint
    desk.control.stream_schemas.saw("feed", SeenSchema(key, "", number, "t", 2, "refused", "breaks", 0, 9, 1.0))
    told = desk.replay(registered.settings)
    assert (told.state, "--accept-schema" in told.reason) == ("waiting", True)
    assert desk.control.dead_letters.get("acme", told.id).attempts == 0
    assert not logged()


@pytest.mark.parametrize("schema", ["registry", "pinned"])
def test_a_registry_that_is_away_costs_no_attempt(desk: Desk, schema: str) -> None:
    desk.add(schema, b"\0\0\0\0\7x" if schema == "registry" else b"{}")
    desk.control.stream_schemas.saw("feed", SeenSchema("k", "", 7, "t", 1, "pinned", "", 0, 0, 1.0))
    with pytest.raises(Unavailable):
        desk.replay(RegistrySettings(url="http://127.0.0.1:9"))
    assert [letter.attempts for letter in desk.control.dead_letters.list("acme")] == [0]


def test_a_value_is_held_against_the_schema_that_it_names(desk: Desk, registered: Registered, unique: str) -> None:
    number = registered.add(unique, avro_event())
    broken = registered.avro(number, EVENT)[:-3]
    desk.add("registry", broken)
    held = desk.held(registered.settings)
    assert held.against == f"Avro schema {number} org.intelgraph.Event (not met by the stream)"
    assert [one.path for one in held.findings] == ["/partition"]


def test_a_value_is_held_against_the_pinned_schema_and_every_breach_is_told(
    desk: Desk, registered: Registered, unique: str
) -> None:
    number = registered.add(unique, json_event(), "JSON")
    desk.add("pinned", json.dumps({**EVENT, "type": "a b", "id": 7, "colour": "\x1b[31m"}).encode())
    key = registered.registry.schema(number).fingerprint
    desk.control.stream_schemas.saw("feed", SeenSchema(key, "", number, "t", 2, "pinned", "", 0, 0, 1.0))
    held = desk.held(registered.settings)
    assert held.against == f"JSON schema {number} org.intelgraph.Event (pinned, t version 2)"
    assert sorted(one.path for one in held.findings) == ["/colour", "/id", "/type"]
    assert all(text.isprintable() for one in held.findings for text in one)


def test_what_its_schema_takes_is_held_against_the_rules_of_an_event(
    desk: Desk, registered: Registered, unique: str
) -> None:
    desk.add("registry", registered.avro(registered.add(unique, avro_event()), {**EVENT, "type": "a b"}))
    held = desk.held(registered.settings)
    assert (held.against, [one.path for one in held.findings]) == ("the rules of an event", ["/type"])
