"""Ray Data as planner: it reads Parquet footers and hands out references; partition actors read the bytes themselves.

    column = plan([offsets, neighbours])[1]      footers, over the cluster
    read_rows(column, first, last)               in an actor: only the row groups that hold these rows

Footers are few bytes each, so one operator with few blocks does it; the edges never pass through the object store.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.errors import Corrupt
from cluster.stores.places import FilePlace
from workloads.overlay.input import ColumnFiles

FILES_PER_BLOCK = 64
"""Footers that one task of the plan reads; fewer files than this are planned by one task."""


class RowGroup(NamedTuple):
    """Rows first..first + rows - 1 of an array: row group `group` of a file."""

    path: str
    group: int
    first: int
    rows: int


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """An array that lies in row groups, in order. `place`: as in `ColumnFiles`."""

    column: str
    groups: tuple[RowGroup, ...]
    place: FilePlace | None = None

    @property
    def rows(self) -> int:
        """Length of the array."""
        return self.groups[-1].first + self.groups[-1].rows if self.groups else 0


def plan(columns: Sequence[ColumnFiles]) -> list[PlannedColumn]:
    """Row groups of each array, in order: footers are read by Ray Data on the running cluster.

    Raises:
        Corrupt: a file is missing or no Parquet file, or lacks the column.
    """
    import ray.data

    items = [{"column": at, "path": path} for at, column in enumerate(columns) for path in column.files]
    if not items:
        return [PlannedColumn(column.column, (), column.place) for column in columns]
    blocks = -(-len(items) // FILES_PER_BLOCK)
    wanted = [(column.place, column.column) for column in columns]
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # it tells every step of a plan of milliseconds
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that it shows no progress
    dataset: Any = ray.data.from_items(items, override_num_blocks=blocks)
    dataset.context.enable_progress_bars = False
    found = dataset.map_batches(_footers, batch_size=None, batch_format="pyarrow", fn_kwargs={"wanted": wanted})
    by_path: dict[tuple[int, str], list[int]] = {}
    for row in found.take_all():
        if row["problem"]:
            raise Corrupt(row["problem"])
        by_path[(row["column"], row["path"])] = list(row["rows"])
    return [_in_order(at, column, by_path) for at, column in enumerate(columns)]


def plan_here(columns: Sequence[ColumnFiles]) -> list[PlannedColumn]:
    """`plan` in this process, for graphs of a few files and for readers without a cluster."""
    planned = []
    for at, column in enumerate(columns):
        rows = {(at, path): _rows_of(column.place, path, column.column) for path in column.files}
        planned.append(_in_order(at, column, rows))
    return planned


def read_rows(column: PlannedColumn, first: int, last: int) -> NDArray[Any]:
    """Rows first..last-1 of an array; reads the row groups that hold them, on one thread.

    Raises:
        Corrupt: the files hold fewer rows, a null, or cannot be decoded.
    """
    if not 0 <= first <= last <= column.rows:
        raise Corrupt(f"{column.column}: rows {first} to {last} of {column.rows}; verify the snapshot")
    pieces: list[NDArray[Any]] = []
    for path, groups in _by_file([g for g in column.groups if g.first < last and g.first + g.rows > first]):
        values = _read(column.place, path, column.column, [part.group for part in groups])
        start = groups[0].first
        pieces.append(values[max(0, first - start) : last - start])
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def _by_file(groups: Sequence[RowGroup]) -> list[tuple[str, list[RowGroup]]]:
    files: list[tuple[str, list[RowGroup]]] = []
    for group in groups:
        if not files or files[-1][0] != group.path:
            files.append((group.path, []))
        files[-1][1].append(group)
    return files


def _ranges(place: FilePlace | None, path: str) -> str | Path | BinaryIO:
    return path if place is None else place.ranges(path)


def _read(place: FilePlace | None, path: str, column: str, indexes: list[int]) -> NDArray[Any]:
    try:
        with pq.ParquetFile(_ranges(place, path), memory_map=True) as file:
            values = file.read_row_groups(indexes, columns=[column], use_threads=False).column(0)
    except (OSError, pa.ArrowInvalid) as error:
        raise Corrupt(f"{Path(path).name}: {error}; verify the snapshot and take a new one") from error
    if values.null_count:
        raise Corrupt(f"{Path(path).name}: {column} holds nulls; verify the snapshot and take a new one")
    found: NDArray[Any] = values.to_numpy()
    return found


def _footers(batch: pa.Table, wanted: list[tuple[FilePlace | None, str]]) -> pa.Table:
    """One row a file: rows of its row groups, or what is wrong with it."""
    rows: list[list[int]] = []
    problems: list[str] = []
    for at, path in zip(batch["column"].to_pylist(), batch["path"].to_pylist(), strict=True):
        try:
            rows.append(_rows_of(wanted[at][0], path, wanted[at][1]))
            problems.append("")
        except Corrupt as error:
            rows.append([])
            problems.append(str(error))
    columns = {"rows": pa.array(rows, pa.list_(pa.int64())), "problem": pa.array(problems, pa.string())}
    return pa.table({"column": batch["column"], "path": batch["path"], **columns})


def _rows_of(place: FilePlace | None, path: str, column: str) -> list[int]:
    try:
        footer = pq.read_metadata(_ranges(place, path))
    except (OSError, pa.ArrowInvalid) as error:
        raise Corrupt(f"{Path(path).name}: {error}; verify the snapshot and take a new one") from error
    if column not in footer.schema.to_arrow_schema().names:
        raise Corrupt(f"{Path(path).name} has no column {column}; verify the snapshot and take a new one")
    return [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]


def _in_order(at: int, column: ColumnFiles, rows: dict[tuple[int, str], list[int]]) -> PlannedColumn:
    groups: list[RowGroup] = []
    first = 0
    for path in column.files:
        for index, count in enumerate(rows[(at, path)]):
            groups.append(RowGroup(path, index, first, count))
            first += count
    return PlannedColumn(column.column, tuple(groups), column.place)
