"""Push, dead letters, overlays: what the API makes of what its services say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from actors.push import PushAnswer, RejectedRecord
from cluster.errors import BadRecord, Conflict, Forbidden, KeyReused, Overloaded, TooLarge, Unavailable
from tests.serve_apps.api.stand import Stand
from tests.serve_apps.api.test_reads import ask, get

pytestmark = pytest.mark.services
JSON = {"content-type": "application/json"}


def push(stand: Stand, body: Any = b"[]", headers: dict[str, str] | None = None, tenant: str = "a") -> httpx.Response:
    answer: httpx.Response = ask(stand, lambda c: c.post("/v1/events", content=body, headers=headers or JSON), tenant)
    return answer


def test_push_hands_over_tenant_sources_body_and_key(stand: Stand) -> None:
    answer = push(stand, b'{"x": 1}\n', {"content-type": "application/jsonl; charset=utf-8", "idempotency-key": "k 1"})
    assert answer.json() == {"accepted": 1, "rejected": [], "position": "3:7", "replayed": False}
    assert stand.gateway.pushed == [("a", ("feed",), b'{"x": 1}\n', "application/x-ndjson", "k 1")]
    stand.parts.reached_at = 7
    assert get(stand, f"/v1/cases?wait_for={answer.json()['position']}").status_code == 200


def test_bad_records_are_named(stand: Stand) -> None:
    bad = RejectedRecord(4, "schema", "id: is missing")
    stand.gateway.answer = PushAnswer(3, {0: 1, 2: 9}, [bad])
    some = push(stand)
    assert (some.status_code, some.json()["position"]) == (207, "0:1,2:9")
    assert some.json()["rejected"] == [{"index": 4, "errorClass": "schema", "reason": "id: is missing"}]
    stand.gateway.answer = PushAnswer(0, {}, [bad])
    none = push(stand)
    assert (none.status_code, none.headers["content-type"]) == (400, "application/problem+json")
    assert none.json()["rejected"] == some.json()["rejected"]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (KeyReused("other body"), 422, None),
        (TooLarge("many"), 413, None),
        (Overloaded("log full", 2.5), 429, "3"),
        (Unavailable("log down", 0.1), 503, "1"),
        (Conflict("again", 1.0), 409, "1"),
        (Forbidden("source"), 403, None),
        (BadRecord("decode", "not JSON"), 400, None),
    ],
)
def test_refusals_have_their_status_and_say_when_to_retry(
    stand: Stand, error: Exception, status: int, retry: str | None
) -> None:
    stand.gateway.answer = error
    answer = push(stand)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry)
    assert answer.json()["detail"] == str(error)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/csv"},
        {"content-type": ""},
        {"content-type": "application/x-www-form-urlencoded"},
        {**JSON, "content-encoding": "gzip"},
        {**JSON, "idempotency-key": ""},
        {**JSON, "idempotency-key": "x" * 256},
    ],
)
def test_pushes_that_are_refused_unread(stand: Stand, headers: dict[str, str]) -> None:
    assert push(stand, headers=headers).status_code == 400
    assert stand.gateway.pushed == []


def test_bodies_are_bounded_while_they_arrive(stand: Stand) -> None:
    most = stand.settings.ingest.http_body_bytes
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 20
            yield b"x" * (1 << 20)

    assert push(stand, endless()).status_code == 413
    assert sent <= most + (2 << 20)
    assert push(stand, b"x" * (most + 1)).status_code == 413
    assert stand.gateway.pushed == []
    assert push(stand, b"x" * most).status_code == 200


def test_a_token_without_sources_writes_nothing(stand: Stand) -> None:
    token = stand.tokens.issue("a", ["ingest"])
    answer: httpx.Response = ask(
        stand, lambda c: c.post("/v1/events", content=b"[]", headers={**JSON, "authorization": f"Bearer {token}"})
    )
    assert answer.status_code == 403


def test_too_many_pushes_at_once_are_told_to_come_back(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(stand.gateway, "push", lambda *_: released.wait(5.0) and PushAnswer(1, {}))

    async def flood(client: httpx.AsyncClient) -> list[httpx.Response]:
        tasks = [asyncio.create_task(client.post("/v1/events", content=b"[]", headers=JSON)) for _ in range(20)]
        await asyncio.sleep(0.3)
        released.set()
        return await asyncio.gather(*tasks)

    answers = ask(stand, flood)
    counts = [a.status_code for a in answers]
    assert counts.count(429) >= 1
    assert counts.count(200) >= 1
    assert set(counts) == {200, 429}
    assert all("retry-after" in a.headers for a in answers if a.status_code == 429)


def replay(stand: Stand, body: bytes) -> httpx.Response:
    answer: httpx.Response = ask(stand, lambda c: c.post("/v1/dlq/replay", content=body))
    return answer


def test_replay_passes_on_what_was_asked(stand: Stand) -> None:
    answer = replay(stand, b'{"ids": ["1"], "dry_run": true, "limit": 5}')
    assert answer.json() == {"of": "a", "by": "local", "ids": ["1"], "dryRun": True, "limit": 5}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"tenant": "b"}', b'{"limit": 0}', b'{"limit": 1000000}', b'{"ids": [1]}', b"[" * 100_000]
)
def test_replays_that_are_refused(stand: Stand, body: bytes) -> None:
    assert replay(stand, body).status_code == 400


def test_overlay_top_has_as_of_and_passes_case_and_limit(stand: Stand) -> None:
    answer = get(stand, "/v1/overlays/pagerank/top?case=c/d&limit=1")
    assert answer.json() == {
        "overlay": "pagerank",
        "asOf": "2026-01-01T00:00:00Z",
        "case": "c/d",
        "items": [{"tenant": "a"}],
    }
    assert get(stand, "/v1/overlays/unknown/top").status_code == 404
