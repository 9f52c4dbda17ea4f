"""Files that survive a power cut: written aside, fsynced, named by what they hold, published by one rename.

    aside(path) ─► write ─► fsync ─► publish (rename, fsync the folder)

A failpoint is a function that is called with a step's name just before the step; production passes `no_failpoint`,
tests pass one that stops the process there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from blake3 import blake3

from cluster.errors import Corrupt, Unavailable

Failpoint = Callable[[str], None]
ASIDE_SUFFIX = ".aside"
_CHUNK_BYTES = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def no_failpoint(step: str) -> None:
    """Does nothing."""


def fsync_folder(folder: Path) -> None:
    """Makes names in a folder durable. Blocks."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Creates a folder and its parents, their names durable. Safe to call twice."""
    missing = []
    at = folder
    while not at.exists():
        missing.append(at)
        at = at.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        fsync_folder(made.parent)


def aside_of(path: Path) -> Path:
    """A fresh name beside `path` to write to before it is published."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}{ASIDE_SUFFIX}")


class Digest(Protocol):
    """What `hashlib` and `blake3` give."""

    def update(self, data: memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


class Unhashed:
    """A digest of nothing, for files whose names do not depend on what they hold."""

    def update(self, data: memoryview, /) -> None:
        """Does nothing."""

    def hexdigest(self) -> str:
        """Empty."""
        return ""


class HashingFile(io.RawIOBase):
    """A new file that is hashed while it is written, and fsynced by `seal`.

    Every write is of bytes that follow each other: Parquet and JSON writers seek nowhere.
    """

    def __init__(self, path: Path, digest: Digest | None = None) -> None:
        """`digest`: SHA-256 where absent."""
        super().__init__()
        self.path = path
        self.bytes_written = 0
        self._digest = digest or hashlib.sha256()
        self._file = path.open("xb", buffering=0)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Writes all of `data`."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        at = 0
        while at < len(view):
            at += self._file.write(view[at : at + _CHUNK_BYTES * 64]) or 0
        self.bytes_written += len(view)
        return len(view)

    def tell(self) -> int:
        return self.bytes_written

    def seal(self) -> str:
        """Makes the file's bytes durable and closes it; returns their digest (hexadecimal).

        The name is durable after `publish`.
        """
        os.fsync(self._file.fileno())
        self.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Closes without making durable. Safe to call twice."""
        if not self.closed:
            self._file.close()
        super().close()


def publish(aside: Path, path: Path) -> None:
    """Gives a durable file its name, atomically and durably; an older file of that name is replaced."""
    aside.replace(path)
    fsync_folder(path.parent)


def write_whole(path: Path, data: bytes, failpoint: Failpoint = no_failpoint, step: str = "file") -> None:
    """Replaces a file: readers see the old bytes or the new ones. Steps: `<step>.write`, `<step>.rename`."""
    failpoint(f"{step}.write")
    aside = aside_of(path)
    try:
        with HashingFile(aside) as file:
            file.write(data)
            file.seal()
        failpoint(f"{step}.rename")
        publish(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        Corrupt: the file is missing.
    """
    return _digest_of(path, hashlib.sha256)


def blake3_of(path: Path) -> str:
    """BLAKE3 of a file's bytes, in hexadecimal: for large files, at twice the speed. Raises as `sha256_of`."""
    return _digest_of(path, blake3)


def blake3_in(source: Path | BinaryIO) -> str:
    """BLAKE3 of a file that may be in memory. Raises as `sha256_of`."""
    return blake3_of(source) if isinstance(source, Path) else hashlib.file_digest(source, blake3).hexdigest()  # type: ignore[arg-type]


def _digest_of(path: Path, digest: Callable[[], Any]) -> str:
    try:
        with path.open("rb") as file:
            found: str = hashlib.file_digest(file, digest).hexdigest()
            return found
    except FileNotFoundError as error:
        raise Corrupt(f"{path.name} is missing from {path.parent}; restore it, or use another snapshot") from error


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, or the quota, is full."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Translates a full disk to Unavailable, and a failed read or write of the device to Corrupt.

    After a failed fsync nothing is known of the bytes: what was being written counts as not written.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise Unavailable(
                f"{what}: the disk under {folder} is full. Free space there; what was durable still is, and the"
                " work goes on by itself",
                retry_after_s=5.0,
            ) from error
        if error.errno == errno.EIO:
            raise Unavailable(
                f"{what}: the disk under {folder} fails ({error}). Check the device; nothing of this step counts",
                retry_after_s=5.0,
            ) from error
        raise


class FolderLock:
    """An advisory lock on a file: shared by readers, exclusive for whoever writes or removes the folder.

    It ends with the process that holds it, however that ends. Local disks only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1

    def acquire(self, *, shared: bool) -> bool:
        """Whether the lock was taken; never waits."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return True

    def share(self) -> None:
        """Turns an exclusive lock into a shared one: readers may come, removers may not."""
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def release(self) -> None:
        """Gives the lock back. Safe to call twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
