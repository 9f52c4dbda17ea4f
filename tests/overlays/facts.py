"""Facts, a log in memory, and overlays whose scores a test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from cluster import batch
from cluster.config import OverlaySettings, Settings
from cluster.fold import Fold
from cluster.model import Kind, Op, Record
from cluster.stores.control import ControlStore
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import Append
from overlays.definition import Computed, Overlay, Props
from overlays.refresh import Surroundings
from tests.strategies import make
from workloads.kernels.csr import Ints
from workloads.overlay.backends import Backend, CpuBackend
from workloads.overlay.edge_list import EdgeListInput
from workloads.overlay.input import ColumnFiles, GraphFiles, Key, OverlayInput

PARTITIONS = 4
TENANT, AS_OF, NOW = "acme", "2026-01-02T03:04:05.000Z", 1_800_000_000.0
BACKEND: Backend = CpuBackend()


class Crash(BaseException):
    """The process ends here: nothing below catches it."""


class MemoryLog:
    """What was appended, in order."""

    def __init__(self) -> None:
        self.entries: list[Append] = []

    def append(self, entries: Sequence[Append]) -> None:
        self.entries.extend(entries)

    def records(self, partition: int | None = None) -> list[Record]:
        return [r for e in self.entries if partition in (None, e.partition) for r in batch.decode(e.data)]

    def fold(self, facts: Sequence[Record] = ()) -> Fold:
        return Fold().apply_all([*facts, *self.records()])


def entity(id: str, case: str = "c1", position: int = 1, op: int = Op.UPSERT) -> Record:
    """A fact about a person."""
    return make(TENANT, case, Kind.ENTITY, "person", id, "crm", position, op)


def source(
    names: Sequence[str], in_cases: Mapping[str, Sequence[str]], snapshot: str = "s1", edges: int = 0
) -> EdgeListInput:
    """People in cases, without relationships."""
    keys: list[Key] = [("person", name) for name in sorted(names)]
    place = {name: at for at, (_, name) in enumerate(keys)}
    graph = GraphFiles(len(keys), edges, ColumnFiles("offset", ()), ColumnFiles("neighbour", ()))
    cases = {case: sorted(place[name] for name in members) for case, members in in_cases.items()}
    return EdgeListInput(TENANT, snapshot, AS_OF, graph, keys, cases)


def scoring(scores: Mapping[str, float], converged: bool = True) -> Overlay:
    """An overlay that gives these scores, by id."""

    def compute(given: OverlayInput, backend: Backend, settings: OverlaySettings, folder: Path) -> Computed:
        (folder / "ranks-00000.parquet").write_bytes(b"as it were")
        values = np.array([scores[id_] for _, id_ in given.keys(np.arange(given.graph.vertices))], np.float64)
        return Computed(values, converged, ("ranks-00000.parquet",), {"solve": 0.5}, {"iterations": 3})

    def annotate(computed: Computed, given: OverlayInput, vertices: Ints) -> Sequence[Props]:
        return [{"score": score} for score in computed.score[vertices].tolist()]

    return Overlay("pagerank", "scores", compute, annotate)


def around(
    control: ControlStore, log: MemoryLog, folder: Path, failpoint: Failpoint = no_failpoint, **overlays: object
) -> Surroundings:
    """Surroundings with a clock that stands, and without waiting."""
    settings = Settings(overlays=OverlaySettings.model_validate(overlays))
    return Surroundings(
        control.runs, log.append, PARTITIONS, folder, settings, lambda: NOW, lambda seconds: None, failpoint
    )


def values(fold: Fold) -> dict[tuple[str, str], Record]:
    """(case, id) → the overlay register there."""
    found = {}
    for thing, by_source in fold.registers.items():
        for name, record in by_source.items():
            if name == "overlay/pagerank":
                found[(thing[1], thing[4])] = record
    return found


PEOPLE = "abcde"
IN_CASES = {"c1": "abcd", "c2": "cde", "c3": "e"}
FIRST = dict(zip(PEOPLE, (0.4, 0.3, 0.2, 0.1, 0.0), strict=True))
LATER = {**FIRST, "e": 0.15}
UNLIKE = dict(zip(PEOPLE, (0.0, 0.0, 0.1, 0.2, 0.7), strict=True))
FACTS: list[Record] = [entity(name, case) for case, members in IN_CASES.items() for name in members]


def once(name: str, occurrence: int = 1) -> Failpoint:
    """A failpoint that crashes at a step, the first time or a later one."""
    seen: list[str] = []

    def failpoint(step: str) -> None:
        seen.append(step)
        if step == name and seen.count(name) == occurrence:
            raise Crash(name)

    return failpoint


def runs_in(log: MemoryLog) -> set[int]:
    """The runs whose values are there after everything was folded."""
    return {msgspec.json.decode(record.props)["run"] for record in values(log.fold(FACTS)).values()}


def states(control: ControlStore) -> list[str]:
    """States of the runs, oldest first."""
    return [run.state for run in reversed(control.runs.list(TENANT, "pagerank"))]
