"""Sources of raw records from files.

    source = open_source("people.csv", mapping=mapping_from_pairs(["type=person", "id={email}", "props=name"]),
                         defaults={"tenant": "acme", "case": "c-1", "source": "hr"})
    for batch in source.batches(after=None, limit_records=2_000, limit_bytes=4 << 20):
        ...                                 # RawRecord(position, payload) or BadRaw(…, error_class, reason)

The way of a row: `opening` (format) → `input_file` (bytes) → `lines` (lines) → `jsonl` | `csv_scan`, `csv_rows`
→ `rows` with a `mapping`, or `event_columns` → JSON. `parquet` and `stix` read their files themselves.
"""

from actors.connectors.base import BadRaw, FileLimits, FileSource, Item, Position, RawRecord
from actors.connectors.mapping import ColumnMapping, mapping_from_pairs, mapping_from_yaml
from actors.connectors.opening import FORMATS, open_source

__all__ = [
    "FORMATS", "BadRaw", "ColumnMapping", "FileLimits", "FileSource", "Item", "Position", "RawRecord",
    "mapping_from_pairs", "mapping_from_yaml", "open_source",
]  # fmt: skip
