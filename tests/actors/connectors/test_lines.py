"""Lines and their offsets do not depend on how the stream is cut."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from actors.connectors.lines import Block, LongLine, line_blocks


def reader(data: bytes, sizes: list[int]) -> Callable[[], bytes]:
    at, turn = 0, 0

    def read() -> bytes:
        nonlocal at, turn
        size = sizes[turn % len(sizes)]
        turn += 1
        at += size
        return data[at - size : at]

    return read


def lines_of(found: list[Block | LongLine]) -> list[tuple[int, bytes | int]]:
    lines: list[tuple[int, bytes | int]] = []
    for block in found:
        if isinstance(block, LongLine):
            lines.append((block.start, block.length))
            continue
        at = block.start
        for line in block.data.split(b"\n"):
            if line:
                lines.append((at, line))
            at += len(line) + 1
    return lines


def expected(data: bytes, limit: int) -> list[tuple[int, bytes | int]]:
    lines: list[tuple[int, bytes | int]] = []
    at = 0
    for line in data.splitlines(keepends=True) if b"\r" not in data else []:
        text = line.removesuffix(b"\n")
        if len(text) > limit:
            lines.append((at, len(line)))
        elif text:
            lines.append((at, text))
        at += len(line)
    return lines


@given(
    st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\r", b"x")), max_size=20).map(b"\n".join),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(1, 8),
)
def test_lines_are_those_of_the_whole_text(data: bytes, sizes: list[int], limit: int) -> None:
    text = bytes(byte if byte < 128 and byte not in b"\x0b\x0c\x1c\x1d\x1e" else 46 for byte in data)
    found = list(line_blocks(reader(text, sizes), 0, limit, 3))
    assert lines_of(found) == expected(text, limit)
    assert all(len(block.head) <= 3 for block in found if isinstance(block, LongLine))


def test_an_endless_line_is_read_past_without_being_kept() -> None:
    blocks = iter([b"a\n"] + [b"x" * 1000] * 500 + [b"\nb\n"])
    found = list(line_blocks(lambda: next(blocks, b""), 0, 2_000, 10))
    assert found == [Block(0, b"a\n"), LongLine(2, b"x" * 10, 500_001), Block(500_003, b"b\n")]
