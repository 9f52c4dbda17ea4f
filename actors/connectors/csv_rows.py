"""CSV: rows of the event format, or of any shape with a mapping; a row's position is its byte offset.

The first row names the columns. Cells are strings unless the mapping or the column's title declares a type; nothing
is guessed, and `=cmd` is text like any other. A bad row is named by its line and does not stop the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from actors.connectors.base import BadRaw, FileSource, Item, RawRecord, bad_raw
from actors.connectors.csv_scan import BadRow, CsvRow, scan
from actors.connectors.event_columns import csv_event
from actors.connectors.input_file import InputFile, Progress
from actors.connectors.lines import line_blocks
from actors.connectors.mapping import ColumnMapping
from actors.connectors.rows import Mapped, compile_mapping
from actors.connectors.text_range import BOM, TextRange
from cluster.errors import BadRecord, Rejected

_BEHIND_ALL = 1 << 62
Convert = Callable[[CsvRow], list[RawRecord]]


@dataclass(kw_only=True)
class CsvFile(TextRange):
    """Rows of a file."""

    delimiter: str
    columns: tuple[str, ...]
    convert: Convert

    @property
    def row_form(self) -> Mapping[str, Any]:
        """A row needs the header's columns."""
        return {"format": "csv", "delimiter": self.delimiter, "columns": list(self.columns)}

    def split(self, parts: int) -> Sequence[FileSource]:
        """Ranges of about equal bytes that begin at a row; reads the file once, since a newline may be in quotes."""
        end = self._end
        if self.file.compression is not None or parts < 2 or self.start >= end:
            return [self]
        cuts, step = [self.start], max(1, (end - self.start) // parts)
        for row in chain.from_iterable(self._rows(self.start, Progress())):
            if row.start >= self.start + step * len(cuts):
                cuts.append(row.start)
        return self._cut_at(cuts)

    def _rows(self, start: int, progress: Progress) -> Iterator[list[CsvRow | BadRow]]:
        limits = self.file.limits
        with self.file.reader(start, self.end, progress) as read:
            blocks = line_blocks(read, start, limits.line_bytes, limits.bad_payload_bytes)
            yield from scan(blocks, self.delimiter, limits)

    def _items(self, start: int) -> Iterator[Item]:
        count, convert = len(self.columns), self.convert
        for rows in self._rows(start, self.progress):
            for row in rows:
                if isinstance(row, CsvRow) and len(row.cells) == count:
                    try:
                        yield from convert(row)
                    except BadRecord as error:
                        yield self._bad(row, start, kept_row(row, self.delimiter), error.error_class, error.reason)
                else:
                    yield self._refused(row, start)

    def _refused(self, row: CsvRow | BadRow, start: int) -> BadRaw:
        """The dead letter of what is no row of this file; `start` is where the scan began."""
        if isinstance(row, BadRow):
            return self._bad(row, start, row.raw, row.error_class, row.problem, row.length)
        problem = f"{len(row.cells)} cells, and the header has {len(self.columns)} columns"
        return self._bad(row, start, kept_row(row, self.delimiter), "schema", problem)

    def _bad(
        self, row: CsvRow | BadRow, start: int, raw: bytes, error_class: str, problem: str, length: int | None = None
    ) -> BadRaw:
        number = self._lines_before(start) + row.line
        reason = f"row on line {number:,} (byte {row.start:,}): {problem}"
        return bad_raw((row.start,), raw, self.file.limits, error_class, reason, length)

    def _lines_before(self, start: int) -> int:
        """Lines of the file before a byte; counted once for each place where reading begins, and only if asked."""
        if start not in self._counted:
            with self.file.reader(0, None if self.file.compression else start, Progress()) as read:
                lines, left = 0, start
                while left > 0 and (block := read()):
                    lines += block[:left].count(b"\n")
                    left -= len(block)
            self._counted[start] = lines
        return self._counted[start]

    @cached_property
    def _counted(self) -> dict[int, int]:
        return {}


def open_csv(
    file: InputFile, settings: bytes, mapping: ColumnMapping | None, defaults: Mapping[str, Any], delimiter: str
) -> CsvFile:
    """Read the header and compile what rows become.

    Raises:
        Rejected: no header, the same column twice, too many columns, or columns that neither the event format nor
            the mapping knows.
    """
    delimiter = mapping.delimiter if mapping is not None and mapping.delimiter else delimiter
    columns, start = _header(file, delimiter)
    convert = row_converter(columns, mapping, defaults, file.path)
    return CsvFile(file=file, settings=settings, start=start, delimiter=delimiter, columns=columns, convert=convert)


def kept_row(row: CsvRow, delimiter: str) -> bytes:
    """The row again, for its dead letter: quoted where needed."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerow(row.cells)  # what ends lines is quoted
    return text.getvalue().removesuffix("\r\n").encode()


def row_converter(
    columns: Sequence[str], mapping: ColumnMapping | None, defaults: Mapping[str, Any], path: object
) -> Convert:
    """What rows of these columns become.

    Raises:
        Rejected: columns that neither the event format nor the mapping knows.
    """
    if mapping is None:
        return _events(csv_event(columns, defaults, path))
    mapping.check_columns(columns)
    places = {column: at for at, column in enumerate(columns)}
    return _mapped(compile_mapping(mapping, lambda column: _cell(places[column]), defaults))


def _cell(at: int) -> Callable[[list[str]], Any]:
    return lambda cells: cells[at]


def _events(make: Callable[[list[str], bool], bytes]) -> Convert:
    return lambda row: [RawRecord((row.start,), make(row.cells, row.plain))]


def _mapped(mapped: Mapped[list[str]]) -> Convert:
    return lambda row: [RawRecord((row.start, number), payload) for number, payload in mapped.events(row.cells)]


def _header(file: InputFile, delimiter: str) -> tuple[tuple[str, ...], int]:
    """Columns, and the byte where the first row begins."""
    limits = file.limits
    with file.reader(0, None, Progress()) as read:
        begin = read()
        mark = len(BOM) if begin.startswith(BOM) else 0
        begun = [begin[mark:]]
        blocks = line_blocks(lambda: begun.pop() if begun else read(), mark, limits.line_bytes, 200)
        rows = chain.from_iterable(scan(blocks, delimiter, limits))
        header = next(rows, None)
        following = next(rows, None)
    if not isinstance(header, CsvRow):
        raise Rejected(f"{file.path}: the first row is no header: {header.problem if header else 'the file is empty'}")
    columns = tuple(name.strip() for name in header.cells)
    if len(columns) > limits.columns:
        raise Rejected(f"{file.path}: {len(columns):,} columns; the limit is {limits.columns:,}")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise Rejected(f"{file.path}: the header names {twice[0]!r} more than once: rename a column")
    return columns, following.start if following else _BEHIND_ALL
