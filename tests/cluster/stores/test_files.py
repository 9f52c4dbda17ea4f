"""Files that survive: written aside, fsynced, published by one rename; and what a failing disk gets."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cluster.errors import Corrupt, Unavailable
from cluster.stores import files


def test_write_whole_replaces_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_whole(path, b"old")
    seen = []
    files.write_whole(path, b"new", lambda step: seen.append((step, path.read_bytes())), "pointer")
    assert seen == [("pointer.write", b"old"), ("pointer.rename", b"old")]
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_whole(path, b"old")

    def fail(step: str) -> None:
        if step == "file.rename":
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, b"new", fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_then_name_are_fsynced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_whole(tmp_path / "a", b"x", lambda step: order.append(step))
    assert order == ["file.write", "file", "file.rename", "folder"]


def test_a_failed_fsync_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    files.write_whole(path, b"old")

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unavailable, match="Check the device"), files.disk_errors("test", tmp_path):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_hashing_file_hashes_what_it_wrote(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    with files.HashingFile(tmp_path / "a") as file:
        assert file.write(data[:1000]) == 1000
        assert file.write(memoryview(data)[1000:]) == len(data) - 1000
        assert file.tell() == len(data)
        digest = file.seal()
    assert digest == hashlib.sha256(data).hexdigest() == files.sha256_of(tmp_path / "a")
    with pytest.raises(FileExistsError):
        files.HashingFile(tmp_path / "a")
    with pytest.raises(Corrupt, match="missing"):
        files.sha256_of(tmp_path / "b")


def test_make_folder_twice(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.disk_errors("test", tmp_path):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(Unavailable, match="full"), files.disk_errors("test", tmp_path):
        raise OSError(122, "Disk quota exceeded")


def test_locks(tmp_path: Path) -> None:
    one, two, three = (files.FolderLock(tmp_path / "lock") for _ in range(3))
    assert one.acquire(shared=True)
    assert two.acquire(shared=True)
    assert not three.acquire(shared=False)
    one.release()
    one.release()
    two.release()
    assert three.acquire(shared=False)
    assert not one.acquire(shared=True)
    three.share()
    assert one.acquire(shared=True)
    one.release()
    three.release()
