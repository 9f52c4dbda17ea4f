from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from cluster.errors import Corrupt
from cluster.model import Kind, Op
from cluster.query.cypher import Statement
from cluster.shard_map import repartition
from serve_apps.api.app import build
from tests.cluster.query.facts import entity, record, relationship
from tests.cluster.stores.test_falkor import SLOW
from tests.conftest import StartServer
from tests.graph_stores import FalkorStore
from tests.serve_apps.api.stand import Stand

pytestmark = pytest.mark.services


def ask(stand: Stand, use: Callable[[httpx.AsyncClient], Awaitable[Any]], tenant: str | None = "a", **more: Any) -> Any:
    async def inside() -> Any:
        async with stand.client(tenant, **more) as client:
            return await use(client)

    return asyncio.run(inside())


def get(stand: Stand, path: str, tenant: str | None = "a", **more: Any) -> httpx.Response:
    answer: httpx.Response = ask(stand, lambda c: c.get(path, **more), tenant)
    return answer


def path_of(case: str, type: str, id: str) -> str:
    return f"/v1/cases/{quote(case, safe='')}/entities/{quote(type, safe='')}/{quote(id, safe='')}"


HOSTILE = [
    "a/b",
    "a/b/neighbors",
    "%2F",
    "%",
    "a b",
    "ü/語",
    "'",
    '"',
    "`",
    "\\",
    "?x=1",
    "#",
    "+",
    "&a=b",
    ";",
    "\n",
    "neighbors",
    "a//b",
    "/",
    "....",
    "..a",
    "$key",
    "\u202e",
    "x" * 1024,
]


@pytest.mark.parametrize("id", HOSTILE)
def test_any_id_and_case_can_be_named_in_a_path(stand: Stand, id: str) -> None:
    case = id[:256]
    stand.write([entity("a", case, "T", id), entity("a", case, "U", "n")])
    stand.write([relationship("a", case, "R", "r", ("T", id), ("U", "n"))])
    found = get(stand, path_of(case, "T", id))
    assert (found.status_code, found.json()["id"], found.json()["case"]) == (200, id, case)
    near = get(stand, path_of(case, "T", id) + "/neighbors")
    assert [e["id"] for e in near.json()["entities"]] == ["n"]
    assert near.json()["relationships"][0]["from"] == {"type": "T", "id": id}
    back = get(stand, path_of(case, "U", "n") + "/neighbors?relationships=full")
    assert back.json()["entities"] == [{"type": "T", "id": id, "hops": 1, "props": {"name": id}}]


@pytest.mark.parametrize("id", [".", "..", "a/../b"])
def test_ids_that_clients_take_for_steps_can_be_named_in_the_query(stand: Stand, id: str) -> None:
    stand.write(
        [
            entity("a", "..", "T", id),
            entity("a", "..", "T", "n"),
            relationship("a", "..", "R", "r", ("T", id), ("T", "n")),
        ]
    )
    named = {"case": "..", "type": "T", "id": id}
    assert get(stand, "/v1/entity", params=named).json()["id"] == id
    assert [e["id"] for e in get(stand, "/v1/neighbors", params=named).json()["entities"]] == ["n"]


def test_cases_and_search_come_from_all_shards_page_by_page(stand: Stand) -> None:
    cases = [f"case {n:02}" for n in range(12)]
    stand.write([entity("a", case, "T", "x", props={"name": f"same {case}"}) for case in cases])
    assert all(graph.client.read("MATCH (c:_Case) RETURN count(c)", {})[0][0] for graph in stand.graphs.values())
    for path, name in (("/v1/cases?limit=5", "case"), ("/v1/search?q=SAME&limit=5", "case")):
        got, cursor = [], ""
        while cursor is not None:
            page = get(stand, path + (f"&cursor={cursor}" if cursor else "")).json()
            assert page["missing"] == {}
            got += [item[name] for item in page["items"]]
            cursor = page["next"]
        assert got == cases


