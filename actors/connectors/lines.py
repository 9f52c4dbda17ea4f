"""Cut a stream of bytes into blocks of whole lines with their byte offsets, whatever the length of a line.

A line ends with a newline; a last one without counts too. A line over the limit is read past without being kept.
Which lines there are, and where, does not depend on how the stream was cut into blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from actors.connectors.input_file import Read


class Block(NamedTuple):
    """Whole lines: `data` ends with a newline, save perhaps at the end of the stream; it begins at byte `start`."""

    start: int
    data: bytes


class LongLine(NamedTuple):
    """A line of `length` bytes (its newline too), longer than the limit; only its beginning is kept."""

    start: int
    head: bytes
    length: int


def line_blocks(read: Read, start: int, line_bytes: int, head_bytes: int) -> Iterator[Block | LongLine]:
    """Blocks of lines and overlong lines in file order.

    Args:
        read: gives the next bytes, empty at the end; the first byte is a line's first.
        start: offset of that byte.
        line_bytes: longest line kept, its newline not counted; memory is bounded by this and twice a block.
        head_bytes: how much of an overlong line is kept.
    """
    rest = b""
    while chunk := read():
        data = rest + chunk if rest else chunk
        end = data.rfind(b"\n") + 1
        yield from _whole_lines(start, data[:end], line_bytes, head_bytes)
        start, rest = start + end, data[end:]
        if len(rest) > line_bytes:
            line, rest = _pass_long_line(read, start, rest, head_bytes)
            yield line
            start += line.length
    if rest:
        yield from _whole_lines(start, rest, line_bytes, head_bytes)


def _whole_lines(start: int, data: bytes, line_bytes: int, head_bytes: int) -> Iterator[Block | LongLine]:
    """`data` in one block, save around lines over the limit."""
    if len(data) <= line_bytes:
        if data:
            yield Block(start, data)
        return
    kept = at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        following = min(end + 1, len(data))
        if end - at > line_bytes:
            if kept < at:
                yield Block(start + kept, data[kept:at])
            yield LongLine(start + at, data[at : min(end, at + head_bytes)], following - at)
            kept = following
        at = following
    if kept < len(data):
        yield Block(start + kept, data[kept:])


def _pass_long_line(read: Read, start: int, begun: bytes, head_bytes: int) -> tuple[LongLine, bytes]:
    """Read to the end of an overlong line; also what was read behind it."""
    head, length = begun[:head_bytes], len(begun)
    while chunk := read():
        end = chunk.find(b"\n")
        more = chunk if end < 0 else chunk[:end]
        head += more[: head_bytes - len(head)]
        if end >= 0:
            return LongLine(start, head, length + end + 1), chunk[end + 1 :]
        length += len(chunk)
    return LongLine(start, head, length), b""
