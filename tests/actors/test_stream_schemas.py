"""Topics whose records have schemas, by a real registry and broker: what flows, what is dead, what stops them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from actors.connectors import schema_handlers
from actors.dead_letters import Replay
from actors.schema_pins import accept, newest
from cluster.config import Settings
from cluster.config_registry import RegistrySettings
from cluster.errors import BadRecord
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.log import EventLog
from cluster.stores.redis_log import RedisEventLog
from cluster.streams.model import StreamSpec
from cluster.streams.schemas import SeenSchema
from services.spec import Running as Service
from tests.fault_proxy import Direction, FaultProxy, Faults
from tests.faults.harness import wait_until
from tests.kafka_topics import Topic
from tests.registered import Registered, avro_event, json_event, opened, wired, with_field, without_field
from tests.stream_feed import Feed

pytestmark = [pytest.mark.services, pytest.mark.production]
OPTIONAL = ["null", "string"]
NOWHERE = 2**31 - 7


class SchemaFeed(Feed):
    """A stream of a topic that the test fills, with a registry that it fills too."""

    def __init__(
        self, topic: Topic, registered: Registered, control: ControlStore, log: EventLog, settings: Settings
    ) -> None:
        super().__init__(topic.bootstrap, topic.name, control, log, settings)
        self.topic, self.registered, self.subject = topic, registered, f"{topic.name}-value"
        self.use(registered.settings)
        registered.rule(self.subject, "NONE")

    def use(self, registry: RegistrySettings) -> None:
        """From the next reader on."""
        streams = self.settings.streams.model_copy(update={"registry": registry})
        self.settings = self.settings.model_copy(update={"streams": streams})

    def begin(self, schema: str = "registry", **named: Any) -> None:
        """The stream is added as the command line does it, and read."""
        self.add(schema=schema, subject=self.subject, **named)
        if pin := newest(self.registered.registry, self.spec, 1.0):
            self.control.stream_schemas.saw(self.name, pin)
        self.start("w")

    @property
    def spec(self) -> StreamSpec:
        return self.control.streams.get(self.name).spec

    def go_on(self, accepting: bool) -> None:
        """As `streams resume`."""
        if accepting:
            accept(self.control, self.registered.registry, self.spec, 2.0)
        self.control.stream_schemas.forget_refused(self.name)
        self.control.streams.set_state(self.name, "active")

    def stopped(self) -> str:
        """Waits until it is; its note."""
        wait_until(lambda: bool(self.watch.turn()) or self.control.streams.get(self.name).state == "stopped", 20.0)
        return self.control.streams.get(self.name).note

    def met(self) -> Sequence[SeenSchema]:
        return self.control.stream_schemas.list(self.name)

    def drifts(self) -> list[dict[str, Any]]:
        return [one.detail for one in self.control.audit.list("acme", action="schema.drift")]

    def letters(self) -> list[tuple[tuple[int, ...], str]]:
        return [(one.position, one.error_class) for one in self.control.dead_letters.list("acme")]


@pytest.fixture
def feed(
    service: Callable[[str], Service],
    control: ControlStore,
    event_log: RedisEventLog,
    ingest_settings: Settings,
    unique: str,
) -> Iterator[SchemaFeed]:
    """A topic of two partitions and an empty subject; nothing is read yet."""
    topic = Topic(service("kafka"), unique, 2)
    for registered in opened(service("registry")):
        made = SchemaFeed(topic, registered, control, event_log, ingest_settings)
        yield made
        made.close()


@pytest.fixture
def person() -> Callable[..., dict[str, Any]]:
    """`person("ada", name="Ada")`: an event with all fields that its Avro schema has."""

    def make(id: str, **props: Any) -> dict[str, Any]:
        return {"case": "c1", "kind": "entity", "op": "upsert", "type": "person", "id": id, "props": props}

    return make


Person = Callable[..., dict[str, Any]]
Logged = Callable[[], list[Record]]


def ids(logged: Logged) -> list[str]:
    return sorted(record.id for record in logged())


def shown(fold: Fold) -> dict[str, str]:
    return {thing[4]: merged.props for thing, merged in fold.visible()}


def test_avro_events_come_through_and_additive_changes_flow_and_are_told(
    feed: SchemaFeed, folded: Callable[[], Fold], person: Person
) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    feed.topic.send([feed.registered.avro(one, person(f"a{n}", n=n, name="A")) for n in range(20)], 0)
    feed.begin()
    feed.wait()
    two = feed.registered.add(feed.subject, with_field(avro_event(), "colour", OPTIONAL, default=None))
    feed.topic.send([feed.registered.avro(two, {**person("b", n=1.5), "colour": "red"})], 1)
    feed.topic.send([feed.registered.avro(one, person("old", n=None))], 1)
    feed.wait()
    assert shown(folded()) == {f"a{n}": f'{{"n":{n},"name":"A"}}' for n in range(20)} | {"b": '{"n":1.5}', "old": "{}"}
    assert [(s.state, s.schema_id, s.version) for s in feed.met()] == [("pinned", one, 1), ("seen", two, 2)]
    (told,) = feed.drifts()
    assert (told["outcome"], told["schema"], told["partition"], told["offset"]) == ("additive", two, 1, 0)
    assert "colour" in told["note"]
    assert "not kept" in told["note"]


def test_a_bad_record_of_a_good_schema_is_dead_and_the_topic_goes_on(
    feed: SchemaFeed, logged: Logged, person: Person
) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    good = feed.registered.avro(one, person("ok"))
    bad = [
        b'{"no": "head"}',
        good[:-1],
        wired(one, b""),
        None,
        feed.registered.avro(one, person("x") | {"type": "no type"}),
    ]
    feed.topic.send([good, *bad, good])
    feed.begin()
    feed.wait()
    assert ids(logged) == ["ok", "ok"]
    assert feed.letters() == [((1,), "decode"), ((2,), "decode"), ((3,), "decode"), ((4,), "schema"), ((5,), "schema")]
    letters = feed.control.dead_letters.list("acme")
    assert [letter.headers["holds"] for letter in letters] == ["encoded", "encoded", "encoded", "event", "event"]
    assert letters[1].payload == good[:-1]
    assert feed.control.streams.get("feed").state == "active"
    assert not feed.drifts()


def test_a_breaking_schema_stops_the_topic_before_its_first_record_until_it_is_accepted(
    feed: SchemaFeed, logged: Logged, person: Person
) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    two = feed.registered.add(feed.subject, without_field(avro_event(), "id"))
    new = {name: value for name, value in person("x").items() if name != "id"}
    feed.topic.send([feed.registered.avro(one, person("a")), feed.registered.avro(two, new),
                     feed.registered.avro(one, person("b"))])  # fmt: skip
    feed.add(schema="registry", subject=feed.subject)
    feed.start("w")
    note = feed.stopped()
    assert "partition 0, offset 1" in note
    assert f"schema {two} ({feed.subject} version 2) breaks what is pinned: id is not written" in note
    assert ids(logged) == ["a"]
    assert [part.offset for part in feed.parts()] == [1, 0]
    assert [(one["outcome"], one["schema"], one["offset"]) for one in feed.drifts()] == [("breaking", two, 1)]
    feed.go_on(accepting=False)
    assert feed.stopped() == note
    assert ids(logged) == ["a"]
    feed.go_on(accepting=True)
    feed.wait()
    assert ids(logged) == ["a", "b"]
    assert feed.letters() == [((1,), "schema")]
    assert {(s.state, s.schema_id) for s in feed.met()} == {("former", one), ("pinned", two)}


def test_what_only_the_registry_refuses_stops_the_topic_too(feed: SchemaFeed, logged: Logged, person: Person) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    feed.begin()
    two = feed.registered.add(feed.subject, with_field(avro_event(), "needed", "string"))
    feed.registered.rule(feed.subject, "BACKWARD")
    feed.topic.send([feed.registered.avro(one, person("a")), feed.registered.avro(two, person("b") | {"needed": "x"})])
    assert "needed" in feed.stopped().lower()
    assert ids(logged) == ["a"]


def test_records_of_another_kind_in_the_topic_stop_it_once(feed: SchemaFeed, logged: Logged, person: Person) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    other = feed.registered.add(f"{feed.subject}-other", {**avro_event(), "name": "Other"})
    feed.topic.send([feed.registered.avro(one, person("a")), feed.registered.avro(other, person("b")),
                     feed.registered.avro(one, person("c")), feed.registered.avro(other, person("d"))])  # fmt: skip
    feed.begin()
    assert "org.intelgraph.Other; the topic held org.intelgraph.Event" in feed.stopped()
    feed.go_on(accepting=True)
    feed.wait()
    assert ids(logged) == ["a", "b", "c", "d"]
    assert [s.state for s in feed.met()] == ["pinned", "pinned"]


def test_a_schema_that_cannot_be_read_safely_stops_the_topic_and_accepted_makes_dead_letters(
    feed: SchemaFeed, logged: Logged, person: Person
) -> None:
    endless = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}
    one, bad = feed.registered.add(feed.subject, avro_event()), feed.registered.add(feed.subject, endless)
    feed.topic.send([wired(bad, b"\x02" * 500_000 + b"\0"), feed.registered.avro(one, person("ok"))])
    feed.add(schema="registry", subject=feed.subject)
    feed.start("w")
    assert "contains itself" in feed.stopped()
    feed.go_on(accepting=True)
    assert "org.intelgraph.Event; the topic held L" in feed.stopped()
    feed.go_on(accepting=True)
    feed.wait()
    assert ids(logged) == ["ok"]
    assert feed.letters() == [((0,), "schema")]


def test_a_schema_that_the_registry_lacks_is_waited_for_and_then_a_dead_letter_that_can_be_replayed(
    feed: SchemaFeed, logged: Logged, person: Person, event_log: RedisEventLog
) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    good = feed.registered.avro(one, person("late", v=1))[5:]
    feed.topic.send([feed.registered.avro(one, person("a")), wired(NOWHERE, good), wired(NOWHERE - 1, b"x")])
    feed.begin()
    feed.wait()
    assert ids(logged) == ["a"]
    assert feed.letters() == [((1,), "schema"), ((2,), "schema")]
    letter = feed.control.dead_letters.list("acme")[0]
    assert f"no schema {NOWHERE}" in letter.reason
    replay = Replay(feed.control, event_log, feed.settings)
    (told,) = replay.replay("acme", "test", ids=[letter.id]).letters
    assert (told.state, f"schema {NOWHERE}" in told.reason) == ("waiting", True)
    assert ids(logged) == ["a"]


def test_while_the_registry_is_away_or_is_another_one_the_partition_waits_and_says_so(
    feed: SchemaFeed, logged: Logged, person: Person
) -> None:
    def note() -> str:
        feed.watch.turn()
        return feed.control.streams.get("feed").note

    one = feed.registered.add(feed.subject, avro_event())
    feed.topic.send([feed.registered.avro(one, person("a"))])
    feed.use(RegistrySettings(url="http://127.0.0.1:9/nothing"))
    feed.add(schema="registry", subject=feed.subject)
    feed.start("w")
    wait_until(lambda: "does not answer" in note())
    assert feed.control.streams.get("feed").state == "active"
    feed.stop("w")
    feed.use(feed.registered.settings)
    feed.start("v")
    feed.wait()
    assert ids(logged) == ["a"]
    feed.control.stream_schemas.pin("feed", feed.met()[0].__class__(
        "of elsewhere", "X", NOWHERE - 3, "", 0, "pinned", "", 0, 0, 9e9))  # fmt: skip
    feed.topic.send([wired(NOWHERE, b"x")])
    wait_until(lambda: "streams.registry.url right" in note())
    assert not feed.letters()


def test_a_partition_that_needs_the_registry_while_it_is_away_waits_alone(
    feed: SchemaFeed, logged: Logged, person: Person
) -> None:
    def notes() -> list[bool]:
        feed.watch.turn()
        return ["does not answer" in part.note for part in feed.parts()]

    where = urlsplit(feed.registered.settings.url)
    one = feed.registered.add(feed.subject, avro_event())
    with FaultProxy.tcp((where.hostname or "", where.port or 0)) as proxy:
        url = where._replace(netloc="{}:{}".format(*proxy.address)).geturl()
        feed.use(RegistrySettings(url=url, timeout_s=1.0))
        feed.topic.send([feed.registered.avro(one, person("a"))], 0)
        feed.begin()
        feed.wait()
        two = feed.registered.add(feed.subject, with_field(avro_event(), "colour", OPTIONAL, default=None))
        acquire = feed.control.leases.acquire
        taken: list[str] = []
        feed.control.leases.acquire = lambda name, *rest: taken.append(name) or acquire(name, *rest)  # type: ignore[method-assign]
        proxy.set(Faults(refuse=True, to_client=Direction(cut_after_bytes=0)))
        feed.topic.send([feed.registered.avro(two, person("b"))], 1)
        wait_until(lambda: notes() == [False, True], 20.0)
        feed.topic.send([feed.registered.avro(one, person("c"))], 0)
        wait_until(lambda: ids(logged) == ["a", "c"], 20.0, "the other partition is read on")
        assert notes() == [False, True]
        assert not taken
        proxy.set(Faults())
        wait_until(lambda: ids(logged) == ["a", "b", "c"] and notes() == [False, False], 20.0)


def test_a_stream_that_stops_at_a_schema_still_knows_which_leader_it_has_read(feed: SchemaFeed, person: Person) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    feed.topic.send([feed.registered.avro(one, person("a"))])
    feed.begin()
    feed.wait()
    two = feed.registered.add(feed.subject, without_field(avro_event(), "id"))
    new = {name: value for name, value in person("x").items() if name != "id"}
    feed.topic.send([feed.registered.avro(one, person("b")), feed.registered.avro(two, new)])
    feed.stopped()
    assert [(part.offset, part.leader_epoch >= 0) for part in feed.parts()] == [(2, True), (0, False)]


def test_json_that_names_its_schema_is_held_against_it(feed: SchemaFeed, logged: Logged, person: Person) -> None:
    from tests.kafka_topics import _encoded

    one = feed.registered.add(feed.subject, json_event(), "JSON")
    events = [person("a"), person("x") | {"case": ""}, person("y") | {"id": 5}, person("b")]
    feed.topic.send([wired(one, _encoded(event) or b"") for event in events])
    feed.begin()
    feed.wait()
    assert ids(logged) == ["a", "b"]
    assert feed.letters() == [((1,), "schema"), ((2,), "schema")]


def test_plain_json_that_breaks_the_pinned_structure_stops_the_topic_and_a_bad_value_does_not(
    feed: SchemaFeed, logged: Logged, person: Person
) -> None:
    feed.registered.add(feed.subject, json_event(), "JSON")
    bad_value, changed = person("x") | {"case": ""}, person("z") | {"id": 5}
    feed.topic.send([person("a"), bad_value, b"no json", None, person("b"), changed, person("c"), changed])
    feed.begin("pinned")
    note = feed.stopped()
    assert "partition 0, offset 5" in note
    assert "id is of another type" in note
    assert ids(logged) == ["a", "b"]
    assert feed.letters() == [((1,), "schema"), ((2,), "decode"), ((3,), "schema")]
    assert [part.offset for part in feed.parts()] == [5, 0]
    assert [one["outcome"] for one in feed.drifts()] == ["breaking"]
    feed.go_on(accepting=True)
    feed.wait()
    assert ids(logged) == ["a", "b", "c"]
    assert feed.letters()[3:] == [((5,), "schema"), ((7,), "schema")]


def test_plain_json_is_held_against_the_newest_schema_once_that_is_accepted(
    feed: SchemaFeed, logged: Logged, person: Person
) -> None:
    feed.registered.add(feed.subject, json_event(), "JSON")
    feed.topic.send([person("a"), {**person("b"), "source": 7}, {**person("c"), "source": None}])
    feed.begin("pinned")
    feed.stopped()
    wider = {
        **json_event(),
        "properties": {**json_event()["properties"], "source": {"type": ["string", "integer", "null"]}},
    }
    two = feed.registered.add(feed.subject, wider, "JSON")
    feed.go_on(accepting=True)
    feed.wait()
    assert ids(logged) == ["a", "c"]
    assert [s.schema_id for s in feed.met() if s.state == "pinned"] == [two]


@pytest.mark.parametrize("value", [b'{"plain": "json"}', wired(NOWHERE, b"x")])
def test_a_topic_of_which_nothing_could_be_read_yet_stops_instead_of_making_dead_letters(
    feed: SchemaFeed, logged: Logged, person: Person, value: bytes
) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    feed.topic.send([None, value, feed.registered.avro(one, person("a"))])
    feed.begin()
    assert "none of the topic was read before" in feed.stopped()
    assert [part.offset for part in feed.parts()] == [1, 0]
    feed.go_on(accepting=True)
    feed.wait()
    assert ids(logged) == ["a"]
    assert [position for position, _ in feed.letters()] == [(0,), (1,)]


BROKEN: set[str] = set()
"""People at whom the handler fails."""


class Handling(NamedTuple):
    """A team's handler of its people."""

    subject: str
    first_version: int
    last_version: int | None
    field: str

    def __call__(self, record: Any) -> dict[str, Any]:
        if not record["mail"]:
            raise BadRecord("schema", "mail is empty")
        if record["mail"] in BROKEN:
            raise ZeroDivisionError(record["mail"])
        own = {"case": "c1", "kind": "entity", "op": "upsert", "type": "person", "id": record["mail"]}
        return own | {"props": {"name": record[self.field], "born": record["born"]}}


