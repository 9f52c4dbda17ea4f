"""Row groups: any division of an array into files and groups reads back as the array."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Corrupt
from workloads.overlay.input import ColumnFiles
from workloads.overlay.row_groups import plan, plan_here, read_rows


def write(folder: Path, lengths: list[int], group: int) -> ColumnFiles:
    first, paths = 0, []
    for number, length in enumerate(lengths):
        path = folder / f"{number}.parquet"
        values = pa.array(range(first, first + length), pa.int64())
        pq.write_table(pa.table({"value": values, "other": values}), path, row_group_size=group)
        first += length
        paths.append(str(path))
    return ColumnFiles("value", tuple(paths))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 5), st.data())
def test_any_slice_of_any_division(lengths: list[int], group: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        column = plan_here([write(Path(folder), lengths, group)])[0]
        assert column.rows == sum(lengths)
        first = data.draw(st.integers(0, column.rows))
        last = data.draw(st.integers(first, column.rows))
        assert read_rows(column, first, last).tolist() == list(range(first, last))


def test_reads_only_the_groups_that_it_needs(tmp_path: Path) -> None:
    files = write(tmp_path, [10, 10], 5)
    column = plan_here([files])[0]
    Path(files.files[1]).unlink()
    assert read_rows(column, 3, 10).tolist() == list(range(3, 10))
    with pytest.raises(Corrupt, match=r"1\.parquet"):
        read_rows(column, 3, 11)


@pytest.mark.services
def test_the_cluster_plans_what_this_process_plans(ray_node: None, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    columns = [write(tmp_path / "a", [7, 0, 3], 2), ColumnFiles("none", ()), write(tmp_path / "b", [4], 9)]
    assert plan(columns) == plan_here(columns)
    assert plan([]) == []


@pytest.mark.services
def test_bad_files_are_named(ray_node: None, tmp_path: Path) -> None:
    files = write(tmp_path, [4, 4], 2)
    missing = ColumnFiles("value", (*files.files, str(tmp_path / "gone.parquet")))
    (tmp_path / "cut.parquet").write_bytes(Path(files.files[0]).read_bytes()[:-9])
    cut = ColumnFiles("value", (str(tmp_path / "cut.parquet"),))
    wrong = ColumnFiles("absent", files.files)
    for column, named in ((missing, "gone.parquet"), (cut, "cut.parquet"), (wrong, "absent")):
        with pytest.raises(Corrupt, match=named):
            plan([column])
        with pytest.raises(Corrupt, match=named):
            plan_here([column])


def test_nulls_and_missing_rows_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"value": pa.array([1, None], pa.int64())}), tmp_path / "nulls.parquet")
    column = plan_here([ColumnFiles("value", (str(tmp_path / "nulls.parquet"),))])[0]
    with pytest.raises(Corrupt, match="nulls"):
        read_rows(column, 0, 2)
    with pytest.raises(Corrupt, match="of 2"):
        read_rows(column, 0, 3)


def test_values_are_those_of_the_file_after_many_groups(tmp_path: Path) -> None:
    column = plan_here([write(tmp_path, [1000, 1000], 7)])[0]
    assert np.array_equal(read_rows(column, 500, 1500), np.arange(500, 1500))