def test_cases_in_which_nothing_is_visible_are_not_listed(stand: Stand) -> None:
    cases = [f"case {n:02}" for n in range(40)]
    stand.write([entity("a", case, "T", "x") for case in cases])
    stand.write([record("a", "claimed", Kind.CLAIM, "Alias", "1", a=("T", "x"), claim=["is", "x", None])])
    shown = {"case 07", "case 33"}
    stand.write([entity("a", case, "T", "x", op=Op.DELETE, at=2) for case in cases if case not in shown])
    stand.write([relationship("a", "waits", "R", "r", ("T", "x"), ("T", "y"))])
    stand.write([entity("a", "noted", "T", "x", source="overlay/pagerank", props={"rank": 1})])
    for limit in (1, 2, 100):
        got, cursor, pages = [], "", 0
        while cursor is not None:
            page = get(stand, f"/v1/cases?limit={limit}" + (f"&cursor={cursor}" if cursor else "")).json()
            got += [item["case"] for item in page["items"]]
            cursor, pages = page["next"], pages + 1
        assert got == [*sorted(shown), "claimed"]
        assert pages <= 10
    stand.write([entity("a", "case 02", "T", "x", at=3)])
    assert get(stand, "/v1/cases?limit=1").json()["items"] == [{"case": "case 02"}]


GOLDEN = """\
{"of":{"case":"c","type":"T","id":"0"},"entities":[
{"type":"T","id":"a/é","hops":1,"props":{"n":1,"on":true,"part":0.30000000000000004}},
{"type":"U","id":"2","hops":2,"props":{"list":["x","y"],"n":2,"on":true,"part":0.30000000000000004}},
{"type":"U","id":"3","hops":3,"props":{"n":3,"on":true,"part":0.30000000000000004}}],"relationships":[
{"type":"R0","id":"r0","from":{"type":"T","id":"0"},"to":{"type":"T","id":"a/é"},"props":{"n":0}},
{"type":"R0","id":"r2","from":{"type":"T","id":"a/é"},"to":{"type":"U","id":"2"},"props":{"n":2}},
{"type":"R0","id":"r4","from":{"type":"U","id":"3"},"to":{"type":"U","id":"3"},"props":{"n":4}},
{"type":"R1","id":"r1","from":{"type":"T","id":"a/é"},"to":{"type":"T","id":"0"},"props":{"n":1}},
{"type":"R1","id":"r3","from":{"type":"U","id":"2"},"to":{"type":"U","id":"3"},"props":{"n":3}},
{"type":"R1","id":"r5","from":{"type":"T","id":"0"},"to":{"type":"T","id":"0"},"props":{"n":5}}],
"next":null,"truncated":[],"supernodes":[]}
"""


def test_a_neighbourhood_is_these_very_bytes(stand: Stand) -> None:
    nodes = [("T", "0"), ("T", "a/\u00e9"), ("U", "2"), ("U", "3")]
    several = entity("a", "c", *nodes[2], source="s2", props={"n": 9, "list": ["x", "y"]})
    plain = [entity("a", "c", *node, props={"n": n, "part": 0.1 + 0.2, "on": True}) for n, node in enumerate(nodes)]
    stand.write([*plain, several])
    ends = [(0, 1), (1, 0), (1, 2), (2, 3), (3, 3), (0, 0)]
    stand.write([relationship("a", "c", f"R{n % 2}", f"r{n}", nodes[a], nodes[b], props={"n": n}) for n, (a, b) in
                 enumerate(ends)])  # fmt: skip
    path = path_of("c", *nodes[0]) + "/neighbors?hops=3&relationships=full&limit=3"
    for _ in range(2):
        assert get(stand, path).content == GOLDEN.replace("\n", "").encode()