def test_a_team_s_own_schema_is_read_by_its_handlers_version_by_version(
    feed: SchemaFeed, folded: Callable[[], Fold], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Handling(feed.subject, 1, 1, "name"), Handling(feed.subject, 2, 2, "full_name")]
    points = [SimpleNamespace(name=f"h{n}", load=lambda one=one: one) for n, one in enumerate(found)]
    monkeypatch.setattr(schema_handlers, "entry_points", lambda group: points)
    schema_handlers.installed.cache_clear()
    born = {"type": "int", "logicalType": "date"}
    fields = [{"name": "mail", "type": "string"}, {"name": "born", "type": born},
              {"name": "name", "type": OPTIONAL, "default": None}]  # fmt: skip
    first = {"type": "record", "name": "Person", "fields": fields}
    second = with_field(first, "full_name", OPTIONAL, default=None)
    numbers = [feed.registered.add(feed.subject, one) for one in (first, second)]
    person = {"mail": "a@x", "born": date(1970, 1, 2), "name": "Ann"}
    one, two = (feed.registered.avro(n, person | {"full_name": "Ann B"}) for n in numbers)
    bad = feed.registered.avro(numbers[0], person | {"mail": ""})
    other = feed.registered.avro(numbers[1], person | {"mail": "b@x", "full_name": "Bo"})
    feed.topic.send([one, bad, other])
    feed.begin()
    feed.wait()
    props = {"a@x": '{"born":"1970-01-02","name":"Ann"}', "b@x": '{"born":"1970-01-02","name":"Bo"}'}
    assert shown(folded()) == props
    assert feed.letters() == [((1,), "schema")]
    _check_a_failing_handler(feed, numbers[0], person, folded)
    three = feed.registered.add(feed.subject, with_field(second, "more", OPTIONAL, default=None))
    feed.topic.send([feed.registered.avro(three, person), two])
    assert f"no handler reads version 3 of {feed.subject}" in feed.stopped()
    feed.go_on(accepting=True)
    feed.wait()
    assert shown(folded())["a@x"] == '{"born":"1970-01-02","name":"Ann B"}'
    assert feed.letters() == [((1,), "schema"), ((4,), "schema")]
    schema_handlers.installed.cache_clear()


