"""The pointer to the latest snapshot: one file, replaced atomically, that only advances."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from cluster.errors import Conflict, Unavailable
from cluster.stores.files import Failpoint, FolderLock, no_failpoint, write_whole
from cluster.stores.lake_positions import positions_of
from workloads.snapshot.layout import LATEST, Manifest, Pointer, encode_manifest, encode_pointer
from workloads.snapshot.read import read_pointer

POINTER_LOCK = ".pointer-lock"
LOCK_WAIT_S = 10.0


def advance(folder: Path, manifest: Manifest, failpoint: Failpoint = no_failpoint) -> None:
    """Makes a whole snapshot the latest one. Safe to call twice.

    Raises:
        Conflict: the latest one is newer, or complete for positions that this one lacks.
        Unavailable: others hold the pointer for longer than LOCK_WAIT_S.
    """
    body = encode_manifest(manifest).partition(b"\n")[0]
    wanted = Pointer(manifest.id, manifest.sequence, hashlib.sha256(body).hexdigest(), manifest.as_of.positions)
    lock = _locked(folder)
    try:
        current = read_pointer(folder)
        if current == wanted:
            return
        if current is not None:
            ahead = manifest.sequence > current.sequence
            if not ahead or not manifest.positions.covers(positions_of(current.positions)):
                raise Conflict(f"snapshot {current.id} was published meanwhile; take a new one from there")
        write_whole(folder / LATEST, encode_pointer(wanted), failpoint, "pointer")
    finally:
        lock.release()


def _locked(folder: Path) -> FolderLock:
    lock = FolderLock(folder / POINTER_LOCK)
    deadline = time.monotonic() + LOCK_WAIT_S
    while not lock.acquire(shared=False):
        if time.monotonic() > deadline:
            raise Unavailable("snapshot: the pointer is held by another process; try again")
        time.sleep(0.02)
    return lock
