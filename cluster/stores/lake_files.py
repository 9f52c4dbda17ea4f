"""Files of the lake: data files in Parquet, and a FileIO by which the table library keeps its metadata beside them.

A commit's data files are durable before the table learns of them; manifests, manifest lists and metadata are durable
as they are closed, before the catalog's row changes. In S3 that is a PUT that was answered.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote

import polars as pl
import pyarrow.parquet as pq
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.typedef import Record as PartitionValues

from cluster.errors import Corrupt, Unavailable
from cluster.stores.files import Unhashed
from cluster.stores.lake_entries import FIRST_YEAR, LakeEntry
from cluster.stores.places import FilePlace

__all__ = ["LakeEntry", "PlaceIO", "name_in", "place_of", "remove_data_files", "renamed", "write_data_files"]

PLACE = "intelgraph.place"
"""The catalog's property that holds the place: an object, which is written nowhere."""
ROW_GROUP_ROWS = 128 << 10
_REPEATING = ["tenant", "case", "bucket", "kind", "op", "type", "a_type", "b_type", "source", "partition", "event_time"]
_STANDING = ["log_generation", "log_partition", "log_number", "event_date", "residency", "appended_ms"]
_DICTIONARY = [*_REPEATING, "claim", *_STANDING]
_STATISTICS = ["tenant", "case", "bucket", "kind", "type", "log_partition", "log_number", "event_date"]


class _Stream:
    """A new file of table metadata, small; durable, name and all, once it is closed."""

    def __init__(self, place: FilePlace, name: str) -> None:
        self._place, self._name = place, name
        self._parts: list[bytes] = []
        self._bytes = 0
        self._is_open = True

    @property
    def closed(self) -> bool:
        """As of other files."""
        return not self._is_open

    def write(self, b: bytes) -> int:
        """Takes all of it."""
        self._parts.append(bytes(b))
        self._bytes += len(b)
        return len(b)

    def tell(self) -> int:
        """Bytes written."""
        return self._bytes

    def close(self) -> None:
        """Safe to call twice."""
        if self._is_open:
            self._is_open = False
            self._place.write(self._name, b"".join(self._parts))

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_open = self._is_open and error is None
        self.close()


class _File(InputFile, OutputFile):
    """A file of table metadata, by its location."""

    def __init__(self, place: FilePlace, location: str) -> None:
        super().__init__(location)
        self._place, self._name = place, name_in(place, location)

    def __len__(self) -> int:
        size = self._place.size(self._name)
        if size is None:
            raise FileNotFoundError(f"{self.location} is missing")
        return size

    def exists(self) -> bool:
        return self._place.size(self._name) is not None

    def open(self, seekable: bool = True) -> InputStream:
        found = self._place.source(self._name)
        return cast(InputStream, found.open("rb") if isinstance(found, Path) else found)

    def create(self, overwrite: bool = False) -> _Stream:
        if not overwrite and self.exists():
            raise FileExistsError(f"{self.location} exists already")
        return _Stream(self._place, self._name)

    def to_input_file(self) -> _File:
        return self


class PlaceIO(FileIO):
    """The table library's way to the files of a place."""

    def __init__(self, properties: dict[str, Any]) -> None:
        super().__init__(properties)
        self.place: FilePlace = properties[PLACE]

    def new_input(self, location: str) -> _File:
        return _File(self.place, location)

    def new_output(self, location: str) -> _File:
        return _File(self.place, location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Removes a file, if it is there. A file that stays for now is removed by maintenance: OSError says so."""
        try:
            self.place.remove(name_in(self.place, location if isinstance(location, str) else location.location))
        except Unavailable as error:
            raise OSError(str(error)) from error


def place_of(table: Table) -> FilePlace:
    """Where a table's files lie."""
    if not isinstance(table.io, PlaceIO):
        raise TypeError("the table was not opened by `lake_table`")
    return table.io.place


def name_in(place: FilePlace, location: str) -> str:
    """The name of a file that the table names by its location.

    Raises:
        Corrupt: it lies elsewhere.
    """
    if not location.startswith(f"{place.uri}/"):
        raise Corrupt(
            f"lake: its table lies at {location}, not in {place.uri}: move it back, or name the place that it was"
            " made in"
        )
    return location.removeprefix(f"{place.uri}/")


def write_data_files(table: Table, frame: pl.DataFrame, parent: int | None) -> list[DataFile]:
    """Writes rows as durable data files, one for each partition of the table that they touch.

    A file's name begins with the table version that its commit starts from (`collect` relies on it).

    Args:
        frame: of `entries_frame`: sorted, with `_year`.

    Raises:
        OSError: of the disk; what was written of the call is removed.
        Unavailable: of S3; likewise, but for what it does not let go: maintenance removes that.
    """
    written: list[DataFile] = []
    try:
        for (year, residency), part in frame.group_by("_year", "residency", maintain_order=True):
            file = _write(table, part.drop("_year"), int(year), str(residency), parent)
            written.append(file)
    except BaseException:
        remove_data_files(place_of(table), written)
        raise
    return written


def _write(table: Table, part: pl.DataFrame, year: int, residency: str, parent: int | None) -> DataFile:
    metadata, place = table.metadata, place_of(table)
    folder = f"{name_in(place, metadata.location)}/data/event_year={year}/residency={quote(residency, safe='')}"
    name = f"{folder}/{parent or 0}-{uuid.uuid4().hex}.parquet"
    schema = schema_to_pyarrow(metadata.schema())
    rows = part.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
    collected: list[Any] = []
    with place.create(name, Unhashed()) as file:
        with pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=_DICTIONARY,
            write_statistics=_STATISTICS,
            metadata_collector=collected,
        ) as writer:
            writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
        size = file.bytes_written
        file.seal()
        file.publish(name)
    place.sync([name])
    return _data_file(
        metadata, f"{place.uri}/{name}", size, collected[0], PartitionValues(year - FIRST_YEAR, residency)
    )


def _data_file(metadata: TableMetadata, location: str, size: int, parquet: Any, partition: PartitionValues) -> DataFile:
    schema = metadata.schema()
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=parquet,
        stats_columns=compute_statistics_plan(schema, metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(schema),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=size,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def remove_data_files(place: FilePlace, files: Sequence[DataFile]) -> None:
    """Removes files that no table version names; one that stays for now is left to maintenance. Safe to call twice."""
    for file in files:
        with suppress(Unavailable):
            place.remove(name_in(place, file.file_path))


def renamed(place: FilePlace, files: list[DataFile], parent: Snapshot | None) -> list[DataFile]:
    """The same files under names that begin with the version that the next attempt starts from."""
    renamed = []
    for file in files:
        name = name_in(place, file.file_path)
        folder, _, last = name.rpartition("/")
        new = f"{folder}/{parent.snapshot_id if parent else 0}-{last.partition('-')[2]}"
        place.rename(name, new)
        file[1] = f"{place.uri}/{new}"
        renamed.append(file)
    return renamed
