"""Who may ask what: tokens, scopes, tenants."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from cluster.model import Kind
from tests.cluster.query.facts import entity, record, relationship
from tests.serve_apps.api.stand import Stand
from tests.serve_apps.api.test_reads import ask, get

pytestmark = pytest.mark.services

READ = [
    "/v1/cases",
    "/v1/cases/c/entities/T/x",
    "/v1/cases/c/entities/T/x/neighbors",
    "/v1/entity?case=c&type=T&id=x",
    "/v1/neighbors?case=c&type=T&id=x",
    "/v1/search",
    "/v1/overlays/pagerank/top",
    "/v1/snapshots",
    "/v1/sources",
]
OPERATE = ["/v1/shards", "/v1/dlq", "/v1/dlq/x", "/v1/audit"]


def routes(stand: Stand) -> set[str]:
    return {path for path in stand.app.openapi()["paths"] if path.startswith("/v1")}


def test_every_route_is_in_the_lists_above(stand: Stand) -> None:
    concrete = {p.partition("?")[0] for p in READ + OPERATE} | {"/v1/events", "/v1/dlq/replay"}
    named = {
        r.replace("{case}", "c")
        .replace("{type}", "T")
        .replace("{id}", "x")
        .replace("{name}", "pagerank")
        .replace("{letter}", "x")
        for r in routes(stand)
    }
    assert named == concrete


@pytest.mark.parametrize("path", READ + OPERATE)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Bearer " + "x" * 9_000, "Bearer e30.e30.e30", "token"],
)
def test_without_a_token_there_is_nothing(stand: Stand, path: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = get(stand, path, None, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


def test_two_authorization_headers_are_refused(stand: Stand) -> None:
    token = stand.tokens.issue("a", ["read"])
    headers = [("authorization", f"Bearer {token}"), ("authorization", "Bearer x")]
    assert get(stand, "/v1/cases", None, headers=headers).status_code == 401


def test_scopes_are_needed(stand: Stand) -> None:
    async def statuses(client: httpx.AsyncClient) -> dict[str, int]:
        found = {path: (await client.get(path)).status_code for path in READ + OPERATE}
        found["push"] = (
            await client.post("/v1/events", content=b"[]", headers={"content-type": "application/json"})
        ).status_code
        found["replay"] = (await client.post("/v1/dlq/replay", content=b"{}")).status_code
        return found

    stand.write([entity("a", "c", "T", "x")])
    for scope, allowed in (("read", READ), ("operate", [*OPERATE, "replay"]), ("ingest", ["push"])):
        answers = ask(stand, statuses, scopes=[scope])
        assert {path for path, status in answers.items() if status != 403} == set(allowed)
        assert all(answers[path] == 200 for path in allowed)


SECRET = "zyzzyva"


def two_tenants(stand: Stand) -> None:
    for tenant, word in (("a", "plain"), ("b", SECRET)):
        case = "c" if tenant == "a" else f"c-{SECRET}"
        for at in (case, "shared"):
            stand.write(
                [
                    entity(tenant, at, "T", "x", props={"name": word}),
                    entity(tenant, at, "T", f"id-{word}", props={"name": word}),
                    relationship(tenant, at, "R", f"r-{word}", ("T", "x"), ("T", f"id-{word}")),
                    record(tenant, at, Kind.CLAIM, "K", f"k-{word}", a=("T", "x"), claim=["says", word, None]),
                    entity(tenant, at, "T", "x", props={"mark": word}, source="overlay/pagerank"),
                ]
            )


def probes() -> list[str]:
    """Every read with ids of tenant b in every place that takes one."""
    case = f"c-{SECRET}"
    named = [f"/v1/cases/{case}/entities/T/x", f"/v1/cases/shared/entities/T/id-{SECRET}"]
    found = [*named, *(f"{path}/neighbors?hops=3&relationships=full" for path in named)]
    found += [f"/v1/entity?case={case}&type=T&id=x", f"/v1/neighbors?case={case}&type=T&id=x&hops=3"]
    return found


def test_another_tenants_ids_are_as_unknown_as_any(stand: Stand) -> None:
    two_tenants(stand)
    for path in probes():
        theirs, nothing = get(stand, path), get(stand, path.replace(SECRET, "nothing"))
        assert (theirs.status_code, theirs.content) == (404, nothing.content)
        assert sorted(theirs.headers.items()) == sorted(nothing.headers.items())
        assert get(stand, path, "b").status_code == 200


def test_no_byte_of_another_tenant_is_ever_answered(stand: Stand) -> None:
    two_tenants(stand)
    paths = READ + OPERATE + ["/v1/search?q=zyz", f"/v1/search?case=c-{SECRET}", f"/v1/search?q={SECRET}&case=shared"]
    paths += [
        f"/v1/search?prop=name={SECRET}",
        "/v1/cases/shared/entities/T/x",
        "/v1/cases/shared/entities/T/x/neighbors?hops=3",
    ]
    for path in paths:
        mine, other = get(stand, path), get(stand, path, "b")
        assert SECRET.encode() not in mine.content, path
        assert b"plain" not in other.content, path
        assert b'"of":"b"' not in mine.content
    assert SECRET in get(stand, "/v1/search?q=zyz", "b").text  # the probe can find it


def test_a_cursor_does_not_leave_its_tenant(stand: Stand) -> None:
    two_tenants(stand)
    for path in ("/v1/cases?limit=1", "/v1/search?limit=1", "/v1/search?limit=1&case=shared"):
        cursor = get(stand, path, "b").json()["next"]
        assert cursor
        assert get(stand, f"{path}&cursor={cursor}", "b").status_code == 200
        assert get(stand, f"{path}&cursor={cursor}", "a").status_code == 400


def test_tenant_of_a_request_is_the_tokens_alone(stand: Stand) -> None:
    two_tenants(stand)
    headers = {"x-tenant": "b", "tenant": "b", "cookie": "tenant=b"}
    answer = get(stand, "/v1/search?tenant=b&q=zyz", headers=headers)
    assert answer.json()["items"] == []


def test_status_needs_no_token_and_names_no_tenant(stand: Stand) -> None:
    two_tenants(stand)
    for path, kind in (("/healthz", "application/json"), ("/readyz", "application/json"), ("/metrics", "text/plain")):
        answer = get(stand, path, None)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
        assert SECRET.encode() not in answer.content
    stand.parts.ready_parts = {"shard-0": "does not answer"}
    answer = get(stand, "/readyz", None)
    assert (answer.status_code, answer.json()["parts"]) == (503, {"shard-0": "does not answer"})


def test_unknown_routes_and_methods_are_problems(stand: Stand) -> None:
    for path, status in (("/v1/nothing", 404), ("/v1/cases/", 404), ("/v1/cases/c/entities/T/", 404), ("/docs", 404)):
        answer = get(stand, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    put: Any = ask(stand, lambda c: c.put("/v1/cases"))
    assert (put.status_code, put.headers["content-type"]) == (405, "application/problem+json")


def test_many_requests_at_once_are_answered(stand: Stand) -> None:
    stand.write([entity("a", "c", "T", "x")])

    async def flood(client: httpx.AsyncClient) -> set[int]:
        answers = await asyncio.gather(*(client.get("/v1/cases/c/entities/T/x") for _ in range(200)))
        return {answer.status_code for answer in answers}

    assert ask(stand, flood) <= {200, 429}
