"""The lake: the event log kept for good, as the Iceberg table `events`, on this machine's disk or in S3.

    Lake.open(folder) ─► positions() ─► append(entries, parent) ─► …         one appender, leased
                      ─► read(…), entries(…), events(…)                       anybody
                      ─► pin(owner) … unpin(pin)                              a version that must not expire
                      ─► maintain(now)                                        the appender, now and then

Every table version says up to which log positions it is complete. A commit is refused unless its parent's map of
positions is the one that it started from, so whatever a stale appender writes lands nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType

import polars as pl
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from cluster.config import LakeSettings
from cluster.errors import Conflict, Corrupt, NotFound
from cluster.stores import lake_maintenance, lake_read
from cluster.stores.files import Failpoint, make_folder, no_failpoint
from cluster.stores.lake_address import LakeAddress, Pin
from cluster.stores.lake_entries import LakeEntry, continued, entries_frame
from cluster.stores.lake_files import place_of, remove_data_files, renamed, write_data_files
from cluster.stores.lake_positions import PartitionPosition, Positions
from cluster.stores.lake_table import POSITIONS, library_errors, load_table, open_catalog, positions_in
from cluster.stores.lake_wanted import Wanted
from cluster.stores.places import open_place

__all__ = ["Lake", "LakeEntry", "PartitionPosition", "Positions"]

DEFAULT_RESIDENCY = "default"
COMMIT_ATTEMPTS = 4
"""A commit that loses to compaction or a pin, which move no position, is tried again this often in all."""


class Lake:
    """The `events` table, its catalog in `folder`. One thread uses an instance at a time; processes open their own."""

    def __init__(
        self,
        folder: Path,
        catalog: SqlCatalog,
        table: Table,
        settings: LakeSettings,
        residency_of: Callable[[str], str],
        failpoint: Failpoint,
    ) -> None:
        self.folder = folder
        self._catalog = catalog
        self._table = table
        self._settings = settings
        self._residency_of = residency_of
        self._failpoint = failpoint
        self._unreferenced = lake_maintenance.Unreferenced()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        create: bool = True,
        settings: LakeSettings = LakeSettings(),
        residency_of: Callable[[str], str] = lambda tenant: DEFAULT_RESIDENCY,
        failpoint: Failpoint = no_failpoint,
    ) -> Lake:
        """Opens the lake in a folder, or creates it.

        Args:
            settings: name the place in S3 where its files lie, if they do.
            residency_of: where a tenant's data may live; a partition of the table.

        Raises:
            NotFound: there is no lake and `create` is false.
            Rejected: the place in S3 is another lake's.
            Unavailable: the disk is full, the catalog busy, or S3 does not answer.
        """
        folder = folder.resolve()
        if not create and not (folder / "catalog.db").exists():
            raise NotFound(f"there is no lake in {folder}: start the system once, or name another folder")
        with library_errors("open", folder):
            make_folder(folder)
            place = open_place(settings, folder)
            catalog = open_catalog(place)
            table = load_table(catalog, place, create=create, keep_metadata=settings.keep_metadata)
        return cls(folder, catalog, table, settings, residency_of, failpoint)

    def close(self) -> None:
        """Closes the catalog's connections. Safe to call twice."""
        self._catalog.close()

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> LakeAddress:
        """Where it is."""
        return LakeAddress(self.folder, self._settings)

    def version(self) -> int | None:
        """The newest table version; None while nothing was appended. Blocks; safe to call twice."""
        current = self._refreshed()
        return current.snapshot_id if current else None

    def positions(self, at_version: int | None = None) -> Positions:
        """Up to which log positions the newest version, or the one named, is complete."""
        return positions_in(self._version(at_version))

    def sequence(self, at_version: int | None) -> int:
        """The sequence number of a version: commits count it up. 0 where there is none."""
        found = self._version(at_version)
        return (found.sequence_number or 0) if found else 0

    def append(self, entries: Sequence[LakeEntry], parent: Positions) -> Positions:
        """Appends entries of the log in one commit, durable when this returns.

        Args:
            entries: those of a partition in order; they continue the parent's numbers without gaps.
            parent: the positions that the lake has, as the caller knows them; the first names the log.

        Returns:
            the positions that the lake has now.

        Raises:
            Corrupt: an entry does not follow the one before, or is of another log.
            Conflict: the lake's positions are not `parent`: somebody else appended. Nothing was written.
            Unavailable: disk full, catalog busy, no answer from S3; nothing was written, or `positions` says all was.
        """
        reached = continued(parent, entries)
        if not entries:
            return parent
        with library_errors("append", self.folder):
            current = self._at(parent)
            frame = entries_frame(entries, parent.generation, self._residency_of)
            self._failpoint("lake.data")
            parent_version = current.snapshot_id if current else None
            files = write_data_files(self._table, frame, parent_version)
            self._land(files, parent, reached)
        return reached

    def begin_generation(self, log: str, generation: int) -> Positions:
        """Go on in another generation of the log, from the same numbers; returns the positions.

        An append that started from the positions before is refused from then on: what it has may be lost in the log.
        An empty lake gets the mark, too.

        Args:
            log: the log's own name.

        Raises:
            Conflict: somebody else appended just now; nothing was written.
        """
        parent = positions_in(self._refreshed())
        if parent.generation != generation:
            with library_errors("generation", self.folder):
                self._commit([], replace(parent, log=parent.log or log, generation=generation))
        return positions_in(self._refreshed())

    def _at(self, parent: Positions, *, refresh: bool = False) -> Snapshot | None:
        current = self._refreshed() if refresh else self._table.current_snapshot()
        if _same(positions_in(current), parent):
            return current
        current = self._refreshed()
        if not _same(positions_in(current), parent):
            raise Conflict(
                "lake: its positions are not those that this append starts from: somebody else appended."
                " Read the positions again and go on from there",
                retry_after_s=0.1,
            )
        return current

    def _land(self, files: list[DataFile], parent: Positions, reached: Positions) -> None:
        for attempt in range(COMMIT_ATTEMPTS):
            self._failpoint("lake.commit")
            try:
                with library_errors("append", self.folder):
                    self._commit(files, reached)
                return
            except Conflict:
                if attempt == COMMIT_ATTEMPTS - 1:
                    remove_data_files(place_of(self._table), files)
                    raise
            try:
                files = renamed(place_of(self._table), files, self._at(parent, refresh=True))
            except Conflict:
                remove_data_files(place_of(self._table), files)
                raise

    def _commit(self, files: list[DataFile], reached: Positions) -> None:
        transaction = self._table.transaction()
        with transaction.update_snapshot(snapshot_properties={POSITIONS: reached.as_text()}).fast_append() as append:
            for file in files:
                append.append_data_file(file)
        transaction.commit_transaction()

    def events(
        self,
        wanted: Wanted,
        columns: Sequence[str],
        at_version: int | None,
        newer_than: int = 0,
        dtypes: Mapping[str, pl.DataType] = MappingProxyType({}),
    ) -> pl.DataFrame:
        """Wanted rows of a version, in no particular order, all in memory.

        Args:
            newer_than: sequence number of a version whose rows are not wanted (`sequence`).
            dtypes: what columns are to be, such as `pl.Categorical` where a column has few values.

        Raises:
            Corrupt: a data file is missing or damaged.
        """
        return lake_read.events(self._table, self._version(at_version), wanted, columns, newer_than, dtypes)

    def read(
        self,
        *,
        partition: int | None = None,
        after: int | None = None,
        upto: int | None = None,
        buckets: tuple[int, int] | None = None,
        tenant: str | None = None,
        source: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        at_version: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows in the columns of `lake_read.READ_SCHEMA`; in log order where a partition is named.

        Args:
            after, upto: entry numbers of the partition: after+1 … upto.
            buckets: lowest and highest, both included; floors and priorities are of every bucket.
            since_ms, until_ms: see `Wanted`.

        Memory is bounded by `lake_read.WINDOW_ROWS` rows, or one entry where that is larger.

        Raises:
            ValueError: `after` or `upto` without a partition.
            Corrupt: a data file is missing: the version has expired, or the disk lost it.
        """
        if partition is None and (after is not None or upto is not None):
            raise ValueError("numbers count the entries of one partition: name it")
        first = None if after is None else after + 1
        wanted = Wanted(None, partition, first, upto, buckets, tenant, source, since_ms=since_ms, until_ms=until_ms)
        return lake_read.batches(self._table, self._version(at_version), wanted)

    def entries(
        self, partition: int, after: int, upto: int | None = None, buckets: tuple[int, int] | None = None
    ) -> Iterator[LakeEntry]:
        """Entries after+1 … upto (None: all that the lake has) as they were in the log, for a reader that heals.

        Every number comes once, in order; with `buckets`, an entry that holds nothing of them comes empty.

        Raises:
            Corrupt: the lake does not reach `upto`, or a data file is missing.
        """
        version = self._refreshed()
        end = positions_in(version).of(partition).number
        if upto is not None and upto > end:
            raise Corrupt(f"lake: partition {partition} is kept up to entry {end}, not {upto}; wait for the appender")
        last = end if upto is None else upto
        wanted = Wanted(partition=partition, first=after + 1, last=last, buckets=buckets)
        return lake_read.entries(self._table, version, wanted)

    def pin(self, owner: str, now_s: float) -> Pin:
        """Holds the newest version until `unpin`, or until `maintain` finds the pin older than a day.

        Args:
            owner: letters, digits, `-` and `_`; one owner holds one version at a time.
            now_s: seconds since 1970.
        """
        return Pin(*lake_maintenance.pin(self._table, self.folder, owner, now_s))

    def unpin(self, pin: Pin) -> None:
        """Lets a version go. Safe to call twice."""
        lake_maintenance.unpin(self._table, self.folder, pin.name)

    def maintain(self, now_s: float) -> lake_maintenance.Maintained:
        """Compacts small files, expires old versions, removes files that no version can name. Safe to call twice.

        It moves no position, and is refused like any other commit where another was faster (then it does nothing).

        Args:
            now_s: seconds since 1970; only pins are judged by it.
        """
        return lake_maintenance.maintain(self._table, self.folder, self._settings, self._unreferenced, now_s)

    def _refreshed(self) -> Snapshot | None:
        with library_errors("read", self.folder):
            self._table.refresh()
        return self._table.current_snapshot()

    def _version(self, version: int | None) -> Snapshot | None:
        if version is None:
            return self._refreshed()
        found = self._table.snapshot_by_id(version)
        if found is None:
            self._refreshed()
            found = self._table.snapshot_by_id(version)
        if found is None:
            raise NotFound(f"lake: table version {version} has expired; read at the newest one")
        return found


def _same(have: Positions, parent: Positions) -> bool:
    """Whether the lake stands where an append starts from; an empty one that no generation has marked takes any."""
    return have == parent or (have.is_empty and parent.is_empty and have.generation in (0, parent.generation))
