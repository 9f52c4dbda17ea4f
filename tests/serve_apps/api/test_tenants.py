"""Two tenants on one whole installation, behind the real services: nothing of the one reaches the other.

Requests are generated from the OpenAPI document: each operation, with its required parameters and with each optional
one, named after things of the other tenant. A route or parameter that is new has to be given a value below. The
answer has to be that for a word which nobody has ever stored, letter by letter.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from fastapi import FastAPI

from actors.loads import FileLoads, LoadFile
from cluster.stores.shard_export import state_lines
from cluster.telemetry import exposition
from cluster.telemetry.logs import JsonFormatter
from overlays.refresh import Surroundings, refresh
from serve_apps.api.app import build
from serve_apps.cli.session import Session
from serve_apps.services import make_services
from serve_apps.tokens import TokenAuthority
from tests.faults.harness import Installation, wait_until
from tests.overlays.facts import AS_OF, BACKEND, scoring
from workloads.overlay.edge_list import EdgeListInput
from workloads.overlay.input import ColumnFiles, GraphFiles
from workloads.snapshot.create import create_snapshot

pytestmark = [pytest.mark.services, pytest.mark.slow]

MINE, THEIRS, NOBODYS = "plainword", "zyzzyvas!", "qwertyui!"
SCOPES = ("read", "ingest", "operate")
Request = tuple[str, str, Any]
"""(method, path with query, body or None)"""


def of(word: str, name: str) -> str:
    """A name that tells whose it is."""
    return f"{name}-{word.strip('!')}"


PATH = {"case": "case", "type": "person", "id": "id", "name": "pagerank"}
QUERY: dict[str, list[str]] = {
    "case": ["case-{}", "shared"],
    "type": ["person"],
    "id": ["id-{}"],
    "q": ["{}", "id-{}"],
    "prop": ["name=name-{}"],
    "types": ["KNOWS", "TIE_{}"],
    "entity_types": ["person"],
    "hops": ["3"],
    "direction": ["any"],
    "relationships": ["full"],
    "limit": ["1000"],
    "cursor": [""],
    "wait_for": [""],
    "after": ["0"],
}
"""Values of query parameters; `{}` is the other tenant's word. Cursors and positions have tests of their own."""


def bodies(word: str, letters: list[str]) -> dict[str, list[Any]]:
    """Bodies of each operation that changes something."""
    fact = {"case": "shared", "kind": "entity", "op": "delete", "type": "person", "id": of(word, "id")}
    named = [{**fact, "tenant": of(word, "tenant")}, {**fact, "source": of(word, "source")}]
    return {
        "/v1/events": [named[:1], named[1:], [{**named[0], "source": of(word, "source")}]],
        "/v1/dlq/replay": [{"ids": [*letters, of(word, "id")]}, {"ids": letters, "dry_run": True}],
    }


def requests(app: FastAPI, word: str, letters: list[str]) -> Iterator[Request]:
    """Every operation under /v1, with `word` wherever a caller may name something."""
    plain = word.strip("!")
    changes = bodies(word, letters)
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/v1"):
                continue
            parameters = operation.get("parameters", [])
            at = path
            for p in parameters:
                if p["in"] == "path":
                    value = {**PATH, "letter": letters[0]}[p["name"]]
                    at = at.replace(f"{{{p['name']}}}", quote(of(word, value) if value in ("case", "id") else value))
            queries = {p["name"]: p["required"] for p in parameters if p["in"] == "query"}
            options = {name: [value.format(plain) for value in QUERY[name] if value] for name in queries}
            needed = {name: options[name][0] for name, required in queries.items() if required}
            chosen = [needed, *({**needed, name: value} for name in options for value in options[name])]
            chosen.append({name: values[0] for name, values in options.items() if values})
            for query in chosen:
                asked = f"{at}?{urlencode(query)}" if query else at
                if method == "get":
                    yield "GET", asked, None
                    continue
                for body in changes[path]:
                    yield method.upper(), asked, body


