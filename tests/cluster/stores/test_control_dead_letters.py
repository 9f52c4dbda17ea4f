"""Dead letters: kept whole and once, found again, replayed with a limit."""

from __future__ import annotations

import hashlib

import pytest

from cluster.errors import BadRecord, NotFound, Rejected
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import NewDeadLetter

T, S = "tenant-1", "feed"


def letter(position: int, error_class: str = "schema", payload: bytes = b"{}", **more: str) -> NewDeadLetter:
    source, partition, type = more.pop("source", S), more.pop("partition", ""), more.pop("type", "")
    assert not more
    return NewDeadLetter(source, 1, [position], error_class, "why", payload, partition, type)


def test_a_letter_is_kept_as_it_came_and_once(store: ControlStore) -> None:
    new = NewDeadLetter(S, 2**64 - 1, [7, 2**64 - 1], "decode", "no JSON", b"\x00\xff{", "p3", "person", {"line": 12})
    assert store.dead_letters.add(T, [new, letter(1)], 5.0) == 2
    assert store.dead_letters.add(T, [new, letter(1), letter(2)], 9.0) == 1
    found = store.dead_letters.list(T)[0]
    assert (found.epoch, found.position, found.partition) == (2**64 - 1, (7, 2**64 - 1), "p3")
    assert (found.payload, found.headers, found.type) == (b"\x00\xff{", {"line": 12}, "person")
    assert (found.error_class, found.reason, found.state) == ("decode", "no JSON", "waiting")
    assert (found.attempts, found.first_seen, found.last_attempt, found.whole) == (0, 5.0, None, True)
    assert store.dead_letters.get(T, found.id) == found


def test_what_names_a_record_tells_letters_apart(store: ControlStore) -> None:
    same = [letter(1), letter(1, source="other"), letter(1, partition="p"), NewDeadLetter(S, 2, [1], "schema", "", b"")]
    assert store.dead_letters.add(T, same, 0.0) == 4
    assert store.dead_letters.add("tenant-2", same, 0.0) == 4
    assert store.dead_letters.add(T, [], 0.0) == 0


def test_a_payload_over_the_limit_keeps_its_beginning_and_says_so(store: ControlStore) -> None:
    payload = bytes(range(256)) * 10
    store.dead_letters.add(T, [letter(1, "too_large", payload)], 0.0, payload_limit_bytes=100)
    found = store.dead_letters.list(T)[0]
    assert found.payload == payload[:100]
    assert (found.payload_bytes, found.payload_sha256) == (2560, hashlib.sha256(payload).hexdigest())
    assert not found.whole
    assert store.dead_letters.begin_replay(T, [found.id], 5, 1.0) == []
    assert store.dead_letters.get(T, found.id).attempts == 0


def test_letters_are_found_by_filters_and_pages(store: ControlStore) -> None:
    store.dead_letters.add(T, [letter(n, "decode" if n % 3 else "policy", type=f"t{n % 2}") for n in range(10)], 0.0)
    store.dead_letters.add("tenant-2", [letter(1)], 0.0)
    pages, after = [], 0
    while page := store.dead_letters.list(T, after=after, limit=4):
        pages.append([found.position[0] for found in page])
        after = page[-1].sequence
    assert pages == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [f.position[0] for f in store.dead_letters.list(T, error_class="policy", type="t1")] == [3, 9]
    assert store.dead_letters.list(T, source="other") == []
    assert store.dead_letters.list(T, state="replayed") == []
    facets = store.dead_letters.facets(T)
    assert facets["error_class"] == {"decode": 6, "policy": 4}
    assert facets["type"] == {"t0": 5, "t1": 5}
    assert facets["source"] == {S: 10}
    assert facets["state"] == {"waiting": 10}
    assert facets["attempts"] == {"0": 10}
    tried = store.dead_letters.begin_replay(T, [found.id for found in store.dead_letters.list(T, limit=3)], 5, 1.0)
    assert store.dead_letters.list(T, attempts=1) == list(tried)
    assert store.dead_letters.facets(T)["attempts"] == {"0": 7, "1": 3}
    for limit in (0, 1001):
        with pytest.raises(Rejected):
            store.dead_letters.list(T, limit=limit)


