"""The event log as its users see it: numbered entries in partitions, and what can be wrong with a reading.

    append(entries) ─► durable numbers     read(partition, after) ─► after+1, after+2, … or LogGap, LogLostTail

Numbers count the entries of one partition: the first is 1, and there are no gaps within a generation of the log. A
position is the number of the last entry that was taken, so a consumer that has read nothing stands at 0.
This module holds no client. `cluster.stores.redis_log` is the implementation on Redis Streams, and
`cluster.stores.kafka_log` the one on Kafka; `cluster.stores.open_log` opens the one that is configured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from cluster.errors import Corrupt, Rejected


class Append(NamedTuple):
    """One entry to append.

    Args:
        partition: 0 to the log's number of partitions - 1.
        data: a batch of records as Arrow IPC; opaque to the log.
        records: how many records `data` holds.
        polled_ms: when they were read from their source, ms since 1970 by the reader's clock; 0: nobody said.
    """

    partition: int
    data: bytes
    records: int
    polled_ms: int = 0


class Entry(NamedTuple):
    """One entry as it is read.

    Args:
        number: counts the partition's entries from 1.
        appended_ms: when it was appended, ms since 1970 by the appender's clock; says lag in seconds, orders nothing.
        polled_ms: as its appender said.
    """

    number: int
    data: bytes
    records: int
    appended_ms: int
    polled_ms: int = 0


def entry_as_read(number: int, data: bytes, records: int, appended_ms: int, polled_ms: int = 0) -> Entry:
    """An entry, from what a store gave.

    Raises:
        Corrupt: it was appended with records and has no bytes. (One without records has none: it fills a number.)
    """
    if records and not data:
        raise Corrupt(f"log entry {number} was appended with {records} records and is empty")
    return Entry(number, data, records, appended_ms, polled_ms)


class LogIdentity(NamedTuple):
    """Which log this is: a log that was lost and created again has another `name`.

    Args:
        name: drawn once, when the log is created.
        generation: counts up each time that a tail was lost, or the number of partitions changed; numbers go on.
        partitions: that are appended to; fixed within a generation.
    """

    name: str
    generation: int
    partitions: int


class Seam(NamedTuple):
    """Where a generation of the log takes one partition over. Numbers go on, so a position stays a number.

        … end │ end+1 … kept              │ kept+1 … resumed │ resumed+1 …
        as was │ again, as the lake has it │ nothing          │ what is appended from now on

    Args:
        end: last entry that the generation before has left.
        kept: up to here every entry is there, number for number.
        resumed: the entries kept+1 … resumed hold nothing: consumers may have taken others under these numbers.
        held: the facts of kept+1 … held are in shards, from which they are appended again; 0 where there are none.
    """

    end: int
    kept: int
    resumed: int
    held: int = 0

    def is_lost(self, at: int) -> bool:
        """Whether a consumer that stands here has taken entries that are lost."""
        return self.kept < at < self.resumed


class Generation(NamedTuple):
    """How a generation of the log began; of the first there is nothing to say.

    Args:
        seams: of all partitions, those too that it gives up, or begins with.
        partitions: that are appended to from now on; 0: as many as before.
    """

    number: int
    seams: Mapping[int, Seam]
    partitions: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost at its seams, so that there is nothing to fill."""
        return all(seam.resumed == seam.end for seam in self.seams.values())


class LogGap(Corrupt):
    """Entries right after the position asked for are trimmed: take them from the lake, then read on.

    Args:
        first_available: number of the partition's first entry that can still be read; the next one where none is left.
    """

    def __init__(self, partition: int, after: int, first_available: int) -> None:
        super().__init__(
            f"log partition {partition}: entries {after + 1} to {first_available - 1} are trimmed;"
            " read them from the lake"
        )
        self.partition, self.after, self.first_available = partition, after, first_available

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.partition, self.after, self.first_available)


class LogLostTail(Corrupt):
    """The log ends below what a consumer has taken from it: entries that were durable are gone. Stop.

    Args:
        after: what the consumer has.
        end: number of the partition's last entry.
    """

    def __init__(self, partition: int, after: int, end: int) -> None:
        super().__init__(
            f"log partition {partition} ends at {end}, but entries up to {after} were read from it: its tail is lost."
            " Stop ingest and restore the log's files, or start the system anew: a new generation of the log is opened"
        )
        self.partition, self.after, self.end = partition, after, end

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.partition, self.after, self.end)