@dataclass
class World:
    """The installation with its application, and everything that was logged since it was made."""

    system: Installation
    app: FastAPI
    tokens: TokenAuthority
    logged: io.StringIO
    letters: dict[str, list[str]]

    def send(self, word: str, *asked: Request) -> list[httpx.Response]:
        """Answers to a tenant's requests."""
        token = self.tokens.issue(of(word, "tenant"), SCOPES, [of(word, "source")])
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

        async def inside() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
                return [await client.request(m, path, json=body) for m, path, body in asked]

        return asyncio.run(inside())

    def state(self, word: str) -> tuple[list[str], Any]:
        """What a tenant has: state lines of the shards, and its dead letters."""
        shards = self.system.opened()
        try:
            lines = state_lines(shards, of(word, "tenant"))
        finally:
            for shard in shards:
                shard.close()
        letters = self.system.stack.control.dead_letters.list(of(word, "tenant"), limit=100)
        return lines, [(letter.id, letter.state, letter.attempts) for letter in letters]


def facts(word: str) -> list[Any]:
    """A little graph, in a case of the tenant's own and in one whose name both tenants use."""
    name = {"name": of(word, "name")}
    made: list[Any] = []
    for case in (of(word, "case"), "shared"):
        head = {"case": case, "op": "upsert"}
        ends = {"from": {"type": "person", "id": of(word, "id")}, "to": {"type": "person", "id": "both"}}
        made += [{**head, "kind": "entity", "type": "person", "id": i, "props": name} for i in (of(word, "id"), "both")]
        made.append({**head, "kind": "relationship", "type": of(word, "TIE").replace("-", "_"), "id": "r", **ends})
        claim = {"subject": ends["to"], "predicate": "said", "value": of(word, "value")}
        made.append({**head, "kind": "claim", "type": "claim", "id": of(word, "claim"), **claim})
    return made if word == MINE else [*made, {**made[0], "id": of(word, "more")}]


def fill(world: World, word: str, folder: Path) -> None:
    """Facts, dead letters, a file's load, an overlay's values of one tenant, through the ways that users take."""
    system, tenant = world.system, of(word, "tenant")
    control, source = system.stack.control, of(word, "source")
    control.sources.register(tenant, source, 0.0)
    (pushed,) = world.send(word, ("POST", "/v1/events", facts(word)))
    assert pushed.status_code == 200, pushed.text
    path = folder / "facts.jsonl"
    path.write_text(json.dumps({**facts(word)[0], "id": of(word, "loaded")}) + f"\nno JSON of {of(word, 'letter')}\n")
    with closing(system.stack.open_log()) as log:
        done = FileLoads(control, log, system.settings).ingest(LoadFile(path, tenant, of(word, "file")))
        assert (done.counts.acked, done.counts.dead) == (1, 1)
        around = Surroundings(
            control.runs, log.append, system.partitions, system.stack.state_dir / "overlays", system.settings
        )
        graph = GraphFiles(2, 0, ColumnFiles("offset", ()), ColumnFiles("neighbour", ()))
        keys = [("person", "both"), ("person", of(word, "id"))]
        given = EdgeListInput(tenant, "s1", AS_OF, graph, keys, {"shared": [0, 1]})
        refresh(scoring({"both": 0.25, of(word, "id"): 0.75}), given, BACKEND, around)
    world.letters[word] = [letter.id for letter in control.dead_letters.list(tenant, limit=10)]


@pytest.fixture(scope="module")
def world(server_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    with Installation(server_root / "tn") as system, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "require_node", lambda self: None)  # this installation has no node process
        patch.setenv("INTELGRAPH__LOG__PARTITIONS", str(system.partitions))
        system.start(lake=True)
        made = replace(make_services(system.settings), exposition=Own())
        world = World(system, build(made), made.tokens, stream, {})
        for word in (MINE, THEIRS):
            fill(world, word, tmp_path_factory.mktemp("files"))
        system.settle()
        with system.stack.open_lake() as lake:
            ends = system.ends()
            wait_until(
                lambda: all(lake.positions().of(p).number == n for p, n in ends.items()), message="the lake has all"
            )
            create_snapshot(lake, system.stack.state_dir / "snapshots", 1_800_000_000.0)
        yield world
        made.fanout.close()
    root.removeHandler(handler)
    root.setLevel(level)


