"""The steps of a snapshot for one range of buckets or one tenant: plain functions of tasks that can be pickled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from cluster.fold import Priorities
from cluster.model import Kind
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.lake_address import LakeAddress
from cluster.stores.lake_positions import Positions
from cluster.stores.lake_wanted import Wanted
from cluster.stores.places import FilePlace, StoredFile
from workloads.snapshot import joined
from workloads.snapshot.fold import COLUMNS, Rules, fold_in_pieces, fold_registers
from workloads.snapshot.graph import Base, Share, blocks, shares
from workloads.snapshot.keys import categories
from workloads.snapshot.layout import SCHEMAS, SLOT_BUCKETS
from workloads.snapshot.parts import PART_ROWS, Output, Written, rows_by_slot, write_parts
from workloads.snapshot.pieces import together
from workloads.snapshot.read import read_part
from workloads.snapshot.visible import Visible, visible_of

PIECE_ROWS = PART_ROWS
"""Registers that are looked at together, about: bounds what a unit needs beside its records."""
PIECES_WRITTEN = 2
"""Pieces that are written at a time, while the next one is looked at."""


@dataclass(frozen=True)
class FoldTask:
    """Fold a range of buckets.

    Args:
        root: the new snapshot's place.
        slots: first and last slot.
        version, after, newer_than: the pinned table version, and what the previous snapshot has of it.
        previous: its register files.
        keep_visible: hand on what is visible in memory, instead of reading the registers again.
    """

    lake: LakeAddress
    root: FilePlace
    slots: tuple[int, int]
    version: int | None
    after: Positions
    newer_than: int
    previous: tuple[StoredFile, ...]
    rules: Rules
    keep_visible: bool
    failpoint: Failpoint = no_failpoint


@dataclass(frozen=True)
class Unit:
    """A folded range of buckets."""

    registers: tuple[Written, ...]
    shares: dict[str, Share]
    visible: Visible | None = field(repr=False, default=None)


@dataclass(frozen=True)
class GraphTask:
    """Number and write the graph of a folded range. `visible`: where it is at hand."""

    root: FilePlace
    registers: tuple[StoredFile, ...]
    priorities: Priorities
    base: dict[str, Base]
    visible: Visible | None = field(repr=False, default=None)
    failpoint: Failpoint = no_failpoint


@dataclass(frozen=True)
class JoinTask:
    """Join one tenant's cases, from the files of its graph."""

    root: FilePlace
    tenant: str
    first_vertex: int
    vertices: tuple[StoredFile, ...]
    edges: tuple[StoredFile, ...]
    failpoint: Failpoint = no_failpoint


def fold_unit(task: FoldTask) -> Unit:
    """Registers of a range of buckets, written; safe to call twice."""
    buckets = (task.slots[0] * SLOT_BUCKETS, (task.slots[1] + 1) * SLOT_BUCKETS - 1)
    folded = fold_in_pieces(_previous(task, buckets), _events(task, buckets), task.rules.floors, PIECE_ROWS)
    writing, pieces = [], []
    with ThreadPoolExecutor(PIECES_WRITTEN) as beside:
        for registers in folded:
            outputs = [Output("registers", "", registers, rows_by_slot(registers["bucket"]))]
            writing.append(beside.submit(write_parts, task.root, outputs, task.failpoint))
            pieces.append(visible_of(registers, task.rules.priorities))
        written = tuple(part for piece in writing for part in piece.result())
    visible = together(pieces)
    return Unit(written, shares(visible), visible if task.keep_visible else None)


def _previous(task: FoldTask, buckets: tuple[int, int]) -> pl.DataFrame:
    wanted = pl.col("bucket").is_between(*buckets)
    frames = [read_part(file, None).filter(wanted) for file in task.previous]
    return pl.concat([_no_registers(), *frames])


def _events(task: FoldTask, buckets: tuple[int, int]) -> pl.DataFrame:
    if task.version is None:
        return _no_registers()
    wanted = Wanted(after=task.after, buckets=buckets, most_kind=int(Kind.CLAIM))
    with task.lake.open() as lake:
        return lake.events(wanted, COLUMNS, task.version, task.newer_than, categories())


def _no_registers() -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(SCHEMAS["registers"].empty_table()))


def graph_unit(task: GraphTask) -> list[Written]:
    """Vertices, edges, offsets and claims of a range of buckets, written; safe to call twice."""
    visible = task.visible if task.visible is not None else _read_visible(task)
    return write_parts(task.root, blocks(visible, task.base), task.failpoint)


def _read_visible(task: GraphTask) -> Visible:
    registers = pl.concat([_no_registers(), *(read_part(file, None) for file in task.registers)])
    return visible_of(fold_registers(registers, _no_registers(), Rules.none().floors), task.priorities)


def join_tenant(task: JoinTask) -> list[Written]:
    """The joined graph of a tenant, written; safe to call twice."""
    vertices = _columns(task.vertices, "vertices", ["type", "id"])
    ends = _columns(task.edges, "edges", ["src", "dst"])
    src, dst = (ends[name].to_numpy().astype(np.int64) - task.first_vertex for name in ("src", "dst"))
    found = joined.join_cases(vertices, src, dst, lambda: _columns(task.edges, "edges", ["type", "id"]))
    return write_parts(task.root, joined.outputs(task.tenant, found), task.failpoint)


def _columns(files: tuple[StoredFile, ...], dataset: str, names: list[str]) -> pl.DataFrame:
    empty = pl.DataFrame(pl.from_arrow(SCHEMAS[dataset].empty_table())).select(names)
    return pl.concat([empty, *(read_part(file, names) for file in files)])
