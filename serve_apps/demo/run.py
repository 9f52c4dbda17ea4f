"""The demo from beginning to end: each step timed, each answer with its `asOf`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from serve_apps.cli import lifecycle, overlays, snapshots
from serve_apps.cli.api_client import ApiClient
from serve_apps.cli.cluster import joined
from serve_apps.cli.exits import Exit
from serve_apps.cli.query import client
from serve_apps.cli.session import Session
from serve_apps.demo.material import LICENCE_NOTE, Material, gather
from serve_apps.demo.questions import Answer, questions

if TYPE_CHECKING:
    from serve_apps.cli.loading import Summary

OVERLAYS = ("pagerank", "louvain")
_APPLY_S, _LAKE_S = 300.0, 120.0


@dataclass
class Timeline:
    """What took how long, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step; said even where it fails."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - began


def run(session: Session, workers: int) -> int:
    """The whole demo. Safe to repeat: what is there already is found to be duplicates.

    Args:
        workers: processes that read this machine's Python sources.
    """
    timeline, output = Timeline(), session.output
    with timeline.step("start"):
        node, _ = lifecycle.start_node(session)
    if node is None:
        return Exit.FAILED
    with timeline.step("read this machine's packages"), output.progress() as bars:
        material = gather(session.state_dir, workers, bars)
    _say_material(session, material)
    with joined(session):
        loads = _ingest(session, material, timeline)
        _say_loads(session, loads)
        whole, taken = _snapshot(session, timeline)
        runs = _overlays(session, material, timeline)
    _say_runs(session, taken, runs)
    answers = _ask(session, material, timeline)
    _say_times(session, timeline)
    token = lifecycle.issue_token(session, material[0].tenant)
    output.result({
        "node": asdict(node), "loads": [load.as_json() for load in loads], "snapshot": {**taken, "whole": whole},
        "overlays": runs, "answers": [asdict(answer) for answer in answers], "seconds": timeline.seconds,
        "token": token,
    })  # fmt: skip
    lifecycle.welcome(session, node, material[0].tenant, token)
    fine = whole and not any(load.missing or load.dead for load in loads)
    return Exit.DONE if fine and all(one["state"] == "published" for one in runs) else Exit.FAILED


def _say_material(session: Session, material: list[Material]) -> None:
    rows = [(one.tenant, kind, type, count) for one in material for (kind, type), count in one.written.counts.items()]
    session.output.table("what this machine knows of its own software", ("tenant", "kind", "type", "events"), rows)


def _ingest(session: Session, material: list[Material], timeline: Timeline) -> list[Summary]:
    from actors.ingest_actor import LoadRequest
    from serve_apps.cli.ingest import reporting
    from serve_apps.cli.loading import load_file

    done = []
    for one in material:
        session.control.sources.register(
            one.tenant, one.source, time.time(), owner="demo", transport="file", licence=LICENCE_NOTE
        )
        request = LoadRequest(str(one.written.path), one.tenant, one.source)
        with timeline.step(f"ingest tenant {one.tenant}"), session.output.progress() as bars:
            done.append(load_file(session, request, _APPLY_S, reporting(bars, one.written.path.name)))
    return done


def _say_loads(session: Session, loads: list[Summary]) -> None:
    columns = ("tenant", "events", "applied", "duplicate", "stale", "dead letters", "seconds", "events/s")
    rows = [(x.tenant, x.acked + x.dead, x.applied, x.duplicate, x.stale, x.dead, x.read_s + x.wait_s,
             round(x.acked / max(x.read_s + x.wait_s, 1e-9))) for x in loads]  # fmt: skip
    session.output.table("ingested: from files to visible in the shards", columns, rows)
    if loads and all(load.acked == load.duplicate for load in loads):
        session.output.text("duplicates only: everything was there from an earlier run, and nothing was written again",
                            "green")  # fmt: skip


def _snapshot(session: Session, timeline: Timeline) -> tuple[bool, dict[str, Any]]:
    with timeline.step("snapshot"), session.output.waiting("taking a snapshot"):
        manifest = snapshots.take(session, _LAKE_S)
    with timeline.step("verify"):
        found, _ = snapshots.verified(session, manifest.id, deep=True)
    for problem in found.problems:
        session.output.text(problem, "red")
    return found.is_whole, {**snapshots.summary(manifest), "files": found.files, "bytes": found.bytes}


def _overlays(session: Session, material: list[Material], timeline: Timeline) -> list[dict[str, Any]]:
    done = []
    for one in material:
        for name in OVERLAYS:
            step = f"{name}, tenant {one.tenant}"
            with timeline.step(step), session.output.waiting(f"computing {step}"):
                done.append(overlays.described(overlays.refresh(session, name, one.tenant)))
    return done


def _say_runs(session: Session, taken: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    session.output.facts({name: taken[name] for name in ("snapshot", "asOf", "entities", "relationships", "bytes")})
    rows = [
        (one["overlay"], one["tenant"], one["run"], one["state"], one["written"], one["asOf"],
         ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in one["stages"].items()))
        for one in runs
    ]  # fmt: skip
    columns = ("overlay", "tenant", "run", "state", "values written back", "asOf", "stages, seconds")
    session.output.table("overlays, computed on the snapshot", columns, rows)


def _ask(session: Session, material: list[Material], timeline: Timeline) -> list[Answer]:
    api: ApiClient = client(session, material[0].tenant)
    answers = []
    with timeline.step("five questions"):
        for question in questions(api):
            began = time.monotonic()
            answer = question()
            answer = replace(answer, seconds=time.monotonic() - began)
            answers.append(answer)
            caption = f"asOf {answer.as_of}, answered in {answer.seconds * 1000:.0f} ms"
            session.output.table(answer.question, answer.columns, answer.rows, caption)
    return answers


def _say_times(session: Session, timeline: Timeline) -> None:
    rows = [*timeline.seconds.items(), ("in all", sum(timeline.seconds.values()))]
    session.output.table("time of each stage", ("stage", "seconds"), rows)
