"""What every source of raw records from a file offers, and the bounds that all of them keep.

A source hands out batches of records in the order of their positions. It holds nothing that matters: opened again
on the same bytes, with the same mapping and defaults, it gives the same records at the same positions, and
`batches(after)` goes on behind any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from pydantic import Field

from cluster.config_fields import Section

Position = tuple[int, ...]


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as one JSON object, not looked into further.

    `position` is its place in the file: (byte offset,) for lines and rows of text, (record number from 1,)
    otherwise; with a mapping, and for STIX, followed by the number (from 1) of the event within the row.
    """

    position: Position
    payload: bytes


class BadRaw(msgspec.Struct, frozen=True, gc=False):
    """A row that cannot become a record: material for a dead letter. The file goes on behind it.

    `payload` is the row's bytes, cut at `FileLimits.bad_payload_bytes`; where it was cut, `whole_bytes` is the row's
    length, else 0. `error_class` is one of `cluster.errors.ERROR_CLASSES`; `reason` names the row.
    """

    position: Position
    payload: bytes
    error_class: str
    reason: str
    whole_bytes: int = 0


Item = RawRecord | BadRaw


class FileLimits(Section):
    """Bounds of reading files; whatever a file declares or holds, memory stays within a few times these."""

    block_bytes: int = Field(default=1 << 20, ge=1, description="read at once from a text file")
    line_bytes: int = Field(default=4 << 20, ge=1, description="longest line or row; a longer one is a dead letter")
    file_bytes: int = Field(default=512 << 20, ge=1, description="largest file that is read whole (STIX), decompressed")
    expanded_bytes: int = Field(default=64 << 30, ge=1, description="most that a compressed file may expand to")
    bad_payload_bytes: int = Field(default=64 << 10, ge=0, description="what is kept of a bad row")
    columns: int = Field(default=2_000, ge=1, description="most columns of a CSV or Parquet file")
    row_group_bytes: int = Field(default=2 << 30, ge=1, description="largest size that a Parquet row group may declare")
    parquet_rows: int = Field(default=1_000, ge=1, description="rows decoded at once")
    parquet_slice_bytes: int = Field(default=32 << 20, ge=1, description="most that one slice of rows may expand to")
    metadata_bytes: int = Field(default=64 << 20, ge=1, description="largest string in Parquet metadata")


class FileSource(Protocol):
    """Records out of one file. One reader at a time; `split` gives parts for several.

    Raises (every method): `Rejected` when the file as a whole cannot be read on: it is gone, changed since it was
    opened, broken, or over a bound. Records that came before stay good.
    """

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) over the file's bytes, format, mapping and defaults: what the epoch belongs to."""

    @property
    def row_form(self) -> Mapping[str, Any]:
        """What it takes beside its bytes to read one row again (`kept_rows`): plain values."""

    @property
    def total_bytes(self) -> int:
        """Size of the file (of this part), in bytes as stored."""

    def batches(self, after: Position | None, limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
        """Lists of at most `limit_records` items and `limit_bytes` of payload (one larger item comes alone).

        Args:
            after: only what lies behind this position; None: from the start. Safe to call again.
        """

    def progress_bytes(self) -> int:
        """Bytes of the file (as stored) that the running `batches` has read, 0 to `total_bytes`."""

    def split(self, parts: int) -> Sequence[FileSource]:
        """Up to `parts` sources that together give exactly this one's items, each at its same position."""


def bad_raw(
    position: Position, row: bytes, limits: FileLimits, error_class: str, reason: str, length: int | None = None
) -> BadRaw:
    """A row for its dead letter, cut and marked as cut where it is too long.

    Args:
        length: of the whole row, where `row` is its beginning only.
    """
    kept, whole = row[: limits.bad_payload_bytes], len(row) if length is None else length
    return BadRaw(position, kept, error_class, reason, whole if whole > len(kept) else 0)


def batched(items: Iterable[Item], limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
    """Group items in order into lists within both limits; an item over `limit_bytes` comes alone.

    Raises:
        ValueError: a limit is below 1.
    """
    if limit_records < 1 or limit_bytes < 1:
        raise ValueError("batch limits are at least 1")
    batch: list[Item] = []
    size = 0
    for item in items:
        length = len(item.payload)
        if batch and (size + length > limit_bytes or len(batch) >= limit_records):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def behind(items: Iterable[Item], after: Position | None) -> Iterator[Item]:
    """The items whose position is greater than `after`."""
    if after is None:
        return iter(items)
    return (item for item in items if item.position > after)


def json_bytes(value: Any) -> bytes:
    """`value` as compact JSON; key order as given."""
    return msgspec.json.encode(value)
