"""What `dlq show` says of a letter: which part of it breaks which part of what describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.letter_findings import HeldAgainst, held_against
from cluster.config import Settings
from cluster.config_registry import RegistrySettings
from cluster.stores.control import ControlStore, open_control
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.streams.model import StreamSpec
from cluster.streams.schemas import SeenSchema

EVENT = {"case": "c1", "kind": "entity", "op": "upsert", "type": "person", "id": "a", "props": {}}
ADDRESS = "http://127.0.0.1:9"


class Desk:
    """One letter at a time, held against what describes it."""

    def __init__(self, control: ControlStore, settings: Settings) -> None:
        self.control, self.settings, self._at = control, settings, 0
        control.sources.register("acme", "hr", 0.0)

    def held(self, payload: Any, source: str = "hr", **headers: str) -> HeldAgainst:
        self._at += 1
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        letter = NewDeadLetter(source, 1, (self._at,), "schema", "", data, headers=headers)
        self.control.dead_letters.add("acme", [letter], 0.0)
        kept = self.control.dead_letters.list("acme", after=self._at - 1)[0]
        return held_against(self.control, self.settings, kept)

    def stream(self, schema: Any) -> None:
        self.control.streams.add(StreamSpec("hr", ("acme",), "t", schema=schema, subject="t-value"), 0.0)

    def with_registry(self, registry: RegistrySettings) -> None:
        streams = self.settings.streams.model_copy(update={"registry": registry})
        self.settings = self.settings.model_copy(update={"streams": streams})


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    control = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    yield Desk(control, Settings(state_dir=tmp_path))
    control.close()


def paths(held: HeldAgainst) -> list[str]:
    return [one.path for one in held.findings]


def test_an_event_is_held_against_the_rules_of_an_event(desk: Desk) -> None:
    held = desk.held({**EVENT, "type": "a b", "props": {"id": "x", "good": 1}, "from": {"type": "t", "id": "i"}})
    assert held.against == "the rules of an event"
    assert paths(held) == ["/type", "/props/id", "/from"]
    assert held.findings[1].found == '"x"'
    assert "reserved" in held.findings[1].wants


@pytest.mark.parametrize("payload", [b"this is no JSON", b"\xff\xfe\x1b[31m", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_event_at_all_is_told_as_a_whole(desk: Desk, payload: bytes) -> None:
    held = desk.held(payload)
    assert paths(held) == [""]
    assert all(c.isprintable() for text in held.findings[0] for c in text)


def test_what_its_source_may_not_say_is_told_by_the_stages(desk: Desk) -> None:
    held = desk.held({**EVENT, "tenant": "globex"})
    assert [one.wants for one in held.findings] == ["tenant 'globex': not the one that these records may be of"]


def test_where_nothing_is_wrong_any_more_that_is_said(desk: Desk) -> None:
    held = desk.held(EVENT)
    assert (held.findings, held.more) == ((), False)
    assert "dlq replay" in held.note
    desk.control.sources.kill("acme", "hr")
    assert "is killed" in desk.held(EVENT).note


def test_there_are_never_more_than_so_many(desk: Desk) -> None:
    held = desk.held({**EVENT, **{f"f{n}": 1 for n in range(1_000)}})
    assert (len(held.findings), held.more) == (20, True)


def test_of_a_letter_that_is_cut_the_bound_is_told(desk: Desk) -> None:
    desk.held(EVENT)
    (letter,) = desk.control.dead_letters.list("acme")
    (one,) = held_against(desk.control, desk.settings, replace(letter, payload_bytes=9_999)).findings
    assert (one.found, "dead_letter_payload_bytes" in one.wants) == ("9,999 bytes", True)


def test_a_row_is_held_against_its_load(desk: Desk) -> None:
    held = desk.held({"mail": ""}, holds="row", load="gone")
    assert (held.findings, "gone" in held.note) == ((), True)


def test_an_envelope_of_change_capture_that_is_none_says_so(desk: Desk) -> None:
    held = desk.held({"op": "?"}, holds="envelope", table="entities")
    assert (held.against, paths(held)) == ("what change capture writes", [""])


def test_a_registry_that_does_not_answer_is_said_and_nothing_else(desk: Desk) -> None:
    desk.stream("registry")
    desk.with_registry(RegistrySettings(url=ADDRESS, timeout_s=1.0))
    held = desk.held(b"\0\0\0\0\7x", holds="encoded")
    assert (held.findings, ADDRESS in held.note) == ((), True)
    assert paths(desk.held(b"no schema", holds="encoded")) == [""]


def test_a_stream_that_is_gone_and_a_registry_that_is_not_configured_are_said(desk: Desk) -> None:
    assert "hr" in desk.held(b"\0\0\0\0\7x", holds="encoded").note
    desk.stream("pinned")
    desk.control.stream_schemas.saw("hr", SeenSchema("k", "", 7, "t", 1, "pinned", "", 0, 0, 1.0))
    assert "streams.registry.url" in desk.held(b"{}", holds="encoded").note
