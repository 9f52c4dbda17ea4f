"""JSON lines: each line is a record, passed on as it stands; its position is the byte offset of the line.

Lines are not parsed unless defaults have to be filled in or a mapping applies: whether a line is a good event is
for the stages to say. Blank lines are no records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import Any

import msgspec

from actors.connectors.base import BadRaw, FileSource, Item, Position, RawRecord, batched, behind
from actors.connectors.input_file import InputFile, Progress
from actors.connectors.lines import Block, LongLine, line_blocks
from actors.connectors.rows import Mapped
from cluster.errors import BadRecord

BOM = b"\xef\xbb\xbf"
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_row = msgspec.json.Decoder(dict[str, Any])


@dataclass
class JsonLines:
    """The lines of a file that begin in [start, end) bytes (decompressed; end None: the end of the file)."""

    file: InputFile
    settings: bytes
    defaults: dict[str, Any]
    mapped: Mapped[Mapping[str, Any]] | None
    start: int = 0
    end: int | None = None
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def digest(self) -> str:
        return self.file.sha256(self.settings)

    @property
    def total_bytes(self) -> int:
        if self.file.compression is not None:
            return self.file.size
        return (self.file.size if self.end is None else self.end) - min(self.start, self.file.size)

    def progress_bytes(self) -> int:
        return self.progress.done_bytes

    def batches(self, after: Position | None, limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
        start = self.start if after is None else max(self.start, after[0])
        self.progress.done_bytes = start - self.start
        yield from batched(behind(self._items(start), after), limit_records, limit_bytes)
        self.file.check_unchanged()

    def split(self, parts: int) -> Sequence[FileSource]:
        """Ranges of about equal bytes that begin at a line; a compressed file stays whole."""
        if self.file.compression is not None or parts < 2:
            return [self]
        end = self.file.size if self.end is None else self.end
        step = max(1, (end - self.start) // parts)
        cuts = [self._line_after(self.start + step * part, end) for part in range(1, parts)]
        edges = sorted({self.start, *cuts, end})
        return [replace(self, start=a, end=b, progress=Progress()) for a, b in pairwise(edges)] or [self]

    def _line_after(self, offset: int, end: int) -> int:
        """Where the first line at or behind `offset` begins; `end` when none does."""
        at = offset - 1
        with self.file.reader(at, end, Progress()) as read:
            while block := read():
                found = block.find(b"\n")
                if found >= 0:
                    return at + found + 1
                at += len(block)
        return end

    def _items(self, start: int) -> Iterator[Item]:
        limits = self.file.limits
        with self.file.reader(start, self.end, self.progress) as read:
            yield from chain.from_iterable(
                [too_long(block, limits.line_bytes)] if isinstance(block, LongLine) else self._records(block)
                for block in line_blocks(read, start, limits.line_bytes, limits.bad_payload_bytes)
            )

    def _records(self, block: Block) -> Iterator[Item]:
        lines = block.data.split(b"\n")
        starts = list(accumulate((len(line) + 1 for line in lines), initial=block.start))
        if block.start == 0 and lines[0].startswith(BOM):
            lines[0] = lines[0][len(BOM) :]
        convert = self._convert()
        for at, line in zip(starts, lines, strict=False):
            if line and not line.isspace():
                if convert is None:
                    yield RawRecord((at,), line)
                else:
                    yield from convert(at, line)

    def _convert(self) -> Callable[[int, bytes], Iterator[Item]] | None:
        if (mapped := self.mapped) is not None:
            return lambda at, line: self._mapped(mapped, at, line)
        return self._filled if self.defaults else None

    def _filled(self, at: int, line: bytes) -> Iterator[Item]:
        """The line with defaults for what it lacks; one that is no object goes on as it is."""
        try:
            fields: dict[str, Any] = _fields.decode(line)
        except msgspec.DecodeError:
            yield RawRecord((at,), line)
            return
        lacking = {name: value for name, value in self.defaults.items() if name not in fields}
        yield RawRecord((at,), msgspec.json.encode({**lacking, **fields}) if lacking else line)

    def _mapped(self, mapped: Mapped[Mapping[str, Any]], at: int, line: bytes) -> Iterator[Item]:
        kept = self.file.limits.bad_payload_bytes
        try:
            row = _row.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            yield BadRaw((at,), line[:kept], "decode", f"line at byte {at:,} is no JSON object: {error}")
            return
        try:
            for number, payload in mapped.events(row):
                yield RawRecord((at, number), payload)
        except BadRecord as error:
            yield BadRaw((at,), line[:kept], error.error_class, f"line at byte {at:,}: {error.reason}")


def too_long(line: LongLine, line_bytes: int) -> BadRaw:
    """The dead letter of a line over the limit."""
    reason = f"line at byte {line.start:,} has {line.length:,} bytes; the limit is {line_bytes:,}"
    return BadRaw((line.start,), line.head, "too_large", reason)
