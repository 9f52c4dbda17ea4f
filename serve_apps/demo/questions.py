"""Five questions that an analyst asks of a supply chain, answered by the HTTP API alone.

Each answer is a plain value: title, columns, rows, and `asOf`, which for the hot graph is the moment of asking.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from serve_apps.cli.api_client import ApiClient, entity_path

ROWS = 10
_ALL = 100_000
_PEOPLE = ("maintained_by", "authored_by")
_AROUND = ("depends_on", "maintained_by", "authored_by", "licensed_under", "has_version")
_MEMBERS_SHOWN = 6
_CANDIDATES = 3 * ROWS


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question found. `seconds` is added by whoever asks."""

    question: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    as_of: str
    seconds: float = 0.0


def now() -> str:
    """The present moment, RFC 3339: hot answers are of the moment of asking."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rests_on(api: ApiClient, named: Mapping[str, int]) -> Answer:
    """What does everything rest on: PageRank over all cases of the tenant; of all things, then of packages.

    Modules import each other so much that they rank before packages: these are asked for one by one.
    """
    found = api.get("/v1/overlays/pagerank/top", limit=ROWS // 2)
    rows = [(item["type"], item["id"], item["score"]) for item in found["items"]]
    packages = []
    for name in sorted(named, key=lambda name: (-named[name], name))[:_CANDIDATES]:
        entity = api.get(entity_path(name, "package", name))
        if (score := entity["overlays"].get("pagerank", {}).get("score")) is not None:
            packages.append(("package", name, score))
    rows += sorted(packages, key=lambda row: (-row[2], row[1]))[:ROWS]
    question = "What does everything rest on? (PageRank over all cases: of all things, then of packages)"
    return Answer(question, ("type", "id", "score"), tuple(rows), found["asOf"])


def dependents(api: ApiClient) -> Counter[str]:
    """How many cases name each package, other than the package's own case."""
    found: Counter[str] = Counter()
    for item in api.pages("/v1/search", _ALL, type=["package"]):
        if item["id"] != item["case"]:
            found[item["id"]] += 1
    return found


def maintainers_of_most_depended_on(api: ApiClient, named: Mapping[str, int]) -> Answer:
    """Who maintains the most depended-on packages: people around the packages that most cases name."""
    best = sorted(named, key=lambda name: (-named[name], name))
    packages: defaultdict[str, list[str]] = defaultdict(list)
    for package in best[:ROWS]:
        for person in _people(api, package):
            packages[person].append(package)
    totals = {person: sum(named[p] for p in theirs) for person, theirs in packages.items()}
    order = sorted(totals, key=lambda person: (-totals[person], person))[:ROWS]
    rows = tuple((person, totals[person], ", ".join(packages[person])) for person in order)
    columns = ("maintainer or author", "cases that depend", "packages")
    return Answer("Who maintains the most depended-on packages?", columns, rows, now())


def _people(api: ApiClient, package: str) -> list[str]:
    path = entity_path(package, "package", package) + "/neighbors"
    found = api.get(path, types=",".join(_PEOPLE), direction="out", limit=50)
    return [str(e["props"].get("name") or e["id"]) for e in found["entities"] if e["type"] == "person"]


def communities(api: ApiClient) -> Answer:
    """Which communities are there, and what holds each together: its members with most relationships inside."""
    found = api.get("/v1/overlays/louvain/top", limit=ROWS)
    rows = tuple(
        (row["community"], row["size"], ", ".join(f"{m['type']}:{m['id']}" for m in row["members"][:_MEMBERS_SHOWN]))
        for row in found["summary"]
    )
    return Answer("Which communities are there, and what holds each together?",
                  ("community", "entities", "held together by"), rows, found["asOf"])  # fmt: skip


def neighbourhood(api: ApiClient, package: str) -> Answer:
    """The neighbourhood of one package in its own case: two steps along what says most."""
    path = entity_path(package, "package", package) + "/neighbors"
    found = api.get(path, hops=2, types=",".join(_AROUND), limit=2 * ROWS)
    ways: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for link in found["relationships"]:
        ways[link["to"]["type"], link["to"]["id"]].add(link["type"])
    near = found["entities"]
    rows = tuple((e["hops"], ", ".join(sorted(ways[e["type"], e["id"]])), e["type"], e["id"]) for e in near)
    return Answer(f"What is around the package {package}?", ("hops", "by", "type", "id"), rows, now())


def shared_maintainers(api: ApiClient, tenant: str) -> Answer:
    """Which cases share one maintainer: the same person (type, id) in several cases."""
    cases: defaultdict[str, set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    for item in api.pages("/v1/search", _ALL, type=["person"]):
        cases[item["id"]].add(item["case"])
        names[item["id"]] = str(item["props"].get("name") or item["id"])
    order = sorted((one for one in cases if len(cases[one]) > 1), key=lambda one: (-len(cases[one]), one))[:ROWS]
    rows = tuple((names[one], len(cases[one]), ", ".join(sorted(cases[one]))) for one in order)
    return Answer(f"Which cases of {tenant} share one maintainer or author?", ("person", "cases", "which"), rows, now())


def questions(api: ApiClient) -> list[Callable[[], Answer]]:
    """The five, in order. The first also finds which packages most cases depend on, for those that follow."""
    named: Counter[str] = Counter()

    def first() -> Answer:
        own = {case["case"] for case in api.pages("/v1/cases", _ALL)}
        named.update({name: count for name, count in dependents(api).items() if name in own})
        return rests_on(api, named)

    def around() -> Answer:
        return neighbourhood(api, min(named, key=lambda name: (-named[name], name)) if named else "pip")

    return [
        first, lambda: maintainers_of_most_depended_on(api, named), lambda: communities(api), around,
        lambda: shared_maintainers(api, "python"),
    ]  # fmt: skip
