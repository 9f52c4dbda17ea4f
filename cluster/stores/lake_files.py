"""Files of the lake: data files in Parquet, written durably, and a FileIO that makes table metadata durable too.

A commit's data files are fsynced before the table learns of them; manifests, manifest lists and metadata are
fsynced as they are closed, before the catalog's row changes.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    PyArrowFile,
    PyArrowFileIO,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.typedef import Record as PartitionValues

from cluster.stores.files import fsync_folder, make_folder
from cluster.stores.lake_entries import FIRST_YEAR, LakeEntry

__all__ = ["DurableFileIO", "LakeEntry", "local_path", "remove_data_files", "renamed", "write_data_files"]

SCHEME = "file://"
ROW_GROUP_ROWS = 128 << 10
_REPEATING = ["tenant", "case", "bucket", "kind", "op", "type", "a_type", "b_type", "source", "partition", "event_time"]
_STANDING = ["log_generation", "log_partition", "log_number", "event_date", "residency", "appended_ms"]
_DICTIONARY = [*_REPEATING, "claim", *_STANDING]
_STATISTICS = ["tenant", "case", "bucket", "kind", "type", "log_partition", "log_number", "event_date"]


class _DurableStream(io.BufferedWriter):
    """A new file whose bytes and name are durable once it is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("wb", buffering=0))
        self._path = path

    def close(self) -> None:
        if not self.closed:
            self.flush()
            os.fsync(self.fileno())
            super().close()
            fsync_folder(self._path.parent)


class _DurableFile(PyArrowFile):
    """A local file whose output is durable when closed."""

    def create(self, overwrite: bool = False) -> Any:
        path = Path(self._path)
        if not overwrite and path.exists():
            raise FileExistsError(f"{path} exists already")
        make_folder(path.parent)
        return _DurableStream(path)


class DurableFileIO(PyArrowFileIO):
    """pyiceberg's local FileIO, with fsync of everything written."""

    def new_output(self, location: str) -> PyArrowFile:
        scheme, netloc, path = self.parse_location(location, self.properties)
        return _DurableFile(fs=self.fs_by_scheme(scheme, netloc), location=location, path=path)


def local_path(location: str) -> Path:
    """The path of a file that the table names."""
    return Path(location.removeprefix(SCHEME))


def write_data_files(metadata: TableMetadata, frame: pl.DataFrame, parent: int | None) -> list[DataFile]:
    """Writes rows as durable data files, one for each partition of the table that they touch.

    A file's name begins with the table version that its commit starts from (`collect` relies on it).

    Args:
        frame: of `entries_frame`: sorted, with `_year`.

    Raises:
        OSError: of the disk; what was written of the call is removed.
    """
    written: list[DataFile] = []
    try:
        for (year, residency), part in frame.group_by("_year", "residency", maintain_order=True):
            file = _write(metadata, part.drop("_year"), int(year), str(residency), parent)
            written.append(file)
    except BaseException:
        remove_data_files(written)
        raise
    return written


def _write(metadata: TableMetadata, part: pl.DataFrame, year: int, residency: str, parent: int | None) -> DataFile:
    schema = metadata.schema()
    folder = local_path(metadata.location) / "data" / f"event_year={year}" / f"residency={quote(residency, safe='')}"
    make_folder(folder)
    path = folder / f"{parent or 0}-{uuid.uuid4().hex}.parquet"
    arrow_schema = schema_to_pyarrow(schema)
    table = part.select(arrow_schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(arrow_schema)
    collected: list[Any] = []
    try:
        with pq.ParquetWriter(
            path,
            arrow_schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=_DICTIONARY,
            write_statistics=_STATISTICS,
            metadata_collector=collected,
        ) as writer:
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        _fsync(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    fsync_folder(folder)
    return _data_file(metadata, path, collected[0], PartitionValues(year - FIRST_YEAR, residency))


def _fsync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _data_file(metadata: TableMetadata, path: Path, parquet: Any, partition: PartitionValues) -> DataFile:
    schema = metadata.schema()
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=parquet,
        stats_columns=compute_statistics_plan(schema, metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(schema),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"{SCHEME}{path}",
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=path.stat().st_size,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def remove_data_files(files: Sequence[DataFile]) -> None:
    """Removes files that no table version names. Safe to call twice."""
    for file in files:
        local_path(file.file_path).unlink(missing_ok=True)


def renamed(files: list[DataFile], parent: Snapshot | None) -> list[DataFile]:
    """The same files under names that begin with the version that the next attempt starts from."""
    renamed = []
    for file in files:
        path = local_path(file.file_path)
        name = f"{parent.snapshot_id if parent else 0}-{path.name.partition('-')[2]}"
        target = path.with_name(name)
        path.rename(target)
        file[1] = file.file_path.removesuffix(path.name) + name
        renamed.append(file)
    return renamed
