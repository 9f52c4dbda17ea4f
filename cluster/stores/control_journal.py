"""The control partition: every change of the control store is in the log before it is committed.

    BEGIN IMMEDIATE ─► statements ─► change set ─► append as entry n + 1 ─► the store says n + 1 ─► COMMIT

An entry names the number that it expects to get, and counts only if it got that: its writer held the store's lock and
knew everything up to the entry before. So an append whose outcome its writer never learned is either the next entry,
and is put into the store by whoever writes next (its commit is done for it), or it came behind another and is void.
What an entry means is in the entry and its number; who reads it, and when, changes nothing.

A change set that is larger than an entry is cut into several, one after the other; a beginning without its end is void.
The partition is an event log of its own with one partition, on the same servers.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, update

from cluster.errors import Conflict, Corrupt, Unavailable
from cluster.stores import control_changes as changes
from cluster.stores.control_tables import control_log
from cluster.stores.log import Append, Entry, EventLog, LogLostTail

PARTITION = 0
_READ_ENTRIES, _READ_BYTES = 256, 16 << 20
_ROOM_BYTES = 1024
"""Of an entry, for what stands around its part of a change set."""


class Part(msgspec.Struct, array_like=True):
    """One entry of the partition.

    Args:
        expects: the number that it has if it counts.
        part, parts: which of how many entries of one change set, from 0.
        data: the compressed change set, or its part.
    """

    expects: int
    part: int
    parts: int
    data: bytes


class LogIsAhead(Conflict):
    """The partition has entries that the store lacks; nothing was committed."""

    def __init__(self) -> None:
        super().__init__("control store: a write that was cut off came first; read again, try again", 0.1)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), ()


class Appended(NamedTuple):
    """The last entry of a change set, and what its entries take."""

    number: int
    size_bytes: int


class Replayed(NamedTuple):
    """What was put into the store.

    Args:
        change_sets: how many. number: the store is complete up to this entry.
    """

    change_sets: int
    number: int


class Reader:
    """Puts entries together again, in their order."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._of = 0

    @property
    def is_amid(self) -> bool:
        """Whether the entries so far end within a change set."""
        return bool(self._parts)

    def take(self, entry: Entry) -> changes.ChangeSet | None:
        """The change set that ends with this entry, if one does.

        Raises:
            Corrupt: it cannot be read.
        """
        try:
            part = msgspec.msgpack.decode(entry.data, type=Part) if entry.data else None
            if part is None or part.expects != entry.number:
                self._parts = []
                return None
            if part.part != len(self._parts) or (part.part and part.parts != self._of):
                self._parts = []
            if part.part != len(self._parts):
                return None
            self._parts.append(part.data)
            self._of = part.parts
            if len(self._parts) < part.parts:
                return None
            whole, self._parts = b"".join(self._parts), []
            return msgspec.msgpack.decode(zlib.decompress(whole), type=changes.ChangeSet)
        except (msgspec.DecodeError, zlib.error) as error:
            raise Corrupt(f"control partition of the log: entry {entry.number} cannot be read; restore it") from error


class ControlJournal:
    """Appends the changes of a control store; shared by threads.

    Args:
        open_log: opens the control partition; called when it is needed first.
        entry_bytes: the largest entry.
    """

    def __init__(self, open_log: Callable[[], EventLog], entry_bytes: int) -> None:
        self._open_log, self._entry_bytes = open_log, entry_bytes
        self._log: EventLog | None = None
        self._lock = threading.Lock()
        self._has_served = False

    def append(self, connection: Connection) -> Appended | None:
        """Appends what the transaction changed, if the installation is up; None where there was nothing to append. From
        then on it is done, whatever becomes of the transaction; `note` says so in the store.

        Raises:
            LogIsAhead: see there; roll back, `catch_up`, and let the caller look again.
            Unavailable: the log does not answer; or nobody serves the store any more, and something was changed.
            OutcomeUnknown: the log may have taken the entry.
            Corrupt: this is another log. LogLostTail: it lacks entries that the store has; the next start mends that.
        """
        bound = changes.number_of(connection)
        if bound is None or not bound.serving:
            if self._has_served and changes.pending(connection):
                raise Unavailable(
                    "control store: the system is going down, or its database was set back to before it came up: then"
                    " say `intelgraph down` and `intelgraph up`",
                    5.0,
                )
            return None  # the next start appends what is noted, before anything is served
        self._has_served = True
        found = changes.take(connection)
        if found is None:
            return None
        first = int(bound.number) + 1
        log = self._of(str(bound.name))
        if (end := log.ends()[PARTITION]) < int(bound.number):  # others would get the numbers of what is lost
            raise LogLostTail(PARTITION, int(bound.number), end)
        entries = self._entries(found, first)
        numbers = log.append(entries)
        if numbers != list(range(first, first + len(entries))):
            raise LogIsAhead
        return Appended(numbers[-1], sum(len(entry.data) for entry in entries))

    def note(self, connection: Connection, appended: Appended) -> None:
        """The store's number goes on with its changes."""
        number, size = appended
        connection.execute(update(control_log).values(number=number, bytes=control_log.c.bytes + size))

    def catch_up(self, connection: Connection) -> None:
        """Puts into the store what the log has and it lacks. Safe to call twice."""
        bound = changes.number_of(connection)
        if bound is not None and bound.serving:
            replay(connection, self._of(str(bound.name)), int(bound.number))

    def close(self) -> None:
        """Closes the connection. Safe to call twice."""
        with self._lock:
            if self._log is not None:
                self._log.close()
            self._log = None

    def _of(self, name: str) -> EventLog:
        with self._lock:
            if self._log is None:
                self._log = self._open_log()
            if self._log.identity.name != name:
                raise Corrupt(
                    f"the log's control partition ({self._log.identity.name[:8]}) is not the one that this control"
                    f" store belongs to ({name[:8]}): restore the log's files"
                )
            return self._log

    def _entries(self, found: changes.ChangeSet, first: int) -> list[Append]:
        whole, most = zlib.compress(msgspec.msgpack.encode(found), 1), self._entry_bytes - _ROOM_BYTES
        cut = [whole[start : start + most] for start in range(0, len(whole), most)]
        parts = [Part(first + index, index, len(cut), data) for index, data in enumerate(cut)]
        return [Append(PARTITION, msgspec.msgpack.encode(part), 1) for part in parts]


def replay(connection: Connection, log: EventLog, number: int) -> Replayed:
    """Puts every change set behind `number` into the store, within its transaction.

    Raises:
        LogGap: entries that the store lacks are trimmed.
        LogLostTail: the log ends below `number`.
        Rejected: a newer version wrote an entry. Corrupt: one cannot be read.
    """
    reader, done, size = Reader(), 0, 0
    while True:
        end = log.ends()[PARTITION]
        if end < number:
            raise LogLostTail(PARTITION, number, end)
        while number < end:
            read: list[changes.ChangeSet] = []
            for entry in log.read(PARTITION, number, _READ_ENTRIES, _READ_BYTES):
                number, size = entry.number, size + len(entry.data)
                if (found := reader.take(entry)) is not None:
                    read.append(found)
            for found in changes.latest(read):  # a row that changes each second is put once
                changes.put(connection, found)
            done += len(read)
        if not reader.is_amid:
            break
        log.append([Append(PARTITION, b"", 0)])  # the rest, should it come still, comes behind this, and is void
    connection.execute(update(control_log).values(number=number, bytes=control_log.c.bytes + size))
    return Replayed(done, number)
