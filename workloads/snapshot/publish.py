"""The pointer to the latest snapshot: one file that only advances.

On this machine a lock orders those who move it. In S3 the file is replaced only while it is the one that was looked
at: whoever was overtaken elsewhere is refused.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from cluster.errors import Conflict, OutcomeUnknown, Unavailable
from cluster.stores.files import Failpoint, FolderLock, no_failpoint
from cluster.stores.lake_positions import positions_of
from cluster.stores.places import FilePlace, lock_in, place_at
from workloads.snapshot.layout import LATEST, Manifest, Pointer, encode_manifest, encode_pointer
from workloads.snapshot.read import look_at_pointer, read_pointer

POINTER_LOCK = ".pointer-lock"
LOCK_WAIT_S = 10.0


def advance(where: FilePlace | Path, manifest: Manifest, failpoint: Failpoint = no_failpoint) -> None:
    """Makes a whole snapshot the latest one. Safe to call twice.

    Raises:
        Conflict: the latest one is newer, or complete for positions that this one lacks.
        Unavailable: others hold the pointer for longer than LOCK_WAIT_S.
        OutcomeUnknown: S3 gave no answer: it may be the latest one, now or soon. Keep it.
    """
    place = place_at(where)
    body = encode_manifest(manifest).partition(b"\n")[0]
    wanted = Pointer(manifest.id, manifest.sequence, hashlib.sha256(body).hexdigest(), manifest.as_of.positions)
    lock = _locked(place)
    try:
        current, seen = look_at_pointer(place)
        if current == wanted:
            return
        if current is not None:
            ahead = manifest.sequence > current.sequence
            if not ahead or not manifest.positions.covers(positions_of(current.positions)):
                raise Conflict(f"snapshot {current.id} was published meanwhile; take a new one from there")
        try:
            place.replace(LATEST, encode_pointer(wanted), seen, failpoint, "pointer")
        except (Conflict, OutcomeUnknown) as error:
            _check_replaced(place, wanted, error)
    finally:
        lock.release()


def _check_replaced(place: FilePlace, wanted: Pointer, error: Conflict | OutcomeUnknown) -> None:
    """Nothing, if the pointer is as wanted all the same: an answer was lost, and perhaps the client has asked again."""
    try:
        current = read_pointer(place)
    except Unavailable as silent:
        raise OutcomeUnknown(str(silent), silent.retry_after_s) from error
    if current == wanted:
        return
    if isinstance(error, OutcomeUnknown):
        raise error
    raise Conflict("snapshot: another one was published meanwhile; take a new one from there") from error


def _locked(place: FilePlace) -> FolderLock:
    lock = lock_in(place, POINTER_LOCK)
    deadline = time.monotonic() + LOCK_WAIT_S
    while not lock.acquire(shared=False):
        if time.monotonic() > deadline:
            raise Unavailable("snapshot: the pointer is held by another process; try again")
        time.sleep(0.02)
    return lock
