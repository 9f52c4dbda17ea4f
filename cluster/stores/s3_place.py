"""A prefix of a bucket in S3 as a place for files: see `cluster.stores.places`.

A file is kept in memory until it is published: one PUT, or a multipart upload that shows nothing until all of it has
come. "Durable" means that the server has answered. `replace` is a conditional PUT (If-Match, If-None-Match), so that
of two writers, on whatever machine, one is refused.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from cluster.config_s3 import S3Settings
from cluster.errors import Conflict, OutcomeUnknown, Rejected, Unavailable
from cluster.stores.files import Digest, Failpoint, no_failpoint
from cluster.stores.places import NewFile, Seen

CONNECT_S = 5.0
RETRIES = 3
RETRY_S = 10.0
"""Retries of one request; whoever asked waits longer by itself, and says so."""
REQUEST_MAX_S = 600.0
CHUNK_BYTES = 8 << 20
"""Larger files are uploaded in parts of so many bytes."""
RANGE_BYTES = 1 << 20
_SAID_CHARS = 200


@dataclass(frozen=True)
class S3Place:
    """A prefix of a bucket. `local` is where locks of this machine lie."""

    settings: S3Settings
    prefix: str
    local: Path
    is_remote = True

    @property
    def uri(self) -> str:
        return f"s3://{self.settings.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def within(self, name: str) -> S3Place:
        return S3Place(self.settings, self._key(name), self.local / name)

    def create(self, name: str, digest: Digest | None = None) -> NewFile:
        return _BufferedFile(self, digest)

    def sync(self, names: Iterable[str]) -> None:
        """Nothing: a PUT that was answered is durable."""

    def write(self, name: str, data: bytes, failpoint: Failpoint = no_failpoint, step: str = "file") -> None:
        failpoint(f"{step}.write")
        failpoint(f"{step}.rename")
        self.put(name, data)

    def put(self, name: str, data: bytes | memoryview, mode: Any = "overwrite") -> None:
        """Writes a file; readers see all of it or nothing."""
        try:
            with self._errors():
                obstore.put(self._store, self._key(name), data, mode=mode, chunk_size=CHUNK_BYTES)
        except FileNotFoundError as error:
            raise Unavailable(
                f"S3: there is no bucket {self.settings.bucket}: make it; it goes on by itself", 5.0
            ) from error

    def look(self, name: str) -> Seen | None:
        try:
            with self._errors():
                found = obstore.get(self._store, self._key(name))
                return Seen(bytes(found.bytes()), found.meta["e_tag"] or "")
        except FileNotFoundError:
            return None

    def replace(
        self, name: str, data: bytes, seen: Seen | None, failpoint: Failpoint = no_failpoint, step: str = "file"
    ) -> None:
        failpoint(f"{step}.write")
        failpoint(f"{step}.rename")
        try:
            self.put(name, data, {"e_tag": seen.tag} if seen else "create")
        except Unavailable as error:
            raise OutcomeUnknown(f"{error}; it may have been written", error.retry_after_s) from error

    def source(self, name: str) -> BinaryIO:
        with self._errors():
            return io.BytesIO(bytes(obstore.get(self._store, self._key(name)).bytes()))

    def ranges(self, name: str) -> BinaryIO:
        with self._errors():
            return cast(BinaryIO, _Ranges(self, self._key(name)))

    def size(self, name: str) -> int | None:
        try:
            with self._errors():
                return obstore.head(self._store, self._key(name))["size"]
        except FileNotFoundError:
            return None

    def rename(self, name: str, new: str) -> None:
        with self._errors():
            obstore.copy(self._store, self._key(name), self._key(new))
        self.remove(name)

    def remove(self, name: str) -> None:
        with self._errors():
            obstore.delete(self._store, self._key(name))

    def names(self) -> set[str]:
        begins = len(self.prefix) + 1 if self.prefix else 0
        with self._errors():
            found = obstore.list(self._store, self.prefix or None, chunk_size=1000)
            return {meta["path"][begins:] for part in found for meta in part}

    def folders(self) -> list[str]:
        with self._errors():
            found = obstore.list_with_delimiter(self._store, self.prefix or None)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def remove_all(self) -> None:
        try:
            keys = [self._key(name) for name in self.names()]
            with self._errors():
                if keys:
                    obstore.delete(self._store, keys)
        finally:
            shutil.rmtree(self.local, ignore_errors=True)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    @property
    def _store(self) -> S3Store:
        return _store(self.settings)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        server = self.settings.endpoint or "AWS"
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise Unavailable(
                f"S3 at {server} refuses key {self.settings.key_id}, or what it may do in {self.uri}: see key_id,"
                " secret_key and the bucket's policy. It goes on by itself",
                retry_after_s=5.0,
            ) from error
        except (AlreadyExistsError, PreconditionError) as error:
            raise Conflict(
                f"S3: a file in {self.uri} was written by another program meanwhile; read it again"
            ) from error
        except BaseError as error:
            said = str(error).partition("\n")[0].rpartition(" - ")[2][:_SAID_CHARS]
            raise Unavailable(
                f"S3 at {server} does not answer for {self.uri} ({said}). What was written stays, and the work goes on"
                " by itself",
                retry_after_s=2.0,
            ) from error


@lru_cache(maxsize=8)
def _store(settings: S3Settings) -> S3Store:
    """The connections of this process to a bucket."""
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=settings.request_s),
        "timeout": timedelta(seconds=REQUEST_MAX_S),
        "allow_http": settings.endpoint.startswith("http://"),
    }
    if settings.ca_file is not None:
        try:
            client["root_certificate"] = settings.ca_file.read_bytes()
        except OSError as error:
            raise Rejected(f"S3: ca_file cannot be read: {error}") from error
    server: dict[str, Any] = {"endpoint": settings.endpoint} if settings.endpoint else {}
    return S3Store(
        settings.bucket,
        region=settings.region,
        access_key_id=settings.key_id,
        secret_access_key=settings.secret_key.get_secret_value(),
        client_options=cast(Any, client),
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
        **server,
    )


class _BufferedFile(io.BytesIO):
    """A file in memory until it is published."""

    def __init__(self, place: S3Place, digest: Digest | None) -> None:
        super().__init__()
        self._place, self._digest = place, digest or hashlib.sha256()

    @property
    def bytes_written(self) -> int:
        return self.tell()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        return super().write(view)

    def seal(self) -> str:
        return self._digest.hexdigest()

    def publish(self, name: str) -> None:
        with self.getbuffer() as data:
            self._place.put(name, data)

    def __enter__(self) -> _BufferedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing: what is in memory goes with the object."""


class _Ranges(io.RawIOBase):
    """A file of which ranges are read, a request each."""

    def __init__(self, place: S3Place, key: str) -> None:
        super().__init__()
        self._place = place
        self._file = obstore.open_reader(place._store, key, buffer_size=RANGE_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        with self._place._errors():
            return bytes(self._file.read(None if size < 0 else size))
