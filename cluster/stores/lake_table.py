"""The `events` table: its columns, its partitions, its catalog, and errors of the library as ours.

Columns are those of `cluster.batch.SCHEMA`, then where the row stands in the log (generation, partition, number of
the entry, row in it), `event_date` (the date that the source wrote; 1970-01-01 where it gave none), `residency`, and
`appended_ms` (when the entry was appended to the log; nothing where an earlier version of this software took it in).

Partitioned by the year of `event_date` and by residency, sorted by tenant and key. By year, not by day: a source's
whole history arrives at once (the public change history that we test with has thousands of dates), and a commit
writes one file for each partition that it touches. 130 years bound the files of a commit; within a file, statistics of
`event_date` still let other engines skip.

Every commit carries the whole map of positions in its summary, and names the version it starts from: the catalog
refuses it if that is no longer the current one. The library's own retries are off, since they would land a batch
twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, YearTransform
from pyiceberg.types import DateType, IntegerType, LongType, NestedField, PrimitiveType, StringType
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from cluster import batch
from cluster.errors import Conflict, Corrupt, NotFound, Rejected, Unavailable
from cluster.stores.files import disk_errors, make_folder
from cluster.stores.lake_files import SCHEME, DurableFileIO
from cluster.stores.lake_positions import Positions, positions_of
from cluster.stores.lake_scan import APPENDED

NAME = ("intelgraph", "events")
POSITIONS = "intelgraph.positions"
_OPEN_ATTEMPTS = 4
_KEY = ("tenant", "case", "kind", "type", "id")
_OWN: dict[str, PrimitiveType] = {
    "log_generation": IntegerType(),
    "log_partition": IntegerType(),
    "log_number": LongType(),
    "row": IntegerType(),
    "event_date": DateType(),
    "residency": StringType(),
    APPENDED: LongType(),
}


def _columns() -> dict[str, PrimitiveType]:
    records = {f.name: StringType() if str(f.type) == "string" else IntegerType() for f in batch.SCHEMA}
    return {**records, **_OWN}


COLUMNS = tuple(_columns())


def _schema() -> Schema:
    fields = enumerate(_columns().items(), 1)
    return Schema(*(NestedField(number, name, kind, required=name != APPENDED) for number, (name, kind) in fields))


def _spec(schema: Schema) -> PartitionSpec:
    date, residency = schema.find_field("event_date").field_id, schema.find_field("residency").field_id
    return PartitionSpec(
        PartitionField(date, 1000, YearTransform(), "event_year"),
        PartitionField(residency, 1001, IdentityTransform(), "residency"),
    )


def _properties(keep_metadata: int) -> dict[str, str]:
    counted = ("tenant", "case", "bucket", "kind", "type", "log_partition", "log_number", "event_date")
    return {
        "format-version": "2",
        "commit.retry.num-retries": "0",
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": str(keep_metadata),
        "write.metadata.metrics.default": "none",
        **{f"write.metadata.metrics.column.{name}": "truncate(16)" for name in counted},
    }


def open_catalog(folder: Path) -> SqlCatalog:
    """The lake's SQL catalog: one SQLite file beside the table. Several processes may open a new one at once.

    Raises:
        Rejected: the folder's name cannot be part of a table location.
    """
    if any(sign in str(folder) for sign in "?#%"):
        raise Rejected(f"lake folder {folder}: take a name without '?', '#' and '%'")
    for _ in range(_OPEN_ATTEMPTS - 1):
        with suppress(OperationalError):  # the library looks for its tables, then makes them: another one was faster
            return _catalog(folder)
    return _catalog(folder)


def _catalog(folder: Path) -> SqlCatalog:
    implementation = f"{DurableFileIO.__module__}.{DurableFileIO.__name__}"
    return SqlCatalog(
        "lake",
        **{
            "uri": f"sqlite:///{folder / 'catalog.db'}",
            "warehouse": f"{SCHEME}{folder}",
            "py-io-impl": implementation,
        },
    )


def load_table(catalog: SqlCatalog, folder: Path, *, create: bool, keep_metadata: int) -> Table:
    """The `events` table, created where it is missing. Safe to call twice.

    Raises:
        NotFound: it is missing and not to be created.
    """
    try:
        return _with_times(catalog.load_table(NAME))
    except NoSuchTableError:
        if not create:
            raise NotFound(f"there is no lake in {folder}: start the system once, or name another folder") from None
    make_folder(folder / "events")
    with suppress(IntegrityError):  # another one was faster
        catalog.create_namespace_if_not_exists(NAME[0])
    schema = _schema()
    order = SortOrder(*(SortField(schema.find_field(n).field_id, IdentityTransform()) for n in _KEY))
    location, properties = f"{SCHEME}{folder / 'events'}", _properties(keep_metadata)
    try:
        return catalog.create_table(
            NAME, schema, location=location, partition_spec=_spec(schema), sort_order=order, properties=properties
        )
    except TableAlreadyExistsError:
        return catalog.load_table(NAME)


def _with_times(table: Table) -> Table:
    """The table, which knows from now on when entries were appended. It moves no position."""
    if APPENDED in table.schema().column_names:
        return table
    # another one was faster, or an append was: then the next opening does it
    with suppress(CommitFailedException), table.update_schema() as update:
        update.add_column(APPENDED, LongType())
    table.refresh()
    return table


def positions_in(version: Snapshot | None) -> Positions:
    """The map of positions that a table version carries; the empty one where there is no version yet.

    Raises:
        Corrupt: the version was not committed by us.
    """
    if version is None:
        return Positions()
    text = version.summary.get(POSITIONS) if version.summary else None
    if text is None:
        raise Corrupt(
            f"lake: table version {version.snapshot_id} carries no positions, so another program wrote it."
            " Roll the table back to the version before"
        )
    return positions_of(text)


@contextmanager
def library_errors(what: str, folder: Path) -> Iterator[None]:
    """Translates errors of the table library, its catalog and the disk."""
    try:
        with disk_errors(f"lake: {what}", folder):
            yield
    except CommitFailedException as error:
        raise Conflict(f"lake: {what}: the table has moved on; read its positions again", 0.1) from error
    except DBAPIError as error:
        raise _catalog_error(what, folder, error) from error


def _catalog_error(what: str, folder: Path, error: DBAPIError) -> Exception:
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return Unavailable(f"lake: {what}: the catalog is busy; try again", 0.2)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return Unavailable(
            f"lake: {what}: the catalog in {folder} cannot be written ({error.orig}). Free space there and check the"
            " device; it goes on by itself",
            retry_after_s=5.0,
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(f"lake: {what}: catalog.db in {folder} is damaged ({error.orig}); restore it")
    return error