class EventLog(Protocol):
    """What every event log does. Calls block; one instance may be used by several threads."""

    @property
    def identity(self) -> LogIdentity:
        """Which log this is."""
        ...

    @property
    def generations(self) -> Sequence[Generation]:
        """Those after the first, in order, as they were when this was opened."""
        ...

    @property
    def all_partitions(self) -> int:
        """How many partitions there are to read, those too that earlier generations have left behind; entries are
        appended to the first `identity.partitions` of them."""
        ...

    @property
    def is_unfinished(self) -> bool:
        """Whether the newest generation is still being filled: nobody but who fills it may append."""
        ...

    def begin_generation(self, new: Generation) -> None:
        """Opens a generation at the ends that its seams name; unfinished. Appenders of earlier ones are refused.

        Needs a log that was opened for mending, and is itself of the new generation afterwards.

        Raises:
            Conflict: another generation was opened, or the ends are others. Nothing has changed.
            OutcomeUnknown: open the log again; it says whether it is unfinished.
        """
        ...

    def finish_generation(self) -> None:
        """From now on everybody may open the log again. Safe to call twice."""
        ...

    def append(self, entries: Sequence[Append]) -> list[int]:
        """Appends the entries and returns their numbers, in order, once all are durable.

        Each entry is there whole or not at all; when this raises, some of them may be. To append the same again is
        harmless, since versions come from the source.

        Raises:
            Overloaded: the log is full; nothing of the call was sent, or the server itself refused for want of memory.
            Rejected: an entry is larger than the log takes; nothing was appended.
            Unavailable: the log does not answer; nothing was sent.
            OutcomeUnknown: the connection broke, or durability was not confirmed in time; append the same again.
        """
        ...

    def read(self, partition: int, after: int, limit_entries: int, limit_bytes: int, block_ms: int = 0) -> list[Entry]:
        """Entries after+1, after+2, … of a partition; empty only when there is none within `block_ms`.

        May return fewer than are there.

        Args:
            limit_bytes: stop before the entry that would exceed it; the first entry comes whatever its size.

        Raises:
            LogGap: the next entry is trimmed.
            LogLostTail: the log ends below `after`.
            Corrupt: numbers do not follow each other.
            Unavailable: the log does not answer.
        """
        ...

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        """`read` of several partitions in one call; partitions that have nothing new are absent.

        Args:
            after: position by partition.
            limit_entries, limit_bytes: of each partition.
        """
        ...

    def wait_for(self, partition: int, number: int, timeout_ms: int) -> bool:
        """Whether the partition has reached `number`, waiting for it up to `timeout_ms`."""
        ...

    def ends(self) -> dict[int, int]:
        """Number of the last entry by partition; 0 where nothing was ever appended."""
        ...

    def begins(self) -> dict[int, int]:
        """Number of the first entry that can be read, by partition; end + 1 where there is none."""
        ...

    def records(self) -> dict[int, int]:
        """Records ever appended, by partition; absent where there are none. For display of lag, not for accounts."""
        ...

    def bytes_used(self) -> int:
        """Memory or disk that the log's entries take, bytes; what is trimmed may count for some minutes."""
        ...

    def trim(self, partition: int, below: int) -> int:
        """Removes the entries with numbers less than `below`; returns how many. Safe to call twice.

        Call it only with what all shards, the lake and moves have made durable (`ConsumerPositions.least`).
        """
        ...

    def close(self) -> None:
        """Closes the connections. Safe to call twice."""
        ...


def all_partitions(identity: LogIdentity, generations: Sequence[Generation]) -> int:
    """How many partitions a log has that knows these generations; see `EventLog.all_partitions`."""
    return max(identity.partitions, *(len(one.seams) for one in generations), 0)


def check_number(has: int, wanted: int) -> None:
    """Nothing, if the log is appended to by as many partitions as the settings say.

    Raises:
        Rejected: by another number.
    """
    if has != wanted:
        raise Rejected(
            f"the event log has {has} partitions, and log.partitions is {wanted}: set it to {has}. To give the log"
            f" {wanted} partitions, say `intelgraph log repartition {wanted}` first; the next `intelgraph up` with"
            f" log.partitions {wanted} does it, and goes on where one was cut off"
        )


def generation_at(generations: Sequence[Generation], partition: int, at: int, first: int = 1) -> int:
    """The generation of the entry that follows a position."""
    return max((one.number for one in generations if partition in one.seams and one.seams[partition].end <= at),
               default=first)  # fmt: skip


def check_continuity(partition: int, after: int, numbers: Sequence[int]) -> None:
    """Nothing if the numbers are after+1, after+2, …

    Raises:
        LogGap: the first is greater than after+1.
        Corrupt: anything else that is not consecutive.
    """
    if not numbers:
        return
    if numbers[0] > after + 1:
        raise LogGap(partition, after, numbers[0])
    for expected, number in enumerate(numbers, after + 1):
        if number != expected:
            raise Corrupt(
                f"log partition {partition}: entry {number} stands where {expected} belongs; restore its files"
            )


def check_range(partition: int, after: int, begin: int, end: int) -> None:
    """Nothing if a consumer at `after` can go on in a partition that holds begin..end.

    Raises:
        LogLostTail: it ends below `after`.
        LogGap: it begins above after+1.
    """
    if end < after:
        raise LogLostTail(partition, after, end)
    if begin > after + 1:
        raise LogGap(partition, after, begin)


def check_tails(ends: Mapping[int, int], taken: Mapping[int, int]) -> None:
    """At start, before anything is appended: no consumer may have more than the log.

    Args:
        ends: of the log, by partition.
        taken: the greatest position that any consumer has made durable, by partition.

    Raises:
        LogLostTail: of the first such partition; later appends would take the lost entries' numbers.
    """
    for partition, after in sorted(taken.items()):
        if ends.get(partition, 0) < after:
            raise LogLostTail(partition, after, ends.get(partition, 0))