MOMENTS = frozenset({"asOf", "ageSeconds", "lagRecords", "lagSeconds", "actions"})
"""What is another at each asking: times, and what the one who asks has done so far."""


class Own:
    """This process's metrics: the real ones ask actors, and there are none here."""

    def exposition(self) -> bytes:
        return exposition()


def told(answer: httpx.Response, swaps: list[tuple[str, str]] = []) -> Any:  # noqa: B006
    """What an answer says, but for the moment in which it was given."""
    text = answer.text
    for word, other in swaps:
        text = text.replace(word, other)
    return timeless(json.loads(text))


def timeless(value: Any) -> Any:
    """Without what says when: two answers to one question may differ in it."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in MOMENTS}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def test_what_is_another_tenants_is_as_unknown_as_what_never_was(world: World) -> None:
    nobodys_letters = [f"{number:024x}" for number, _ in enumerate(world.letters[THEIRS])]
    swaps = [(NOBODYS.strip("!"), THEIRS.strip("!")), *zip(nobodys_letters, world.letters[THEIRS], strict=True)]
    theirs = list(requests(world.app, THEIRS, world.letters[THEIRS]))
    nobodys = list(requests(world.app, NOBODYS, nobodys_letters))
    before, mine = world.state(THEIRS), world.state(MINE)
    assert len(theirs) == len(nobodys) > 40
    for asked, answer, expected in zip(theirs, world.send(MINE, *theirs), world.send(MINE, *nobodys), strict=True):
        assert answer.status_code == expected.status_code < 500, asked
        assert told(answer) == told(expected, swaps), asked
        assert swaps[0][1] in asked[1] or asked[2] or swaps[0][1] not in answer.text, asked
    assert world.state(THEIRS) == before, "something of the other tenant's was changed"
    assert world.state(MINE) == mine, "what was refused was written"


def test_the_same_requests_find_everything_with_the_owners_token(world: World) -> None:
    """So that the test above does not pass because nothing is found at all."""
    word = THEIRS.strip("!")
    found: dict[str, bool] = {}
    for asked, answer in zip(
        reads := [r for r in requests(world.app, THEIRS, world.letters[THEIRS]) if r[0] == "GET"],
        world.send(THEIRS, *reads),
        strict=True,
    ):
        route = asked[1].partition("?")[0]
        found[route] = found.get(route, False) or (answer.status_code == 200 and word in answer.text)
    expected = {"/v1/shards": False, "/v1/snapshots": False}
    assert {route: shows for route, shows in found.items() if not shows} == expected
    (mine, theirs) = (world.send(w, ("GET", "/v1/snapshots", None))[0].json()["items"] for w in (MINE, THEIRS))
    assert [[item["entities"] for item in items] for items in (mine, theirs)] == [[5], [6]]


def test_no_line_and_no_metric_tells_of_a_tenant_without_naming_it(world: World) -> None:
    lines = [json.loads(line) for line in world.logged.getvalue().splitlines()]
    lines = [line for line in lines if line["logger"] != "httpx"]  # this test's own client
    assert {"shard_epoch_raised", "shard_serves"} <= {line["event"] for line in lines}, "little was logged"
    for word in (MINE, THEIRS):
        plain = word.strip("!")
        for line in lines:
            assert plain not in json.dumps(line) or line.get("tenant") == of(word, "tenant"), line
        assert plain.encode() not in exposition()
    (answer,) = world.send(MINE, ("GET", "/metrics", None))
    assert b"intelgraph_applied" in answer.content


DERIVED = (
    ("/v1/overlays/pagerank/top", ()),
    ("/v1/overlays/pagerank/top?case=shared", ()),
    ("/v1/snapshots", ("items", 0)),
    ("/v1/audit", ()),
    ("/v1/cases/shared/entities/person/both", ("overlays", "pagerank")),
)


@pytest.mark.parametrize(("path", "place"), DERIVED)
def test_every_derived_value_says_when_it_is_from(world: World, path: str, place: tuple[Any, ...]) -> None:
    (answer,) = world.send(MINE, ("GET", path, None))
    value = answer.json()
    for step in place:
        value = value[step]
    said = value.get("asOf") or value["props"]["asOf"]
    assert said[:2] == "20" and said.endswith("Z")
