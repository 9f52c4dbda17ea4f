"""Keeping the lake quick: small files become few, old versions expire, files that no version names are removed.

A file may be unreferenced because a version expired, or because a commit is still on its way. A commit lands only
if the table's version is the one that it started from. So a file that was there and unreferenced while the table
stood at one version can never be named any more once the table stands at another: only then is it removed. No
clock decides it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import polars as pl
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from cluster.config import LakeSettings
from cluster.errors import Rejected
from cluster.stores.lake_files import name_in, place_of, remove_data_files, write_data_files
from cluster.stores.lake_scan import manifest_entries, read_rows
from cluster.stores.lake_table import COLUMNS, POSITIONS, library_errors, positions_in
from cluster.stores.lake_wanted import Wanted

PIN_PREFIX = "pin."
PIN_MAX_AGE_S = 86_400.0
TARGET_FILE_BYTES = 128 << 20
COMPACT_BYTES = 256 << 20
"""Most bytes of data files that one compaction reads: bounds its memory and time."""
_OWNER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TAG_ATTEMPTS = 5


@dataclass
class Unreferenced:
    """Files that no version named when the table stood at `version`."""

    version: int | None = None
    files: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Maintained:
    """What one maintenance did."""

    files_compacted: int = 0
    versions_expired: int = 0
    pins_dropped: int = 0
    files_removed: int = 0


def pin(table: Table, folder: Path, owner: str, now_s: float) -> tuple[str, int | None]:
    """Tags the newest version; returns the tag's name and the version."""
    if not _OWNER.fullmatch(owner):
        raise Rejected(f"pin owner {owner!r}: 1 to 64 letters, digits, '-' and '_'")
    name = f"{PIN_PREFIX}{owner}.{int(now_s)}"
    for attempt in range(_TAG_ATTEMPTS):
        with library_errors("pin", folder):
            table.refresh()
            current = table.current_snapshot()
            if current is None:
                return name, None
            try:
                table.manage_snapshots().create_tag(current.snapshot_id, name).commit()
                return name, current.snapshot_id
            except CommitFailedException:
                if attempt == _TAG_ATTEMPTS - 1:
                    raise
    raise AssertionError("unreachable")


def unpin(table: Table, folder: Path, name: str) -> None:
    """Removes a tag, if it is there."""
    for attempt in range(_TAG_ATTEMPTS):
        with library_errors("unpin", folder):
            table.refresh()
            if name not in table.metadata.refs:
                return
            try:
                table.manage_snapshots().remove_tag(name).commit()
                return
            except CommitFailedException:
                if attempt == _TAG_ATTEMPTS - 1:
                    raise


def maintain(
    table: Table, folder: Path, settings: LakeSettings, unreferenced: Unreferenced, now_s: float
) -> Maintained:
    """One round of maintenance; `unreferenced` carries what this round saw to the next."""
    with library_errors("maintain", folder):
        table.refresh()
        if table.current_snapshot() is None:
            return Maintained()
        compacted = _compact(table, settings.compact_files)
        dropped = _drop_old_pins(table, folder, now_s)
        expired = _expire(table, settings.keep_metadata)
        removed = _collect(table, unreferenced)
    return Maintained(compacted, expired, dropped, removed)


def _compact(table: Table, most_files: int) -> int:
    version = table.current_snapshot()
    if version is None:
        return 0
    live = [entry.data_file for entry in manifest_entries(table, version)]
    if len(live) <= most_files:
        return 0
    chosen = list(_small(live))
    if len(chosen) < 2:
        return 0
    written: list[DataFile] = []
    try:
        for group in _by_partition(chosen):
            written += _merged(table, group, version)
        _replace(table, chosen, written, version)
    except CommitFailedException:
        remove_data_files(place_of(table), written)
        table.refresh()
        return 0
    return len(chosen)


def _small(live: list[DataFile]) -> Iterator[DataFile]:
    budget = COMPACT_BYTES
    shared = [group for group in _by_partition(live) if len(group) > 1]
    for group in sorted(shared, key=len, reverse=True):
        for file in group:
            budget -= file.file_size_in_bytes
            if budget < 0:
                return
            yield file


def _by_partition(files: list[DataFile]) -> list[list[DataFile]]:
    groups: dict[tuple[int, str], list[DataFile]] = {}
    for file in files:
        if file.file_size_in_bytes < TARGET_FILE_BYTES // 2:
            groups.setdefault((file.partition[0], file.partition[1]), []).append(file)
    return list(groups.values())


def _merged(table: Table, group: list[DataFile], version: Snapshot) -> list[DataFile]:
    place = place_of(table)
    rows = read_rows(place, [name_in(place, file.file_path) for file in group], Wanted(), COLUMNS)
    if rows is None:
        return []
    order = pl.col("event_date").dt.year().alias("_year")
    frame = rows.with_columns(order).sort("_year", "residency", "tenant", "case", "kind", "type", "id")
    return write_data_files(table, frame, version.snapshot_id)


def _replace(table: Table, old: list[DataFile], new: list[DataFile], version: Snapshot) -> None:
    transaction = table.transaction()
    summary = {POSITIONS: positions_in(version).as_text()}
    with transaction.update_snapshot(snapshot_properties=summary).overwrite() as overwrite:
        for file in old:
            overwrite.delete_data_file(file)
        for file in new:
            overwrite.append_data_file(file)
    transaction.commit_transaction()


def _drop_old_pins(table: Table, folder: Path, now_s: float) -> int:
    old = [name for name in table.metadata.refs if _pinned_at(name, now_s) < now_s - PIN_MAX_AGE_S]
    for name in old:
        unpin(table, folder, name)
    return len(old)


def _pinned_at(name: str, now_s: float) -> float:
    text = name.rpartition(".")[2]
    return float(text) if name.startswith(PIN_PREFIX) and text.isdigit() else now_s


def _expire(table: Table, keep: int) -> int:
    current = table.current_snapshot()
    kept = {version.snapshot_id for version in islice(ancestors_of(current, table.metadata), keep)}
    kept |= {ref.snapshot_id for ref in table.metadata.refs.values()}
    old = [version.snapshot_id for version in table.metadata.snapshots if version.snapshot_id not in kept]
    if old:
        try:
            table.maintenance.expire_snapshots().by_ids(old).commit()
        except CommitFailedException:
            table.refresh()
            return 0
    return len(old)


def _collect(table: Table, unreferenced: Unreferenced) -> int:
    place = place_of(table)
    own = name_in(place, table.location())
    there = {f"{own}/{name}" for name in place.within(own).names()}
    table.refresh()  # after the listing: a commit that has one of these files started from this version or before it
    current = table.current_snapshot()
    version = current.snapshot_id if current else None
    spare = there - _referenced(table)
    removable = unreferenced.files & spare if version != unreferenced.version else frozenset()
    for name in removable:
        place.remove(name)
    if version != unreferenced.version:
        unreferenced.version, unreferenced.files = version, frozenset(spare - removable)
    return len(removable)


def _referenced(table: Table) -> set[str]:
    metadata, place = table.metadata, place_of(table)
    named = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    manifests: set[str] = set()
    for version in metadata.snapshots:
        named.add(version.manifest_list)
        for manifest in version.manifests(table.io):
            if manifest.manifest_path not in manifests:
                manifests.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                named |= {entry.data_file.file_path for entry in entries}
    return {name_in(place, location) for location in named | manifests}
