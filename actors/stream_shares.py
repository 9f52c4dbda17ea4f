"""Which worker reads which partition of which stream: a pure function, so that whoever computes it says the same."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

Part = tuple[str, int]
"""(stream, partition)."""


def shared_out(parts: Iterable[Part], workers: Collection[str]) -> Mapping[str, frozenset[Part]]:
    """Each partition to one worker, no worker with more than its share.

    A partition goes to the worker that its hash ranks first among those that are not full; so when a worker comes or
    goes, few partitions change hands beside those that have to.
    """
    todo = sorted(parts)
    found: dict[str, set[Part]] = {worker: set() for worker in workers}
    if not found:
        return {}
    most = -(-len(todo) // len(found))
    for part in sorted(todo, key=lambda part: _rank("", part)):
        ranked = sorted(found, key=lambda worker: _rank(worker, part))
        found[next(worker for worker in ranked if len(found[worker]) < most)].add(part)
    return {worker: frozenset(mine) for worker, mine in found.items()}


def _rank(worker: str, part: Part) -> bytes:
    return hashlib.blake2b(f"{worker}\n{part[0]}\n{part[1]}".encode(), digest_size=8).digest()