def _check_a_failing_handler(feed: SchemaFeed, number: int, person: dict[str, Any], folded: Callable[[], Fold]) -> None:
    """Its partition waits at the record, and the other one goes on; nothing is a dead letter."""
    BROKEN.add("c@x")
    feed.topic.send([feed.registered.avro(number, person | {"mail": "c@x"})], 1)
    wait_until(lambda: bool(feed.watch.turn() or feed.parts()[1].note), 20.0)
    note = feed.parts()[1].note
    assert f"the handler of {feed.subject} version 1 fails with ZeroDivisionError" in note
    assert "c@x" not in note
    feed.topic.send([feed.registered.avro(number, person | {"mail": "d@x"})], 0)
    wait_until(lambda: "d@x" in shown(folded()), 20.0, "the other partition is read on")
    assert "c@x" not in shown(folded())
    BROKEN.clear()
    feed.wait()
    assert "c@x" in shown(folded())


def test_a_stream_that_is_removed_and_added_again_has_met_nothing(
    feed: SchemaFeed, logged: Logged, person: Person
) -> None:
    one = feed.registered.add(feed.subject, avro_event())
    feed.topic.send([feed.registered.avro(one, person("a"))])
    feed.begin()
    feed.wait()
    feed.control.streams.remove("feed")
    assert not feed.met()
    feed.control.streams.add(
        StreamSpec("feed", ("acme",), feed.topic.name, schema="registry", subject=feed.subject), 5.0
    )
    feed.wait()
    assert [s.schema_id for s in feed.met()] == [one]
    assert set(ids(logged)) == {"a"}
