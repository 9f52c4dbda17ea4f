"""Verifying a snapshot: is it, to the byte, what was written, and does it fit together?

Shallow: every file is there with its size and BLAKE3. Deep, on top: rows and columns of every file, the digest of
every slot, all content hashes up to the snapshot's; ids count without gaps, ends of edges exist and lie in one case,
offsets fit the edges, CSC holds the edges of CSR, the joined graph is the join of the cases, and the graph shows what
the registers say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import Corrupt
from cluster.stores.files import blake3_in
from cluster.stores.places import FilePlace
from workloads.snapshot.digest import slots_of
from workloads.snapshot.layout import (
    SCHEMAS,
    SLOT_BUCKETS,
    Dataset,
    Part,
    dataset_hash,
    schema_lines,
    whole_hash,
)
from workloads.snapshot.read import Snapshot, files_of, read_pointer
from workloads.snapshot.verify_graph import graph_problems, shown_problems

PROBLEMS_MAX = 100
"""Problems that one verification names; a damaged snapshot need not be listed to the last row."""


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what is wrong with it: nothing, if `problems` is empty."""

    snapshot: str
    files: int
    bytes: int
    rows: int
    problems: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(snapshot: Snapshot, *, deep: bool = True) -> Verified:
    """Verifies a snapshot; changes nothing. Reads every byte of it, deep verification twice.

    `open_snapshot` has checked the manifest itself already, and raises Corrupt where that is damaged.
    """
    files = files_of(snapshot.manifest)
    problems = list(_file_problems(snapshot))
    if deep and not problems:
        problems += _found(lambda: _content_problems(snapshot))
    if deep and not problems:
        problems += _found(lambda: graph_problems(snapshot))
    if deep and not problems:
        problems += _found(lambda: shown_problems(snapshot))
    sizes = (sum(part.bytes for part in files), sum(part.rows for part in files))
    return Verified(snapshot.id, len(files), *sizes, tuple(problems[:PROBLEMS_MAX]))


def _found(check: Callable[[], Iterator[str]]) -> list[str]:
    try:
        return list(check())
    except Corrupt as error:
        return [str(error)]


def _file_problems(snapshot: Snapshot) -> Iterator[str]:
    pointer = read_pointer(snapshot.home)
    if pointer and pointer.id == snapshot.id and pointer.positions != snapshot.manifest.as_of.positions:
        yield "LATEST and the manifest do not agree about the positions"
    for part in files_of(snapshot.manifest):
        size = snapshot.place.size(part.path)
        if size is None:
            yield f"{part.path}: the file is missing"
        elif size != part.bytes:
            yield f"{part.path}: {size} bytes, not {part.bytes}"
        elif blake3_in(snapshot.place.source(part.path)) != part.blake3:
            yield f"{part.path}: its bytes are not those that were written"


def _content_problems(snapshot: Snapshot) -> Iterator[str]:
    manifest = snapshot.manifest
    if manifest.schemas != {name: schema_lines(schema) for name, schema in SCHEMAS.items()}:
        yield "the manifest's schemas are not those of its format"
    for dataset in manifest.datasets:
        for part in dataset.parts:
            yield from _part_problems(snapshot.place, dataset, part)
        if dataset.rows != sum(part.rows for part in dataset.parts):
            yield f"{dataset.name} {dataset.tenant}: {dataset.rows} rows are not the sum of its files"
        if dataset.content_hash != dataset_hash(dataset.name, dataset.tenant, dataset.parts):
            yield f"{dataset.name} {dataset.tenant}: the content hash is not that of its rows"
    for name in SCHEMAS:
        if manifest.counts.get(name) != sum(d.rows for d in manifest.datasets if d.name == name):
            yield f"{name}: the manifest counts {manifest.counts.get(name)} rows"
    if manifest.content_hash != whole_hash(manifest.datasets):
        yield "the snapshot's content hash is not that of its datasets"


def _part_problems(place: FilePlace, dataset: Dataset, part: Part) -> Iterator[str]:
    schema = SCHEMAS[dataset.name]
    try:
        table = pq.read_table(place.source(part.path))
    except (OSError, pa.ArrowException) as error:
        yield f"{part.path}: cannot be read: {error}"
        return
    if not table.schema.equals(_stored(schema)):
        yield f"{part.path}: its columns are {schema_lines(table.schema)}"
        return
    counted = [(slot.slot, slot.rows) for slot in part.slots]
    if table.num_rows != part.rows or sum(rows for _, rows in counted) != part.rows:
        yield f"{part.path}: {table.num_rows} rows, not {part.rows}"
        return
    if slots_of(table, counted) != part.slots:
        yield f"{part.path}: its rows are not those that were written"
    if "bucket" in schema.names and not _in_slots(pl.Series(table.column("bucket").to_numpy()), counted):
        yield f"{part.path}: rows lie in another slot than the manifest says"


def _stored(schema: pa.Schema) -> pa.Schema:
    """A dataset's columns as Parquet has them: it knows one kind of text."""
    kinds = [pa.string() if pa.types.is_large_string(field.type) else field.type for field in schema]
    return pa.schema([field.with_type(kind) for field, kind in zip(schema, kinds, strict=True)])


def _in_slots(buckets: pl.Series, counted: list[tuple[int, int]]) -> bool:
    runs = (buckets // SLOT_BUCKETS).rle().to_list()
    return [(run["value"], run["len"]) for run in runs] == [(slot, rows) for slot, rows in counted if rows]
