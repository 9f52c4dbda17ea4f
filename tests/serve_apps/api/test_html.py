"""HTML in names is inert: no answer of any route is a page, none may run or load anything, whatever it reflects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.cluster.query.facts import entity, relationship
from tests.serve_apps.api.stand import Stand

pytestmark = pytest.mark.services

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
INERT = ("application/json", "application/problem+json", "text/plain")
BAD_TOKEN = {"authorization": f"Bearer {SCRIPT}"}


def operations(stand: Stand) -> Iterator[tuple[str, str]]:
    """Every (method, path) of the API's own description, with HTML in the place of each parameter."""
    for path, methods in stand.app.openapi()["paths"].items():
        named = path
        while "{" in named:
            begin, end = named.index("{"), named.index("}")
            named = named[:begin] + quote(SCRIPT, safe="") + named[end + 1 :]
        for method, described in methods.items():
            asked = {p["name"]: SCRIPT for p in described.get("parameters", ()) if p["in"] == "query"}
            yield method.upper(), named + "?" + "&".join(f"{name}={quote(value)}" for name, value in asked.items())
            yield method.upper(), named


def inert(answer: httpx.Response) -> None:
    kind = answer.headers.get("content-type", "").partition(";")[0]
    assert kind in INERT or (not answer.content and not kind), f"{answer.request.url}: {kind}"
    assert answer.headers["x-content-type-options"] == "nosniff", answer.request.url
    assert "default-src 'none'" in answer.headers["content-security-policy"], answer.request.url
    assert len(answer.headers.get_list("content-security-policy")) == 1


def ask(stand: Stand, method: str, path: str, **more: Any) -> httpx.Response:
    async def inside() -> httpx.Response:
        async with stand.client() as client:
            return await client.request(method, path, **more)

    return asyncio.run(inside())


def test_no_route_answers_with_a_page(stand: Stand) -> None:
    asked = list(operations(stand))
    assert len(asked) > 20
    for method, path in asked:
        inert(ask(stand, method, path))
        inert(ask(stand, method, path, headers=BAD_TOKEN))
        inert(ask(stand, method, path, headers={"accept": "text/html"}, content=SCRIPT.encode()))
        inert(ask(stand, "TRACE", path))
    for path in ("/", f"/{quote(SCRIPT)}", "/docs", "/redoc", "/openapi.json", "/v1", "/v1/" + quote(SCRIPT)):
        inert(ask(stand, "GET", path))


def test_names_that_are_html_come_back_as_they_were_and_inert(stand: Stand) -> None:
    stand.write([
        entity("a", SCRIPT, "T", SCRIPT, props={"name": SCRIPT, "html": SCRIPT}), entity("a", SCRIPT, "T", "x"),
        relationship("a", SCRIPT, "R", SCRIPT, ("T", SCRIPT), ("T", "x"), props={"note": SCRIPT}),
    ])  # fmt: skip
    case, id = quote(SCRIPT, safe=""), quote(SCRIPT, safe="")
    paths = (
        f"/v1/cases/{case}/entities/T/{id}", f"/v1/cases/{case}/entities/T/{id}/neighbors?relationships=full",
        f"/v1/search?q={quote('<script>')}", "/v1/cases",
    )  # fmt: skip
    for path in paths:
        answer = ask(stand, "GET", path)
        assert answer.status_code == 200
        assert SCRIPT in answer.json().values() or SCRIPT in json.dumps(answer.json(), ensure_ascii=False)
        inert(answer)
        inert(ask(stand, "GET", path, headers={"if-none-match": answer.headers["etag"]}))
    missing = ask(stand, "GET", f"/v1/cases/{case}/entities/T/{quote('<b>none</b>', safe='')}")
    assert missing.status_code == 404
    inert(missing)
    refused = ask(stand, "GET", f"/v1/cases/{case}/entities/{quote(SCRIPT, safe='')}/x")
    assert refused.status_code == 400
    assert "<script>" in refused.json()["detail"]  # it names what was wrong
    inert(refused)


def test_an_error_of_ours_is_inert_too(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(SCRIPT)

    monkeypatch.setattr("cluster.query.cypher.entity", broken)
    answer = ask(stand, "GET", "/v1/cases/c/entities/T/x")
    assert answer.status_code == 500
    assert SCRIPT not in answer.text
    inert(answer)
