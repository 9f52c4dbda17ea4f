"""Removing snapshots that are no longer wanted, and what crashed attempts left.

Whoever writes or reads a snapshot holds a lock on it that ends with the process, so what can be locked exclusively is
in nobody's hands. The manifest goes first: a snapshot half removed is no snapshot.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Rejected
from cluster.stores.files import ASIDE_SUFFIX, FolderLock, fsync_folder
from workloads.snapshot.layout import MANIFEST
from workloads.snapshot.publish import POINTER_LOCK
from workloads.snapshot.read import LOCK, list_snapshots, read_pointer


@dataclass(frozen=True)
class Pruned:
    """Ids that were removed, and ids that would have been but are in use."""

    removed: tuple[str, ...]
    in_use: tuple[str, ...]


def prune(folder: Path, keep: int) -> Pruned:
    """Removes all but the newest `keep` snapshots, and every unpublished one that nobody writes. Safe to call twice.

    Never removed: the latest snapshot, and one that somebody reads.

    Raises:
        Rejected: `keep` is less than 1.
    """
    if keep < 1:
        raise Rejected(f"keep {keep}: give 1 or more; the latest snapshot always stays")
    pointer = read_pointer(folder)
    kept = {manifest.id for manifest in list_snapshots(folder)[-keep:]} | ({pointer.id} if pointer else set())
    removed: list[str] = []
    in_use: list[str] = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in kept):
        (removed if _remove(path) else in_use).append(path.name)
    _remove_left_pointers(folder)
    return Pruned(tuple(removed), tuple(in_use))


def _remove_left_pointers(folder: Path) -> None:
    """Pointers that were written aside and never published; not while somebody publishes one."""
    lock = FolderLock(folder / POINTER_LOCK)
    if not lock.acquire(shared=False):
        return
    try:
        for left in folder.glob(f"*{ASIDE_SUFFIX}"):
            left.unlink(missing_ok=True)
    finally:
        lock.release()


def _remove(root: Path) -> bool:
    lock = FolderLock(root / LOCK)
    if not lock.acquire(shared=False):
        return False
    try:
        (root / MANIFEST).unlink(missing_ok=True)
        fsync_folder(root)
        shutil.rmtree(root)
    finally:
        lock.release()
    return True
