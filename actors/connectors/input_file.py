"""One regular file as it was when it was opened: its bytes, plain or decompressed, and its digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import pyarrow as pa

from actors.connectors.base import FileLimits
from cluster.errors import Rejected

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
COMPRESSED_SUFFIXES = (".gz", ".zst")
Read = Callable[[], bytes]
"""Gives the next block of bytes, empty at the end."""


@dataclass(frozen=True)
class InputFile:
    """A file, its size in bytes, what identifies its content's state, and its compression ("gzip", "zstd", None)."""

    path: Path
    size: int
    state: tuple[int, int, int]
    compression: str | None
    limits: FileLimits

    def sha256(self, *more: bytes) -> str:
        """SHA-256 over length-prefixed `more`, then the file's bytes; reads the whole file."""
        found = hashlib.sha256()
        for part in more:
            found.update(len(part).to_bytes(8, "big") + part)
        with _refusing(self.path), self.path.open("rb") as opened:
            left = self.size
            while left and (block := opened.read(min(left, 1 << 20))):
                found.update(block)
                left -= len(block)
        self.check_unchanged()
        return found.hexdigest()

    def check_unchanged(self) -> None:
        """Compare size, time of change and inode with those at opening.

        Raises:
            Rejected: the file is another one now; what was read may mix two contents.
        """
        with _refusing(self.path):
            now = _state(self.path.stat())
        if now != self.state:
            raise Rejected(f"{self.path} changed while it was read: ingest a copy that nobody writes to")

    @contextmanager
    def reader(self, start: int, end: int | None, progress: Progress) -> Iterator[Read]:
        """Blocks of the decompressed bytes from `start` to `end` (None: to the end).

        A compressed file is read from its beginning and what lies before `start` is thrown away.
        """
        if self.compression is None:
            with _refusing(self.path), self.path.open("rb", buffering=0) as plain:
                plain.seek(min(start, self.size))
                stop = self.size if end is None else min(end, self.size)
                yield _plain_blocks(plain.read, stop - start, self, progress)
        else:
            with _refusing(self.path), pa.OSFile(str(self.path)) as stored:
                stream = pa.CompressedInputStream(stored, self.compression)
                yield _expanded_blocks(stream.read, stored.tell, start, self, progress)

    def read_whole(self, progress: Progress) -> bytes:
        """All decompressed bytes, at most `limits.file_bytes`.

        Raises:
            Rejected: the file is larger than that.
        """
        blocks: list[bytes] = []
        total = 0
        with self.reader(0, None, progress) as read:
            while block := read():
                total += len(block)
                if total > self.limits.file_bytes:
                    raise Rejected(f"{self.path} has more than {self.limits.file_bytes:,} bytes: split it")
                blocks.append(block)
        return b"".join(blocks)


@dataclass
class Progress:
    """Bytes of the stored file that were read so far."""

    done_bytes: int = 0


def open_file(path: Path, limits: FileLimits) -> InputFile:
    """Look at a file without reading more than its first bytes.

    Raises:
        Rejected: there is no such regular file, or it may not be read.
    """
    with _refusing(path):
        found = path.stat()
        if not S_ISREG(found.st_mode):
            raise Rejected(f"{path} is no regular file")
        with path.open("rb") as opened:
            head = opened.read(4)
    compression = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    return InputFile(path, found.st_size, _state(found), compression, limits)


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Translate errors of the operating system and of the decompressor."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise Rejected(f"{path} cannot be read: {error}") from error


def _plain_blocks(read: Callable[[int], bytes], left: int, file: InputFile, progress: Progress) -> Read:
    def next_block() -> bytes:
        nonlocal left
        block = read(min(left, file.limits.block_bytes)) if left > 0 else b""
        left -= len(block)
        progress.done_bytes += len(block)
        return block

    return next_block


def _expanded_blocks(
    read: Callable[[int], bytes], tell: Callable[[], int], skip: int, file: InputFile, progress: Progress
) -> Read:
    total = 0

    def next_block() -> bytes:
        nonlocal total, skip
        while block := read(file.limits.block_bytes):
            total += len(block)
            progress.done_bytes = tell()
            if total > file.limits.expanded_bytes:
                raise Rejected(f"{file.path} expands to more than {file.limits.expanded_bytes:,} bytes")
            if skip < len(block):
                block, skip = block[skip:], 0
                return block
            skip -= len(block)
        return b""

    return next_block
