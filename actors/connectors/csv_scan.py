"""Rows of CSV text out of blocks of lines: cells with the byte offset of each row, and what is no row.

The format is RFC 4180 with one delimiter: a cell in double quotes may hold delimiters, newlines and doubled quotes;
a quote inside an unquoted cell is a plain character. Which rows there are does not depend on where blocks end:
lines without quotes are split, all else goes through the csv module, and both agree.

A row that cannot be read costs the lines that it spans and no more; a quote that is never closed costs at most
`line_bytes`. Everything takes time and memory linear in the file and the limits.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import msgspec

from actors.connectors.base import FileLimits
from actors.connectors.lines import Block, LongLine

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the module's own bound is one for the process; ours is `line_bytes`


_LONE_RETURN = "a carriage return inside a cell without quotes"
_SPECIAL = re.compile(r'[\x00-\x09\x0b\x0c\x0e-\x1f"\\]')


class CsvRow(msgspec.Struct, frozen=True, gc=False):
    """Cells of the row that begins at byte `start`, on line `line` (from 1, counted from where the scan began).

    `plain`: no cell has a quote, a backslash or a control character, so each may stand in JSON as it is.
    """

    start: int
    line: int
    cells: list[str]
    plain: bool = False


class BadRow(NamedTuple):
    """Bytes that are no row; `raw` is cut, `length` is that of all of them."""

    start: int
    line: int
    raw: bytes
    error_class: str
    problem: str
    length: int


def scan(blocks: Iterable[Block | LongLine], delimiter: str, limits: FileLimits) -> Iterator[list[CsvRow | BadRow]]:
    """Rows in file order, those of one block together. Blank lines are no rows."""
    scanner = _Scanner(delimiter, limits)
    for block in blocks:
        yield scanner.long_line(block) if isinstance(block, LongLine) else scanner.feed(block)
    yield scanner.finish()


class _Scanner:
    """What lies between two blocks: the beginning of a row whose quotes are still open."""

    def __init__(self, delimiter: str, limits: FileLimits) -> None:
        self._delimiter = delimiter
        self._limits = limits
        self._open = b""
        self._open_start = 0
        self._line = 1

    def feed(self, block: Block) -> list[CsvRow | BadRow]:
        start = self._open_start if self._open else block.start
        data, self._open = self._open + block.data, b""
        if b'"' in data or b"\0" in data or not _is_utf8(data):
            return self._read(start, data, last=False)
        return self._split(start, data)

    def long_line(self, line: LongLine) -> list[CsvRow | BadRow]:
        start = self._open_start if self._open else line.start
        raw = (self._open + line.head)[: self._limits.bad_payload_bytes]
        length = len(self._open) + line.length
        problem = f"{length:,} bytes; the limit is {self._limits.line_bytes:,}"
        bad = BadRow(start, self._line, raw, "too_large", problem, length)
        self._line += self._open.count(b"\n") + 1
        self._open = b""
        return [bad]

    def finish(self) -> list[CsvRow | BadRow]:
        data, self._open = self._open, b""
        return self._read(self._open_start, data, last=True) if data else []

    def _split(self, start: int, data: bytes) -> list[CsvRow | BadRow]:
        """Rows of good text without quotes."""
        text = data.decode()
        plain = _SPECIAL.search(text) is None
        lines = text.split("\n")
        starts = _starts(start, data, lines)
        delimiter = self._delimiter
        returns = b"\r" in data
        rows: list[CsvRow | BadRow] = []
        for number, (at, line) in enumerate(zip(starts, lines, strict=False), self._line):
            if returns:
                line = line.rstrip("\r")
                if "\r" in line:
                    rows.append(self._bad(at, number, line.encode(), "schema", _LONE_RETURN))
                    continue
            if line:
                rows.append(CsvRow(at, number, line.split(delimiter), plain))
        self._line += len(lines) - 1
        return rows

    def _read(self, start: int, data: bytes, last: bool) -> list[CsvRow | BadRow]:
        """Rows of any text; keeps a row that is still open at the end, unless it is the `last` of the file."""
        raw = data.split(b"\n")
        starts = list(accumulate((len(line) + 1 for line in raw), initial=start))
        count = len(raw) - 1 if raw[-1] == b"" else len(raw)
        begin, rows = 0, list[CsvRow | BadRow]()
        while begin < count:
            begin, more = self._run(data[starts[begin] - start :], starts, begin, count, last, start, data)
            rows += more
        self._line += data[: len(data) - len(self._open)].count(b"\n")
        return rows

    def _run(
        self, text: bytes, starts: list[int], begin: int, count: int, last: bool, base: int, data: bytes
    ) -> tuple[int, list[CsvRow | BadRow]]:
        """Read rows from line `begin` on, until the end or past a row over the limit: (next line, rows)."""
        stream = io.StringIO(text.decode("utf-8", "surrogateescape"), newline="\n")
        reader = csv.reader(stream, delimiter=self._delimiter, strict=True)
        rows: list[CsvRow | BadRow] = []
        while (first := begin + reader.line_num) < count:
            problem, cells = "", []
            try:
                cells = next(reader)
            except csv.Error as error:
                problem = str(error)
            behind = begin + reader.line_num
            bound = starts[first] + self._limits.line_bytes + 1
            if starts[behind] > bound and behind - first > 1:
                behind = next(n for n in range(first + 1, behind + 1) if starts[n] > bound)
                raw = data[starts[first] - base : starts[behind] - base]
                large = f"over {self._limits.line_bytes:,} bytes in {behind - first:,} lines: a quote may be missing"
                rows.append(self._bad(starts[first], self._line + first, raw, "too_large", large))
                return behind, rows
            if problem and behind >= count and not last and self._is_open(data[starts[first] - base :]):
                self._open, self._open_start = data[starts[first] - base :], starts[first]
                return count, rows
            if problem or cells:
                raw = data[starts[first] - base : starts[behind] - base]
                rows.append(self._row(starts[first], self._line + first, cells, raw, problem))
        return count, rows

    def _is_open(self, raw: bytes) -> bool:
        """Whether a row that failed on its last line waits for the end of a quote: it would take one more line."""
        text = raw.decode("utf-8", "surrogateescape") + "\n"
        reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=self._delimiter, strict=True)
        try:
            next(reader)
        except csv.Error:
            return reader.line_num > raw.count(b"\n")
        return False

    def _row(self, at: int, line: int, cells: list[str], raw: bytes, problem: str) -> CsvRow | BadRow:
        if problem:
            if b'"' not in raw and b"\r" in raw.rstrip(b"\r\n"):
                problem = _LONE_RETURN
            return self._bad(at, line, raw, "schema", problem)
        if b"\0" in raw:
            return self._bad(at, line, raw, "decode", "it holds a NUL byte")
        if not _is_utf8(raw):
            return self._bad(at, line, raw, "decode", "it is not UTF-8")
        return CsvRow(at, line, cells)

    def _bad(self, at: int, line: int, raw: bytes, error_class: str, problem: str) -> BadRow:
        return BadRow(at, line, raw[: self._limits.bad_payload_bytes], error_class, problem, len(raw))


def _starts(start: int, data: bytes, lines: list[str]) -> Iterator[int]:
    """Byte offset of each line."""
    if data.isascii():
        return accumulate((len(line) + 1 for line in lines), initial=start)
    return accumulate((len(line) + 1 for line in data.split(b"\n")), initial=start)


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
