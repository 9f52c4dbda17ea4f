"""Open a file as a source of raw records: find its format, check it against the mapping, refuse what cannot be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.connectors.base import FileLimits, FileSource
from actors.connectors.csv_rows import open_csv
from actors.connectors.input_file import COMPRESSED_SUFFIXES, InputFile, Progress, open_file
from actors.connectors.jsonl import JsonLines, line_converter
from actors.connectors.mapping import ColumnMapping
from actors.connectors.parquet import open_parquet
from actors.connectors.rows import compile_mapping, lookup
from actors.connectors.stix import open_stix
from cluster.errors import Rejected

FORMATS = ("csv", "tsv", "jsonl", "parquet", "stix")
_SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
    ".stix": "stix",
}  # fmt: skip
DEFAULT_FIELDS = ("tenant", "case", "source", "epoch", "partition")


def open_source(
    path: str | Path,
    *,
    format: str | None = None,
    mapping: ColumnMapping | None = None,
    defaults: Mapping[str, Any] | None = None,
    limits: FileLimits | None = None,
) -> FileSource:
    """The records of a file.

    Args:
        path: a regular file; CSV, TSV, JSON lines and STIX may be gzip or zstd.
        format: one of `FORMATS`; None: by the file's name, `.json` by its beginning.
        mapping: how rows become events; None: the rows are events already.
        defaults: values of `DEFAULT_FIELDS` for records that lack them.

    Raises:
        Rejected: the file, its format, its columns or its declared size will not do; the message says what would.
    """
    file = open_file(Path(path), limits or FileLimits())
    filled = dict(defaults or {})
    if foreign := sorted(set(filled) - set(DEFAULT_FIELDS)):
        raise Rejected(f"no default for {foreign[0]!r}: there is one for {', '.join(DEFAULT_FIELDS)}")
    kind = format or _format_of(file)
    settings = json.dumps(
        {"format": kind, "mapping": mapping and mapping.model_dump(mode="json"), "defaults": filled}, sort_keys=True
    ).encode()
    if kind in ("csv", "tsv"):
        return open_csv(file, settings, mapping, filled, "\t" if kind == "tsv" else ",")
    if kind == "jsonl":
        mapped = None if mapping is None else compile_mapping(mapping, lookup, filled)
        return JsonLines(file=file, settings=settings, convert=line_converter(mapped, filled))
    if kind == "parquet":
        return open_parquet(file, settings, mapping, filled)
    if kind == "stix":
        if mapping is not None:
            raise Rejected("a STIX bundle takes no mapping: its objects say what they are")
        return open_stix(file, settings, filled)
    raise Rejected(f"unknown format {kind!r}: one of {', '.join(FORMATS)}")


def _format_of(file: InputFile) -> str:
    suffixes = [suffix.lower() for suffix in file.path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in _SUFFIXES:
        return _SUFFIXES[last]
    if last == ".json":
        with file.reader(0, None, Progress()) as read:
            begin = read()[:4096]
        return "stix" if b'"bundle"' in begin else "jsonl"
    raise Rejected(f"{file.path}: the name does not tell the format: give one of {', '.join(FORMATS)}")
