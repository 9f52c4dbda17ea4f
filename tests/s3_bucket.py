"""A bucket of the run's S3 server, for tests: its settings, what lies in it, and its files on the server's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, S3FileSystem
from pyiceberg.io.pyarrow import PyArrowFileIO

from cluster.config import LakeSettings
from cluster.config_s3 import S3Settings, SnapshotSettings
from services.runner import Services
from services.spec import Running


class S3Bucket:
    """`prefix` is a test's own. Another client than the product's looks what is there."""

    def __init__(self, services: Services, server: Running, prefix: str) -> None:
        self._services, self.server, self.prefix = services, server, prefix
        host = server.address.removeprefix("https://")
        self.store = S3FileSystem(
            access_key=server.details["user"], secret_key=server.details["password"], allow_bucket_creation=True,
            endpoint_override=host, region=server.details["region"], tls_ca_file_path=server.details["ca"],
        )  # fmt: skip
        self.name = "tests"
        self.store.create_dir(self.name)

    def values(self, part: str, **changes: Any) -> dict[str, Any]:
        """Settings of a place `part` within the prefix."""
        details = self.server.details
        return {
            "uri": f"s3://{self.name}/{self.prefix}/{part}", "endpoint": self.server.address, "ca_file": details["ca"],
            "region": details["region"], "key_id": details["user"], "secret_key": details["password"], **changes,
        }  # fmt: skip

    def place(self, part: str, **changes: Any) -> S3Settings:
        return S3Settings(**self.values(part, **changes))

    def lake(self, part: str = "lake", **changes: Any) -> LakeSettings:
        return LakeSettings(**self.values(part, **changes))

    def snapshots(self, part: str = "snapshots", **changes: Any) -> SnapshotSettings:
        return SnapshotSettings(**self.values(part, **changes))

    def files(self, part: str) -> dict[str, int]:
        """Size of every file of a place, by name."""
        base = f"{self.name}/{self.prefix}/{part}"
        found = self.store.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
        return {info.path.removeprefix(f"{base}/"): info.size for info in found if info.is_file}

    def path(self, part: str, name: str) -> Path:
        """Where the server keeps a file."""
        return self._services.folder / "s3" / "data" / self.name / self.prefix / part / name

    def kill(self) -> None:
        """The server does not answer until `start`."""
        self._services.kill("s3")

    def start(self) -> None:
        """Safe to call twice."""
        assert self._services.start("s3").address == self.server.address


class OtherIO(PyArrowFileIO):
    """The table library's own reader of S3, which knows nothing of the product's. For one bucket at a time."""

    store: FileSystem

    def _initialize_fs(self, scheme: str, netloc: str | None = None) -> FileSystem:
        return self.store