def test_a_question_that_is_too_costly_says_what_to_do(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.write([entity("a", "c", "T", "x")])
    slow = Statement(SLOW, {})
    quick = stand.settings.query.model_copy(update={"deadline_s": 5.0, "breaker_failures": 2})
    object.__setattr__(stand.fanout, "_settings", quick)
    with monkeypatch.context() as patch:
        patch.setattr("cluster.query.cypher.entity", lambda *_: slow)
        for _ in range(2 * quick.breaker_failures):
            answer = get(stand, path_of("c", "T", "x"))
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:intelgraph:problem:question-too-costly")
            assert "ask for less" in answer.json()["detail"]
            assert "retry-after" not in answer.headers
    assert get(stand, path_of("c", "T", "x")).status_code == 200


def test_a_question_that_takes_too_much_memory_is_too_costly(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = FalkorStore(start_server("shard", query_memory_bytes=4 << 20), "m")
    stand = Stand((small, small), tmp_path)
    try:
        stand.write([entity("a", "c", "T", "x")])
        with monkeypatch.context() as patch:
            large = Statement("UNWIND range(1, 2000000) AS n WITH collect(n) AS all RETURN size(all)", {})
            patch.setattr("cluster.query.cypher.entity", lambda *_: large)
            for _ in range(2 * stand.settings.query.breaker_failures):
                answer = get(stand, path_of("c", "T", "x"))
                assert (answer.status_code, answer.json()["type"]) == (
                    422,
                    "urn:intelgraph:problem:question-too-costly",
                )
                assert "memory" in answer.json()["detail"]
        assert get(stand, path_of("c", "T", "x")).status_code == 200
    finally:
        stand.close()


@pytest.mark.parametrize(("hours", "stale"), [(23, False), (25, True)])
def test_overlay_values_of_an_entity_say_whether_they_are_stale(stand: Stand, hours: int, stale: bool) -> None:
    then = datetime(2026, 1, 2, tzinfo=UTC)
    values = {"score": 0.5, "asOf": then.isoformat()}
    stand.write([entity("a", "c", "T", "x"), entity("a", "c", "T", "x", source="overlay/pagerank", props=values)])
    stand.services = dataclasses.replace(stand.services, now=lambda: (then + timedelta(hours=hours)).timestamp())
    stand.app = build(stand.services)
    found = get(stand, path_of("c", "T", "x")).json()["overlays"]
    assert found == {"pagerank": {**values, "run": found["pagerank"]["run"], "stale": stale}}


def test_a_shard_that_is_down_is_named(stand: Stand) -> None:
    stand.write([entity("a", f"c{n}", "T", "x") for n in range(12)])
    stand.down.add("shard-1")
    owned = [f"c{n}" for n in range(12)]
    page = get(stand, "/v1/search?q=x").json()
    assert set(page["missing"]) == {"shard-1"}
    assert 0 < len(page["items"]) < 12
    lost = next(c for c in owned if c not in {i["case"] for i in page["items"]})
    refused = get(stand, path_of(lost, "T", "x"))
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:intelgraph:problem:not-available-now")
    assert int(refused.headers["retry-after"]) >= 1


def test_an_old_epoch_is_refused_and_the_map_reloaded(stand: Stand) -> None:
    stand.write([entity("a", "c", "T", "x")])
    stand.epoch -= 1
    assert get(stand, path_of("c", "T", "x")).status_code == 200


def test_equal_answers_are_not_sent_twice(stand: Stand) -> None:
    stand.write([entity("a", "c", "T", "x")])
    first = get(stand, path_of("c", "T", "x"))
    tag = first.headers["etag"]
    for given in (tag, f'"zz", W/{tag}', "*"):
        again = get(stand, path_of("c", "T", "x"), headers={"if-none-match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    stand.write([entity("a", "c", "T", "x", props={"name": "new"}, at=2)])
    changed = get(stand, path_of("c", "T", "x"), headers={"if-none-match": tag})
    assert (changed.status_code, changed.json()["props"]) == (200, {"name": "new"})
    assert first.headers["cache-control"] == "private, no-cache"
    assert first.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in get(stand, "/v1/cases", headers={"origin": "http://x"}).headers


@pytest.mark.parametrize(
    "path",
    [
        "/v1/cases/c/entities/T%60/x",
        "/v1/cases/c/entities/T'/x",
        "/v1/cases/c/entities/T)--(/x",
        "/v1/cases/c/entities/T/%00",
        "/v1/cases/c/entities/T/%FF",
        "/v1/cases/c/entities/T/" + "x" * 1025,
        "/v1/cases/" + "c" * 257 + "/entities/T/x",
        "/v1/cases/c/entities/T/x/neighbors?hops=0",
        "/v1/cases/c/entities/T/x/neighbors?hops=4",
        "/v1/cases/c/entities/T/x/neighbors?hops=a",
        "/v1/cases/c/entities/T/x/neighbors?limit=1000000000",
        "/v1/cases/c/entities/T/x/neighbors?types=R%60%5D-()%20DETACH%20DELETE%20a",
        "/v1/cases/c/entities/T/x/neighbors?cursor=x",
        "/v1/cases/c/entities/T/x/neighbors?direction=up",
        "/v1/cases/c/entities/T/x/neighbors?relationships=all",
        "/v1/cases/c/entities/T/x?wait_for=x",
        "/v1/cases/c/entities/T/x?wait_for=1:2,",
        "/v1/search?type=T%22",
        "/v1/search?prop=a",
        "/v1/search?prop=id=1",
        "/v1/search?prop=tenant=b",
        "/v1/search?prop=_k=x",
        "/v1/search?prop=a%60=1",
        "/v1/search?limit=-1",
        "/v1/search?q=" + "x" * 300,
        "/v1/search?case=",
        "/v1/cases?cursor=a.b",
        "/v1/entity?case=c&type=T",
        "/v1/overlays/a%60/top",
    ],
)
def test_bad_input_is_a_problem_and_changes_nothing(stand: Stand, path: str) -> None:
    stand.write([entity("a", "c", "T", "x")])
    before = stand.hashes()
    answer = get(stand, path)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    body = answer.json()
    assert (body["status"], body["type"]) == (400, "urn:intelgraph:problem:bad-request")
    assert body["detail"]
    assert stand.hashes() == before


def test_wait_for_waits_until_it_shows_and_no_longer_than_the_deadline(stand: Stand) -> None:
    stand.write([entity("a", "c", "T", "x")])
    own = entity("a", "c", "T", "x").bucket % 8
    assert get(stand, path_of("c", "T", "x") + f"?wait_for={own}:0,{(own + 1) % 8}:99").status_code == 200
    assert stand.parts.asked == [{own: 0}]

    async def later(client: httpx.AsyncClient) -> tuple[int, int]:
        waiting = asyncio.create_task(client.get(path_of("c", "T", "x") + f"?wait_for={own}:5"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        stand.parts.reached_at = 5
        return (await waiting).status_code, len(stand.parts.asked)

    status, polls = ask(stand, later)
    assert status == 200
    assert polls > 2


def test_wait_for_knows_the_partitions_that_the_log_had_before(stand: Stand) -> None:
    stand.write([entity("a", "c", "T", "x")])
    bucket = entity("a", "c", "T", "x").bucket
    first, other = bucket % 8, next(p for p in range(8) if p not in (bucket % 8, bucket % 3))
    stand.map = repartition(stand.map, 3)
    assert get(stand, path_of("c", "T", "x") + f"?wait_for={first}:0,{other}:99").status_code == 200
    assert stand.parts.asked == [{first: 0}]
    assert get(stand, "/v1/cases?wait_for=7:0").status_code == 200
    assert get(stand, "/v1/cases?wait_for=8:0").status_code == 400


def test_wait_that_is_too_long_says_when_to_ask_again(stand: Stand) -> None:
    object.__setattr__(stand.fanout, "_settings", stand.settings.query.model_copy(update={"deadline_s": 0.2}))
    answer = get(stand, "/v1/cases?wait_for=1:5")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_defects_and_damage_tell_nothing(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Callable[..., Any]:
        def raising(*_: Any, **__: Any) -> Any:
            raise error

        return raising

    for error in (RuntimeError("secret"), Corrupt("secret")):
        monkeypatch.setattr(stand.fanout, "deadline", fail(error))
        answer = get(stand, "/v1/cases")
        assert answer.status_code == 500
        assert b"secret" not in answer.content
        assert answer.headers["content-type"] == "application/problem+json"


def test_tombstones_and_waiting_ends_are_nowhere(stand: Stand) -> None:
    stand.write(
        [
            entity("a", "c", "T", "x"),
            entity("a", "c", "T", "dead", op=Op.DELETE),
            entity("a", "c", "T", "far"),
            relationship("a", "c", "R", "1", ("T", "x"), ("T", "dead")),
            relationship("a", "c", "R", "2", ("T", "dead"), ("T", "far")),
            relationship("a", "c", "R", "3", ("T", "x"), ("T", "waits")),
            relationship("a", "c", "R", "4", ("T", "waits"), ("T", "far")),
        ]
    )
    assert get(stand, path_of("c", "T", "x") + "/neighbors?hops=3").json()["entities"] == []
    for id in ("dead", "waits"):
        assert get(stand, path_of("c", "T", id)).status_code == 404
    assert [i["id"] for i in get(stand, "/v1/search?case=c").json()["items"]] == ["far", "x"]
