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
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, YearTransform
from pyiceberg.types import DateType, IntegerType, LongType, NestedField, PrimitiveType, StringType
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from cluster import batch
from cluster.errors import Conflict, Corrupt, NotFound, Rejected, Unavailable
from cluster.stores.files import disk_errors
from cluster.stores.lake_files import PLACE, PlaceIO
from cluster.stores.lake_positions import Positions, positions_of
from cluster.stores.lake_scan import APPENDED
from cluster.stores.places import FilePlace

NAME = ("intelgraph", "events")
POSITIONS = "intelgraph.positions"
OWNER = "OWNER"
"""A file of a place in S3: the uuid of the one table that lies there."""
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


def open_catalog(place: FilePlace) -> SqlCatalog:
    """The lake's SQL catalog: one SQLite file on this machine. Several processes may open a new one at once.

    Raises:
        Rejected: the folder's name cannot be part of a table location.
    """
    if any(sign in str(place.local) for sign in "?#%"):
        raise Rejected(f"lake folder {place.local}: take a name without '?', '#' and '%'")
    for _ in range(_OPEN_ATTEMPTS - 1):
        with suppress(OperationalError):  # the library looks for its tables, then makes them: another one was faster
            return _catalog(place)
    return _catalog(place)


def _catalog(place: FilePlace) -> SqlCatalog:
    properties: dict[str, Any] = {
        "uri": f"sqlite:///{place.local / 'catalog.db'}",
        "warehouse": place.uri,
        "py-io-impl": f"{PlaceIO.__module__}.{PlaceIO.__name__}",
        PLACE: place,
    }
    catalog = SqlCatalog("lake", **properties)
    event.listen(catalog.engine, "connect", _durably)
    catalog.engine.dispose()  # it has made its tables over a connection that was opened before
    return catalog


def _durably(connection: Any, record: Any) -> None:
    """A commit removes SQLite's journal; by default a power loss may undo that, and the commit with it."""
    connection.execute("PRAGMA synchronous=EXTRA")


def load_table(catalog: SqlCatalog, place: FilePlace, *, create: bool, keep_metadata: int) -> Table:
    """The `events` table, created where it is missing. Safe to call twice.

    Raises:
        NotFound: it is missing and not to be created.
        Rejected: the place in S3 holds another table than the catalog's, whose files would be taken for left-overs.
    """
    try:
        table = _with_times(catalog.load_table(NAME))
    except NoSuchTableError:
        if not create:
            raise NotFound(
                f"there is no lake in {place.local}: start the system once, or name another folder"
            ) from None
        table = _create_table(catalog, place, keep_metadata)
    _claim(place, str(table.metadata.table_uuid))
    return table


def _create_table(catalog: SqlCatalog, place: FilePlace, keep_metadata: int) -> Table:
    if place.is_remote and place.look(OWNER) is not None:
        with suppress(NoSuchTableError):  # another one was faster
            return catalog.load_table(NAME)
        raise Rejected(
            f"lake: {place.uri} holds a lake that catalog.db in {place.local} does not know. If it is this"
            " installation's, restore that file; else choose another prefix"
        )
    with suppress(IntegrityError):  # another one was faster
        catalog.create_namespace_if_not_exists(NAME[0])
    schema = _schema()
    order = SortOrder(*(SortField(schema.find_field(n).field_id, IdentityTransform()) for n in _KEY))
    location, properties = f"{place.uri}/events", _properties(keep_metadata)
    try:
        return catalog.create_table(
            NAME, schema, location=location, partition_spec=_spec(schema), sort_order=order, properties=properties
        )
    except TableAlreadyExistsError:
        return catalog.load_table(NAME)


def _claim(place: FilePlace, table: str) -> None:
    """Says in a place in S3 whose it is, once."""
    if not place.is_remote:
        return
    found = place.look(OWNER)
    if found is None:
        with suppress(Conflict):  # another one was faster
            place.replace(OWNER, table.encode(), None)
            return
        found = place.look(OWNER)
    if found is None or found.data.decode(errors="replace") != table:
        raise Rejected(f"lake: {place.uri} holds the lake of another installation: choose another prefix")


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
