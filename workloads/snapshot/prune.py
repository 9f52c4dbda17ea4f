"""Removing snapshots that are no longer wanted, and what crashed attempts left.

Whoever writes or reads a snapshot holds a lock on it that ends with the process, so what can be locked exclusively is
in nobody's hands. The manifest goes first: a snapshot half removed is no snapshot.

A pointer that is on its way to S3 may arrive later. It replaces only the pointer that it was made from, so a snapshot
can become the latest one as long as none of its sequence number was published; until then it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Rejected
from cluster.stores.files import ASIDE_SUFFIX, fsync_folder
from cluster.stores.places import FilePlace, lock_in, place_at
from workloads.snapshot.layout import MANIFEST
from workloads.snapshot.publish import POINTER_LOCK
from workloads.snapshot.read import LOCK, list_snapshots, read_pointer


@dataclass(frozen=True)
class Pruned:
    """Ids that were removed, and ids that would have been but are in use."""

    removed: tuple[str, ...]
    in_use: tuple[str, ...]


def prune(where: FilePlace | Path, keep: int) -> Pruned:
    """Removes all but the newest `keep` snapshots, and every unpublished one that nobody writes. Safe to call twice.

    Never removed: the latest snapshot, one that somebody reads, and in S3 one that may still become the latest.

    Raises:
        Rejected: `keep` is less than 1.
    """
    if keep < 1:
        raise Rejected(f"keep {keep}: give 1 or more; the latest snapshot always stays")
    place = place_at(where)
    pointer = read_pointer(place)
    kept = {manifest.id for manifest in list_snapshots(place)[-keep:]} | ({pointer.id} if pointer else set())
    removed: list[str] = []
    in_use: list[str] = []
    for name in place.folders():
        if name not in kept:
            latest = pointer.sequence if pointer else 0
            may_be_latest = place.is_remote and _sequence(name) > latest
            (in_use if may_be_latest or not _remove(place, name) else removed).append(name)
    _remove_left_pointers(place)
    return Pruned(tuple(removed), tuple(in_use))


def _sequence(name: str) -> int:
    number = name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _remove_left_pointers(place: FilePlace) -> None:
    """Pointers that were written aside and never published; not while somebody publishes one."""
    lock = lock_in(place, POINTER_LOCK)
    if not lock.acquire(shared=False):
        return
    try:
        for left in place.local.glob(f"*{ASIDE_SUFFIX}"):
            left.unlink(missing_ok=True)
    finally:
        lock.release()


def _remove(home: FilePlace, name: str) -> bool:
    lock = lock_in(home, f"{name}/{LOCK}")
    if not lock.acquire(shared=False):
        return False
    place = home.within(name)
    try:
        place.remove(MANIFEST)
        fsync_folder(place.local)
        place.remove_all()
    finally:
        lock.release()
    return True
