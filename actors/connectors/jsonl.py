"""JSON lines: each line is a record, passed on as it stands; its position is the byte offset of the line.

Lines are not parsed unless defaults have to be filled in or a mapping applies: whether a line is a good event is
for the stages to say. Blank lines are no records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import msgspec

from actors.connectors.base import FileLimits, FileSource, Item, RawRecord, bad_raw
from actors.connectors.input_file import Progress
from actors.connectors.lines import Block, LongLine, line_blocks
from actors.connectors.rows import Mapped
from actors.connectors.text_range import BOM, TextRange
from cluster.errors import BadRecord

Convert = Callable[[int, bytes], list[RawRecord]]
"""(byte offset, line) → its records. Raises BadRecord."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_row = msgspec.json.Decoder(dict[str, Any])


@dataclass(kw_only=True)
class JsonLines(TextRange):
    """Lines of a file.

    Args:
        convert: None where lines pass as they stand.
    """

    convert: Convert | None = None

    @property
    def row_form(self) -> Mapping[str, Any]:
        """A line says everything itself."""
        return {"format": "jsonl"}

    def split(self, parts: int) -> Sequence[FileSource]:
        """Ranges of about equal bytes that begin at a line; a compressed file stays whole."""
        if self.file.compression is not None or parts < 2:
            return [self]
        step = max(1, (self._end - self.start) // parts)
        return self._cut_at(self._line_after(self.start + step * part, self._end) for part in range(1, parts))

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
                [_too_long(block, limits)] if isinstance(block, LongLine) else self._records(block)
                for block in line_blocks(read, start, limits.line_bytes, limits.bad_payload_bytes)
            )

    def _records(self, block: Block) -> Iterator[Item]:
        lines = block.data.split(b"\n")
        starts = list(accumulate((len(line) + 1 for line in lines), initial=block.start))
        if block.start == 0 and lines[0].startswith(BOM):
            lines[0] = lines[0][len(BOM) :]
        convert = self.convert
        for at, line in zip(starts, lines, strict=False):
            if line and not line.isspace():
                if convert is None:
                    yield RawRecord((at,), line)
                    continue
                try:
                    yield from convert(at, line)
                except BadRecord as error:
                    reason = f"line at byte {at:,}: {error.reason}"
                    yield bad_raw((at,), line, self.file.limits, error.error_class, reason)


def line_converter(mapped: Mapped[Mapping[str, Any]] | None, defaults: Mapping[str, Any]) -> Convert | None:
    """What lines become: mapped, or filled up with defaults; None: they pass as they stand."""
    if mapped is not None:
        return lambda at, line: [RawRecord((at, number), event) for number, event in mapped.events(_decoded(line))]
    return (lambda at, line: [RawRecord((at,), _filled(line, defaults))]) if defaults else None


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        return _row.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord("decode", f"no JSON object: {error}") from error


def _filled(line: bytes, defaults: Mapping[str, Any]) -> bytes:
    """The line with defaults for what it lacks; one that is no object goes on as it is."""
    try:
        fields: dict[str, Any] = _fields.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line
    lacking = {name: value for name, value in defaults.items() if name not in fields}
    return msgspec.json.encode({**lacking, **fields}) if lacking else line


def _too_long(line: LongLine, limits: FileLimits) -> Item:
    """The dead letter of a line over the limit."""
    reason = f"line at byte {line.start:,} has {line.length:,} bytes; the limit is {limits.line_bytes:,}"
    return bad_raw((line.start,), line.head, limits, "too_large", reason, line.length)
