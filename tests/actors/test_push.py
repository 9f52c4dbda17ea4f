"""Pushes into a real log: what is taken, what is named, and that a retry changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from actors.push import Push, payloads_of
from cluster.config import Settings
from cluster.errors import BadRecord, Conflict, KeyReused, OutcomeUnknown, Overloaded, Rejected, TooLarge, Unavailable
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.log import Append
from cluster.stores.redis_log import RedisEventLog
from cluster.versions import decode

pytestmark = pytest.mark.services

Person = Callable[..., dict[str, Any]]
Logged = Callable[[], list[Record]]
HOUR_S = 3600.0


class Unsteady:
    """A log that loses answers or refuses, by a list of errors; None: it works."""

    def __init__(self, log: RedisEventLog, *errors: Exception | None) -> None:
        self._log, self.errors, self.identity = log, list(errors), log.identity

    def append(self, entries: Sequence[Append]) -> list[int]:
        error = self.errors.pop(0) if self.errors else None
        if error is None or isinstance(error, OutcomeUnknown):
            numbers = self._log.append(entries)
        if error is not None:
            raise error
        return numbers


class Pushing:
    def __init__(self, control: ControlStore, log: Any, settings: Settings) -> None:
        self.now = 1_000.0
        self._push = Push(control, log, settings, clock=lambda: self.now)

    def __call__(self, events: Any, key: str | None = None, **named: Any) -> Any:
        body = events if isinstance(events, bytes) else json.dumps(events).encode()
        arguments = {"tenant": "acme", "sources": ["crm", "feed"], "content_type": "application/json", **named}
        if "source" not in arguments:
            arguments["source"] = "crm"
        return self._push.push(
            arguments["tenant"], arguments["sources"], body, arguments["content_type"], key, arguments["source"]
        )


@pytest.fixture
def registered(control: ControlStore) -> ControlStore:
    for tenant, source in (("acme", "crm"), ("acme", "feed"), ("globex", "crm")):
        control.sources.register(tenant, source, 1.0)
    return control


@pytest.fixture
def push(registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings) -> Pushing:
    return Pushing(registered, event_log, ingest_settings)


def test_good_records_are_durable_and_bad_ones_named(
    push: Pushing, person: Person, logged: Logged, event_log: RedisEventLog, control: ControlStore
) -> None:
    events = [
        person("a"), {"no": "event"}, person("b", tenant="globex"), person("c", source="other"),
        person("d", source="overlay/x"), person("e", source="feed"), person("f", _x=1), 7,
    ]  # fmt: skip
    answer = push(events)
    assert answer.accepted == 2
    assert [(r.index, r.error_class) for r in answer.rejected] == [
        (1, "schema"), (2, "policy"), (3, "policy"), (4, "policy"), (6, "schema"), (7, "schema"),
    ]  # fmt: skip
    assert all(record.reason for record in answer.rejected)
    assert sorted((r.tenant, r.source, r.id) for r in logged()) == [("acme", "crm", "a"), ("acme", "feed", "e")]
    assert answer.positions == {p: n for p, n in event_log.ends().items() if n}
    assert control.dead_letters.list("acme") == []
    assert not answer.replayed


def test_a_body_is_an_array_one_event_or_lines(push: Pushing, person: Person, logged: Logged) -> None:
    assert push(person("one")).accepted == 1
    lines = "\n".join(json.dumps(person(id)) for id in "xy") + "\n\n \n{bad\n"
    answer = push(lines.encode(), content_type="application/x-ndjson; charset=utf-8")
    assert (answer.accepted, [r.index for r in answer.rejected]) == (2, [2])
    assert push(b"[]").accepted == 0
    assert push(b" [ ] ").accepted == 0
    assert push(b"{bad").rejected[0].error_class == "decode"
    assert {r.id for r in logged()} == {"one", "x", "y"}


@pytest.mark.parametrize("body", [b"[1,", b"[{}] x", b"[\xff]", b"[" * 100_000, b'["\\ud800"]'])
def test_a_body_that_cannot_be_divided_is_refused_whole(push: Pushing, body: bytes) -> None:
    with pytest.raises(BadRecord) as raised:
        push(body)
    assert raised.value.error_class == "decode"


def test_bounds_and_content_types() -> None:
    assert payloads_of(b"[1,2]", "application/json", 5, 2) == [b"1", b"2"]
    with pytest.raises(TooLarge):
        payloads_of(b"[1,2] ", "application/json", 5, 2)
    with pytest.raises(TooLarge):
        payloads_of(b"[1,2,3]", "application/json", 100, 2)
    with pytest.raises(TooLarge):
        payloads_of(b"1\n2\n3", "application/x-ndjson", 100, 2)
    for kind in ("", "text/html", "application/x-www-form-urlencoded", "multipart/form-data"):
        with pytest.raises(BadRecord):
            payloads_of(b"1", kind, 100, 2)


def test_a_key_makes_a_retry_safe(push: Pushing, person: Person, logged: Logged) -> None:
    events = [person("a", n=1), person("", n=1), person("b", source="feed")]
    first = push(events, "k1")
    again = push(events, "k1")
    assert again.replayed
    assert (again.accepted, dict(again.positions), tuple(again.rejected)) == (2, first.positions, first.rejected)
    assert len(logged()) == 2
    with pytest.raises(KeyReused):
        push([person("a", n=2)], "k1")
    assert push([person("a", n=2)], "k2").accepted == 1
    push.now += 23 * HOUR_S
    assert push(events, "k1").replayed
    push.now += 4 * HOUR_S
    assert not push(events, "k1").replayed


def test_keys_hold_for_records_with_positions_too(push: Pushing, person: Person, logged: Logged) -> None:
    assert push([person("a", position=1)], "k1").accepted == 1
    assert push([person("a", position=1)], "k1").replayed
    with pytest.raises(KeyReused):
        push([person("a", position=2)], "k1")
    for key in ("", "x" * 257):
        with pytest.raises(Rejected):
            push([person("a", position=3)], key)


def test_a_key_of_another_sender_or_tenant_is_another_key(push: Pushing, person: Person) -> None:
    assert push([person("a")], "k1").accepted == 1
    assert push([person("b")], "k1", sources=["crm"]).accepted == 1
    assert push([person("c")], "k1", tenant="globex").accepted == 1


def test_a_lost_answer_is_sent_again_with_the_same_positions(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, person: Person, logged: Logged
) -> None:
    push = Pushing(
        registered, Unsteady(event_log, OutcomeUnknown("cut", 0.0), Unavailable("gone", 0.0)), ingest_settings
    )
    assert push([person("a"), person("b")]).accepted == 2
    assert len(logged()) == 4
    assert len(set(logged())) == 2


def test_a_retry_after_an_error_gets_the_same_positions_and_overtakes_nothing(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, person: Person, logged: Logged
) -> None:
    down = [OutcomeUnknown("cut", 0.0), *[Unavailable("gone", 9.0)] * 1_000]
    push = Pushing(registered, Unsteady(event_log, *down), ingest_settings)
    with pytest.raises(Unavailable):
        push([person("a", v="old")], "k1")
    later = Pushing(registered, event_log, ingest_settings)
    later([person("a", v="new")], "k2")
    assert later([person("a", v="old")], "k1").accepted == 1
    assert len({r.stamp for r in logged()}) == 2
    assert '"new"' in Fold().apply_all(logged()).export_lines()[0]


@pytest.mark.parametrize("error", [Overloaded("full", 3.0), Unavailable("down"), Conflict("lost")])
def test_back_pressure_reaches_the_sender(
    registered: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, person: Person, error: Exception
) -> None:
    push = Pushing(registered, Unsteady(event_log, error), ingest_settings)
    with pytest.raises(type(error)) as raised:
        push([person("a")], "k")
    assert raised.value is error
    answer = push([person("a")], "k")
    assert (answer.accepted, answer.replayed) == (1, False)


def test_positions_count_up_and_depend_on_the_place_in_the_body(push: Pushing, person: Person, logged: Logged) -> None:
    push([person("a"), person(""), person("b")])
    push([person("a", v=2)])
    found = {(r.id, decode(r.version)) for r in logged()}
    assert found == {("a", (1, (1,))), ("b", (1, (3,))), ("a", (1, (4,)))}


def test_a_source_has_positions_always_or_never(push: Pushing, person: Person) -> None:
    answer = push([person("a"), person("b", position=4), person("c", source="feed", position=[1, 2])])
    assert (answer.accepted, [(r.index, r.error_class) for r in answer.rejected]) == (2, [(1, "schema")])
    answer = push([person("d", source="feed"), person("e")])
    assert (answer.accepted, [r.index for r in answer.rejected]) == (1, [0])


def test_sources_are_registered_living_and_the_token_s(push: Pushing, person: Person, control: ControlStore) -> None:
    assert push([person("a", source="new")], sources=["new"], source=None).rejected[0].error_class == "policy"
    assert push([person("a", source="new")], sources=["*"]).rejected[0].error_class == "policy"
    assert push([person("a", source="feed", position=1)], sources=["*"]).accepted == 1
    assert push([person("a", source="system/push")], sources=["*"]).accepted == 0
    assert push([person("a")], source=None).rejected[0].error_class == "schema"
    control.sources.kill("acme", "feed")
    control.sources.kill("acme", "crm")
    answer = push([person("a", source="feed", position=2), person("b")])
    assert (answer.accepted, [r.error_class for r in answer.rejected]) == (0, ["policy", "policy"])


def test_pushes_from_several_threads(push: Pushing, person: Person, logged: Logged) -> None:
    failed: list[BaseException] = []

    def send(number: int) -> None:
        try:
            for at in range(5):
                push([person(f"{number}-{at}-{i}") for i in range(3)], f"key {number} {at}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len({r.id for r in logged()}) == len(logged()) == 60
    assert len({r.version for r in logged()}) == 60
