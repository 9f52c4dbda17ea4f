"""Numbers of variable length, and what they count, in the records of Kafka (protocol buffers' encoding)."""

from __future__ import annotations

_MOST_SHIFT = 63


class Malformed(ValueError):
    """What was read is no such number, or counts more than there is."""


class Varints:
    """Reads on from a place.

    Args:
        at: the first byte to read.
    """

    def __init__(self, view: memoryview, at: int = 0) -> None:
        self._view, self._at = view, at

    @property
    def left(self) -> int:
        """Bytes that are not read."""
        return len(self._view) - self._at

    def unsigned(self) -> int:
        """A number. Raises Malformed."""
        value = shift = 0
        while self.left and shift <= _MOST_SHIFT:
            byte = self._view[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise Malformed("a number without end")

    def signed(self) -> int:
        """A number that may be negative (zigzag). Raises Malformed."""
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def taken(self, count: int) -> memoryview:
        """The next bytes. Raises Malformed: there are not so many."""
        if not 0 <= count <= self.left:
            raise Malformed(f"{count} bytes, where {self.left} are left")
        self._at += count
        return self._view[self._at - count : self._at]

    def some_bytes(self) -> bytes:
        """Bytes with their number before them. Raises Malformed."""
        return bytes(self.taken(self.signed()))

    def bytes_or_none(self) -> bytes | None:
        """The same, or None for a negative number."""
        count = self.signed()
        return None if count < 0 else bytes(self.taken(count))
