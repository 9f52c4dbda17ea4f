"""Which file is which format, and what is no file to read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.connectors import open_source
from actors.connectors.csv_rows import CsvFile
from actors.connectors.jsonl import JsonLines
from actors.connectors.stix import StixBundle
from cluster.errors import Rejected


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [("a.jsonl", b"{}", JsonLines), ("a.NDJSON", b"{}", JsonLines), ("a.json", b"{}", JsonLines),
     ("a.json", b'{"type": "bundle"}', StixBundle), ("a.csv", b"kind,type,id\n", CsvFile),
     ("a.tsv", b"kind\ttype\tid\n", CsvFile), ("a.b.csv.gz", b"kind,type,id\n", CsvFile)],
)  # fmt: skip
def test_by_name(tmp_path: Path, name: str, data: bytes, kind: type) -> None:
    (tmp_path / name).write_bytes(data)
    assert isinstance(open_source(tmp_path / name), kind)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path, message in [
        (tmp_path / "missing.csv", "cannot be read"),
        (tmp_path, "is no regular file"),
        (tmp_path / "pipe.jsonl", "is no regular file"),
        (tmp_path / "data.bin", "does not tell the format"),
    ]:
        with pytest.raises(Rejected, match=message):
            open_source(path)
    with pytest.raises(Rejected, match="unknown format 'xml'"):
        open_source(tmp_path / "data.bin", format="xml")
    with pytest.raises(Rejected, match="no default for 'op'"):
        open_source(tmp_path / "data.bin", format="jsonl", defaults={"op": "delete"})
