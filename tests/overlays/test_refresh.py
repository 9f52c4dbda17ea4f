"""A refresh, stopped at every step: the next one finishes or ends it, and each value is there once in effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from cluster.errors import Conflict, Rejected, Unavailable
from cluster.model import Kind, Op
from cluster.stores.control import ControlStore
from overlays.definition import Overlay
from overlays.refresh import Surroundings, refresh, settle
from overlays.results import PLAN
from tests.overlays.facts import (
    BACKEND,
    FACTS,
    FIRST,
    IN_CASES,
    LATER,
    PARTITIONS,
    PEOPLE,
    TENANT,
    UNLIKE,
    Crash,
    MemoryLog,
    around,
    entity,
    once,
    runs_in,
    scoring,
    source,
    states,
    values,
)

STEPS = [
    "start",
    "computed",
    "plan",
    "result.write",
    "result.rename",
    "commit",
    "decided",
    "append",
    "floor",
    "publish",
]


def test_a_refresh_writes_its_top_and_floors(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    done = refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, around(control, log, tmp_path, top_k=2))
    assert (done.run.run, done.run.state, done.result.written) == (1, "published", 5)
    assert sorted(values(log.fold(FACTS))) == [("c1", "a"), ("c1", "b"), ("c2", "c"), ("c2", "d"), ("c3", "e")]
    for partition in range(PARTITIONS):
        assert log.records(partition)[-1].kind == Kind.FLOOR
    assert {"solve", "mapping", "commit", "append"} <= set(done.stages)
    assert [row["id"] for row in done.result.top] == ["a", "b"]


def test_the_next_refresh_counts_up_and_clears(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    surroundings = around(control, log, tmp_path, top_k=3)
    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    refresh(scoring(LATER), source(PEOPLE, IN_CASES, "s2"), BACKEND, surroundings)
    kept = values(log.fold(FACTS))
    assert runs_in(log) == {2}
    assert sorted(kept) == [(c, i) for c, i in (*(("c1", x) for x in "abc"), *(("c2", x) for x in "cde"), ("c3", "e"))]
    assert msgspec.json.decode(kept[("c2", "e")].props)["snapshot"] == "s2"


@pytest.mark.parametrize(
    ("step", "gated"), [(step, False) for step in STEPS] + [(step, True) for step in STEPS[: STEPS.index("append")]]
)
def test_a_crash_at_any_step(control: ControlStore, tmp_path: Path, step: str, gated: bool) -> None:
    """After the crash and the next refresh, everything is as if that refresh had been alone; nothing is mixed."""
    log = MemoryLog()
    surroundings = around(control, log, tmp_path, top_k=2)
    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    crashing = replace(surroundings, failpoint=once(step))
    second = UNLIKE if gated else LATER
    with pytest.raises(Crash):
        refresh(scoring(second), source(PEOPLE, IN_CASES, "s2"), BACKEND, crashing)
    assert states(control) == ["published", "running"]
    settled = settle(TENANT, scoring(FIRST), surroundings)
    assert settled == (2,)
    decided = not gated and step in ("decided", "append", "floor", "publish")
    held = gated and step == "decided"
    assert states(control)[1] == ("published" if decided else "gated" if held else "failed")
    assert runs_in(log) == ({2} if decided else {1}), "whole runs only"
    assert settle(TENANT, scoring(FIRST), surroundings) == ()

    done = refresh(scoring(LATER), source(PEOPLE, IN_CASES, "s3"), BACKEND, surroundings)
    assert (done.run.run, done.run.state) == (3, "published")
    assert runs_in(log) == {3}
    assert log.fold(FACTS).export_lines() == MemoryLog().fold(FACTS).export_lines()


@pytest.mark.parametrize("crashed_at", [1, 2, 3])
def test_a_crash_between_two_appends_leaves_no_mixture(
    control: ControlStore, tmp_path: Path, crashed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overlays.refresh.APPEND_ENTRIES", 1)
    log = MemoryLog()
    surroundings = around(control, log, tmp_path, top_k=5)
    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    with pytest.raises(Crash):
        stopped = replace(surroundings, failpoint=once("append", crashed_at))
        refresh(scoring(LATER), source(PEOPLE, IN_CASES), BACKEND, stopped)
    refresh(scoring(UNLIKE), source(PEOPLE, IN_CASES), BACKEND, around(control, log, tmp_path, gate_kendall=1.0))
    assert states(control) == ["published", "published", "gated"]
    assert runs_in(log) == {2}


def test_an_error_while_computing_ends_the_run(control: ControlStore, tmp_path: Path) -> None:
    def compute(*arguments: object) -> object:
        raise Unavailable("no cluster")

    broken = Overlay("pagerank", "", compute, lambda *a: [])  # type: ignore[arg-type]
    log = MemoryLog()
    with pytest.raises(Unavailable):
        refresh(broken, source(PEOPLE, IN_CASES), BACKEND, around(control, log, tmp_path))
    assert (states(control), log.entries) == (["failed"], [])
    with pytest.raises(Rejected, match="5 scores for 0"):
        wrong = replace(scoring(FIRST), compute=lambda s, *a: scoring(FIRST).compute(source(PEOPLE, {}), *a))
        refresh(wrong, source("", {}), BACKEND, around(control, log, tmp_path))


def test_the_gate_keeps_the_old_values(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    surroundings = around(control, log, tmp_path, top_k=2)
    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    before = len(log.entries)
    held = refresh(scoring(UNLIKE), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    assert held.run.state == "gated"
    assert held.run.gate is not None
    assert "overlap 0.000 is below 0.500" in held.run.gate["reason"]
    assert len(log.entries) == before
    assert runs_in(log) == {1}
    passed = refresh(scoring(UNLIKE), source(PEOPLE, IN_CASES), BACKEND, surroundings, override="a merger")
    assert passed.run.state == "published"
    assert passed.run.gate is not None
    assert passed.run.gate["overridden"] == "a merger"
    assert runs_in(log) == {3}
    assert refresh(scoring(UNLIKE), source(PEOPLE, IN_CASES), BACKEND, surroundings).run.state == "published"


def test_what_did_not_converge_never_passes(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    done = refresh(
        scoring(FIRST, converged=False), source(PEOPLE, IN_CASES), BACKEND, around(control, log, tmp_path), "please"
    )
    assert (done.run.state, log.entries) == ("gated", [])


@pytest.mark.parametrize(("moment", "ended"), [("computed", "failed"), ("decided", "published")])
def test_a_refresh_that_was_taken_over_appends_nothing(
    control: ControlStore, tmp_path: Path, moment: str, ended: str
) -> None:
    log = MemoryLog()
    calm = around(control, log, tmp_path, top_k=2)
    inside: list[int] = []

    def overtaken(step: str) -> None:
        if step == moment and not inside:
            inside.append(1)
            refresh(scoring(LATER), source(PEOPLE, IN_CASES, "s2"), BACKEND, calm)

    with pytest.raises(Conflict, match="took over"):
        refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, replace(calm, failpoint=overtaken))
    assert states(control) == [ended, "published"]
    assert runs_in(log) == {2}


def test_a_zombie_that_goes_on_appending_changes_nothing(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    calm = around(control, log, tmp_path, top_k=5)
    inside: list[int] = []

    def paused(step: str) -> None:
        if step == "append" and not inside:
            inside.append(1)
            refresh(scoring(LATER), source(PEOPLE, IN_CASES, "s2"), BACKEND, calm)

    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, replace(calm, failpoint=paused))
    assert states(control) == ["published", "published"]
    assert runs_in(log) == {2}


def test_a_damaged_plan_is_cleared_and_the_next_run_stands(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    calm: Surroundings = around(control, log, tmp_path)
    with pytest.raises(Crash):
        refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, replace(calm, failpoint=once("floor")))
    path = calm.results(TENANT, "pagerank").path_of(1) / PLAN
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    settle(TENANT, scoring(FIRST), calm)
    assert states(control) == ["failed"]
    assert runs_in(log) == set()
    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, calm)
    assert runs_in(log) == {2}


def test_an_empty_tenant(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    done = refresh(scoring({}), source("", {}), BACKEND, around(control, log, tmp_path))
    assert (done.run.state, done.result.written, done.result.top) == ("published", 0, ())
    assert [record.kind for record in log.records()] == [Kind.FLOOR] * PARTITIONS


def test_a_deleted_entity_is_not_revived(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, around(control, log, tmp_path))
    gone = entity("a", "c1", 2, Op.DELETE)
    lines = log.fold([*FACTS, gone]).export_lines()
    assert lines == MemoryLog().fold([*FACTS, gone]).export_lines()
    assert not any('"id":"a"' in line for line in lines)


def test_equal_input_gives_equal_plans(control: ControlStore, tmp_path: Path) -> None:
    logs = [MemoryLog(), MemoryLog()]
    for number, log in enumerate(logs):
        tenant_source = source(PEOPLE, IN_CASES)
        refresh(scoring(FIRST), replace(tenant_source, tenant=f"t{number}"), BACKEND, around(control, log, tmp_path))
    first, second = ([(r.case, r.type, r.id, r.version, r.props) for r in log.records()] for log in logs)
    assert sorted(first) == sorted(second)


def test_tenants_with_odd_names_have_folders_of_their_own(control: ControlStore, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    for tenant in ("..", "../../x", "a/b", "a b", "A B", "x" * 256):
        refresh(scoring(FIRST), replace(source(PEOPLE, IN_CASES), tenant=tenant), BACKEND,
                around(control, MemoryLog(), folder))  # fmt: skip
    assert len(list(folder.glob("*/pagerank/000000000001/result.json"))) == 6


def test_old_results_go(control: ControlStore, tmp_path: Path) -> None:
    surroundings = around(control, MemoryLog(), tmp_path, keep_results=2)
    with pytest.raises(Crash):
        refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, replace(surroundings, failpoint=once("computed")))
    for _ in range(4):
        refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    folder = surroundings.results(TENANT, "pagerank").path_of(1).parent
    assert sorted(path.name for path in folder.iterdir()) == ["000000000004", "000000000005"]