def test_another_tenants_letter_is_not_there(store: ControlStore) -> None:
    store.dead_letters.add(T, [letter(1)], 0.0)
    own = store.dead_letters.list(T)[0].id
    with pytest.raises(NotFound):
        store.dead_letters.get("tenant-2", own)
    with pytest.raises(NotFound):
        store.dead_letters.begin_replay("tenant-2", [own], 5, 0.0)
    with pytest.raises(NotFound):
        store.dead_letters.finish_replay("tenant-2", own, 5)
    assert store.dead_letters.get(T, own).attempts == 0


def test_a_replay_that_succeeds_is_done_once(store: ControlStore) -> None:
    store.dead_letters.add(T, [letter(1), letter(2)], 0.0)
    one, two = (found.id for found in store.dead_letters.list(T))
    begun = store.dead_letters.begin_replay(T, [one], 5, 3.0)
    assert [(found.id, found.attempts, found.last_attempt) for found in begun] == [(one, 1, 3.0)]
    assert store.dead_letters.finish_replay(T, one, 5) == "replayed"
    assert store.dead_letters.finish_replay(T, one, 5, failure=("schema", "late")) == "replayed"
    assert [found.id for found in store.dead_letters.begin_replay(T, [one, two], 5, 4.0)] == [two]
    assert store.dead_letters.add(T, [letter(1)], 5.0) == 0, "reading the source again brings no second letter"


def test_what_fails_again_is_quarantined_at_the_limit(store: ControlStore) -> None:
    store.dead_letters.add(T, [letter(1)], 0.0)
    id = store.dead_letters.list(T)[0].id
    states = []
    for attempt in range(1, 4):
        assert [found.attempts for found in store.dead_letters.begin_replay(T, [id], 3, 1.0)] == [attempt]
        states.append(store.dead_letters.finish_replay(T, id, 3, failure=("policy", f"attempt {attempt}")))
    assert states == ["waiting", "waiting", "quarantined"]
    found = store.dead_letters.get(T, id)
    assert (found.error_class, found.reason, found.state) == ("policy", "attempt 3", "quarantined")
    assert store.dead_letters.begin_replay(T, [id], 3, 2.0) == []


def test_a_replay_that_crashes_each_time_ends_in_quarantine_too(store: ControlStore) -> None:
    store.dead_letters.add(T, [letter(1)], 0.0)
    id = store.dead_letters.list(T)[0].id
    crashed = 0
    while store.dead_letters.begin_replay(T, [id], 3, 1.0):
        crashed += 1
    assert crashed == 3
    assert store.dead_letters.get(T, id).state == "quarantined"


def test_only_bad_records_are_dead_letters(store: ControlStore) -> None:
    with pytest.raises(Rejected, match="one of decode"):
        store.dead_letters.add(T, [letter(1), letter(2, "timeout")], 0.0)
    with pytest.raises(BadRecord):
        store.dead_letters.add(T, [NewDeadLetter(S, -1, [1], "schema", "", b"")], 0.0)
    assert store.dead_letters.list(T) == []


def test_what_came_and_what_left_is_counted_once(store: ControlStore) -> None:
    letters = store.dead_letters
    assert letters.counted() == ({}, {})
    for _ in range(2):
        letters.add(T, [letter(1), letter(2), letter(3, "policy")], 0.0)
    letters.add("tenant-2", [letter(1)], 0.0)
    assert letters.counted().came == {"schema": 3, "policy": 1}
    one, two, three = (found.id for found in letters.list(T))
    letters.begin_replay(T, [one, two, three], 2, 1.0)
    assert letters.finish_replay(T, one, 2) == letters.finish_replay(T, one, 2) == "replayed"
    letters.finish_replay(T, two, 2, failure=("schema", "still"))
    assert letters.counted() == ({"schema": 3, "policy": 1}, {"replayed": 1, "waiting": 1})
    letters.begin_replay(T, [two, three], 2, 2.0)
    for _ in range(2):
        letters.finish_replay(T, two, 2, failure=("schema", "still"))
    letters.begin_replay(T, [two, three], 2, 3.0)
    assert letters.counted().left == {"replayed": 1, "waiting": 1, "quarantined": 2}
