"""A range of a text file: what CSV and JSON lines share. A row's position is its byte offset (decompressed)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

from actors.connectors.base import Item, Position, batched, behind
from actors.connectors.input_file import InputFile, Progress

BOM = b"\xef\xbb\xbf"


@dataclass(kw_only=True)
class TextRange(ABC):
    """The rows that begin in [start, end) bytes (decompressed; end None: the end of the file)."""

    file: InputFile
    settings: bytes
    start: int = 0
    end: int | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    @abstractmethod
    def row_form(self) -> Mapping[str, Any]:
        """See `FileSource`."""

    @abstractmethod
    def _items(self, start: int) -> Iterator[Item]:
        """Everything from the row that begins at `start` on."""

    @cached_property
    def digest(self) -> str:
        """See `FileSource`."""
        return self.file.sha256(self.settings)

    @property
    def total_bytes(self) -> int:
        """See `FileSource`."""
        if self.file.compression is not None:
            return self.file.size
        return self._end - min(self.start, self.file.size)

    def progress_bytes(self) -> int:
        """See `FileSource`."""
        return self.progress.done_bytes

    def batches(self, after: Position | None, limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
        """See `FileSource`."""
        start = self.start if after is None else max(self.start, after[0])
        self.progress.done_bytes = start - self.start
        yield from batched(behind(self._items(start), after), limit_records, limit_bytes)
        self.file.check_unchanged()

    @property
    def _end(self) -> int:
        return self.file.size if self.end is None else self.end

    def _cut_at(self, rows: Iterable[int]) -> list[Self]:
        """Ranges that begin at these rows, the first at `start`."""
        edges = sorted({self.start, *rows, self._end})
        return [replace(self, start=a, end=b, progress=Progress()) for a, b in pairwise(edges)] or [self]
