"""Places for files that are written whole: a folder on this machine, or a prefix in S3.

    place = open_place(settings, folder)
    with place.create("state/registers") as file:     readers do not see it yet
        file.write(…); digest = file.seal()
        file.publish(f"state/registers-{digest}.parquet")
    place.sync([…])                                   its name is durable
    place.source(name)                                what a reader of Parquet takes

A name is relative to its place, with slashes. A published file never changes, but for those that `replace` writes.
What is not published when its block ends, or its process does, leaves no file of that name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from cluster.stores.files import (
    Digest,
    Failpoint,
    FolderLock,
    HashingFile,
    aside_of,
    fsync_folder,
    make_folder,
    no_failpoint,
    write_whole,
)

if TYPE_CHECKING:
    from cluster.config_s3 import S3Settings


class Seen(NamedTuple):
    """A file's bytes, and a tag of this version of it."""

    data: bytes
    tag: str


class NewFile(Protocol):
    """A file that is written from its beginning to its end. Leaving its block discards it unless it is published."""

    @property
    def bytes_written(self) -> int:
        """So far."""
        ...

    def write(self, data: bytes, /) -> int:
        """Takes all of `data`."""
        ...

    def seal(self) -> str:
        """There is no more to write: the digest (hexadecimal)."""
        ...

    def publish(self, name: str) -> None:
        """Gives the sealed file its name. Durable, name and all, after `FilePlace.sync`."""
        ...

    def __enter__(self) -> NewFile: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class FilePlace(Protocol):
    """See the module. Can be pickled; safe for several threads.

    Every method blocks. A missing file is FileNotFoundError. A disk that fails is OSError, which
    `files.disk_errors` translates; S3 that does not answer, or refuses, is Unavailable.
    """

    @property
    def local(self) -> Path:
        """A folder on this machine that belongs to the place: its locks lie there."""
        ...

    @property
    def uri(self) -> str:
        """Without a slash at its end."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether reading costs a request, and others than this installation can write there."""
        ...

    def within(self, name: str) -> FilePlace:
        """The place of a folder."""
        ...

    def create(self, name: str, digest: Digest | None = None) -> NewFile:
        """A new file, to be published as `name` or beside it. `digest`: SHA-256 where absent."""
        ...

    def sync(self, names: Iterable[str]) -> None:
        """Makes names durable that were published."""
        ...

    def write(self, name: str, data: bytes, failpoint: Failpoint = no_failpoint, step: str = "file") -> None:
        """Writes a small file whole and durably. Steps: `<step>.write`, `<step>.rename`."""
        ...

    def look(self, name: str) -> Seen | None:
        """A small file; None where there is none."""
        ...

    def replace(
        self, name: str, data: bytes, seen: Seen | None, failpoint: Failpoint = no_failpoint, step: str = "file"
    ) -> None:
        """Replaces what was `seen` (None: there was nothing). Within the place's `lock`. Steps as `write`.

        Raises:
            Conflict: another program, elsewhere, has written it meanwhile.
            OutcomeUnknown: S3 gave no answer.
        """
        ...

    def source(self, name: str) -> Path | BinaryIO:
        """A whole file, for a reader that wants most of it."""
        ...

    def ranges(self, name: str) -> Path | BinaryIO:
        """A file, for a reader that wants parts of it."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        ...

    def rename(self, name: str, new: str) -> None:
        """Gives a file another name; not atomic."""
        ...

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        ...

    def names(self) -> set[str]:
        """Names of all files, of folders within too."""
        ...

    def folders(self) -> list[str]:
        """Names of the folders that lie in the place itself."""
        ...

    def remove_all(self) -> None:
        """Removes all files, and the local folder. Safe to call twice."""
        ...


@dataclass(frozen=True)
class LocalPlace:
    """A folder on this machine. Disks that several machines share have no locks that hold."""

    local: Path
    is_remote = False

    @property
    def uri(self) -> str:
        return f"file://{self.local}"

    def within(self, name: str) -> LocalPlace:
        return LocalPlace(self.local / name)

    def create(self, name: str, digest: Digest | None = None) -> NewFile:
        return _AsideFile(self.local, name, digest)

    def sync(self, names: Iterable[str]) -> None:
        for folder in {(self.local / name).parent for name in names}:
            fsync_folder(folder)

    def write(self, name: str, data: bytes, failpoint: Failpoint = no_failpoint, step: str = "file") -> None:
        make_folder((self.local / name).parent)
        write_whole(self.local / name, data, failpoint, step)

    def look(self, name: str) -> Seen | None:
        try:
            return Seen((self.local / name).read_bytes(), "")
        except FileNotFoundError:
            return None

    def replace(
        self, name: str, data: bytes, seen: Seen | None, failpoint: Failpoint = no_failpoint, step: str = "file"
    ) -> None:
        self.write(name, data, failpoint, step)

    def source(self, name: str) -> Path:
        return self.local / name

    ranges = source

    def size(self, name: str) -> int | None:
        path = self.local / name
        return path.stat().st_size if path.is_file() else None

    def rename(self, name: str, new: str) -> None:
        (self.local / name).rename(self.local / new)

    def remove(self, name: str) -> None:
        (self.local / name).unlink(missing_ok=True)

    def names(self) -> set[str]:
        return {str(path.relative_to(self.local)) for path in self.local.rglob("*") if path.is_file()}

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.local.iterdir() if path.is_dir()) if self.local.is_dir() else []

    def remove_all(self) -> None:
        shutil.rmtree(self.local, ignore_errors=True)


class _AsideFile(HashingFile):
    """A file beside where it will be, fsynced by `seal`."""

    def __init__(self, root: Path, name: str, digest: Digest | None) -> None:
        make_folder((root / name).parent)
        super().__init__(aside_of(root / name), digest)
        self._root = root

    def publish(self, name: str) -> None:
        self.path.replace(self._root / name)

    def __enter__(self) -> _AsideFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


class StoredFile(NamedTuple):
    """A file of a place: what a task that runs elsewhere is given."""

    place: FilePlace
    name: str


def open_place(settings: S3Settings, folder: Path) -> FilePlace:
    """The place that settings name; a folder of this machine where they name none.

    Args:
        folder: of this machine, for what lies in it in any case: locks.
    """
    if not settings.uri:
        return LocalPlace(folder)
    from cluster.stores.s3_place import S3Place

    return S3Place(settings, settings.prefix, folder)


def place_at(where: FilePlace | Path) -> FilePlace:
    """A place; a folder is one."""
    return LocalPlace(where) if isinstance(where, Path) else where


def lock_in(place: FilePlace, name: str) -> FolderLock:
    """A lock of this machine on a place, or on a folder within it; not taken yet."""
    path = place.local / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return FolderLock(path)
