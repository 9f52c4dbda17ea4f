"""What fetches brought and nobody has taken yet.

A fetch brings whole batches, mostly more than a reader takes at once. The rest waits under the position that its reader
will ask for next, so a sequential reader fetches nothing twice; readers at other positions do not disturb it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Unread(ABC, Generic[T]):
    """What a fetch brought of one partition, decoded batch by batch as it is taken.

    Args:
        packed_bytes: of all batches, as they were fetched.
    """

    def __init__(self, packed_bytes: int) -> None:
        self._packed_bytes = packed_bytes
        self._held: deque[T] = deque()

    @property
    def size_bytes(self) -> int:
        """Memory that it takes: all that was fetched, and the items of the batch that is being taken."""
        return self._packed_bytes + sum(self._item_bytes(item) for item in self._held)

    def empty(self) -> bool:
        """Whether all of it is taken; raises as `_decoded` does."""
        while not self._held and (more := self._decoded()) is not None:
            self._held.extend(more)
        return not self._held

    def take(self, limit_items: int, limit_bytes: int) -> list[T]:
        """The next items; at least one if there is one, otherwise up to the limits. Raises as `empty` does."""
        taken: list[T] = []
        total = 0
        while len(taken) < max(1, limit_items) and not self.empty():
            total += self._item_bytes(self._held[0])
            if taken and total > limit_bytes:
                break
            taken.append(self._held.popleft())
        return taken

    @abstractmethod
    def _decoded(self) -> list[T] | None:
        """The items of the next batch; None: there is none."""

    @abstractmethod
    def _item_bytes(self, item: T) -> int:
        """What counts for `limit_bytes`."""


K = TypeVar("K", bound=Hashable)
U = TypeVar("U", bound=Unread[Any])


class ReadAhead(Generic[K, U]):
    """What is left of fetches, by partition and position, within a bound. Threads may share an instance.

    Args:
        most_bytes: kept in all; over that, what was used longest ago is dropped.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[K, int], tuple[U, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def pop(self, partition: K, at: int) -> U | None:
        """What waits for a reader at that position; it is the caller's from now on."""
        with self._lock:
            return self._forget((partition, at))

    def put(self, partition: K, at: int, unread: U) -> None:
        """Keeps it for the reader that will come to that position."""
        with self._lock:
            self._forget((partition, at))
            size = unread.size_bytes
            self._kept[partition, at] = unread, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                self._forget(next(iter(self._kept)))

    def drop(self, partition: K, below: int) -> None:
        """Forgets what waits at positions under `below`."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == partition and key[1] < below]:
                self._forget(key)

    def _forget(self, key: tuple[K, int]) -> U | None:
        unread, size = self._kept.pop(key, (None, 0))
        self._bytes -= size
        return unread
