"""How far each consumer of the log has made its copy durable: what the log may be trimmed by. And which log it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, func, select

from cluster.errors import Corrupt
from cluster.stores.control_database import ControlDatabase, insert_new, upsert
from cluster.stores.control_tables import consumer_positions, logs
from cluster.stores.log import LogIdentity


class ConsumerPositions:
    """Durable positions of shards, lake and moves; live readers are none of these and hold nothing."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def register(self, consumer: str, partitions: Sequence[int], now: float) -> None:
        """From now on the log keeps for this consumer whatever it has not reported. Safe to call twice."""
        rows = [{"consumer": consumer, "partition": partition, "number": 0, "at": now} for partition in partitions]
        with self._database.write() as connection:
            insert_new(connection, consumer_positions, rows)

    def report_durable(self, consumer: str, numbers: Mapping[int, int], now: float) -> None:
        """Notes up to which entry of each partition a consumer's copy is durable. Safe to call twice.

        A lesser number than before is taken too: a copy that came back older needs the log from there.
        """
        with self._database.write(later=True) as connection:
            for partition, number in numbers.items():
                row = {"consumer": consumer, "partition": partition, "number": number, "at": now}
                upsert(connection, consumer_positions, row)

    def remove(self, consumer: str) -> None:
        """Forgets a consumer; it holds the log no longer. Safe to call twice."""
        with self._database.write() as connection:
            connection.execute(delete(consumer_positions).where(consumer_positions.c.consumer == consumer))

    def of(self, consumer: str) -> dict[int, int]:
        """What a consumer has reported, by partition."""
        column = consumer_positions.c
        with self._database.read() as connection:
            rows = connection.execute(select(column.partition, column.number).where(column.consumer == consumer))
            return {row[0]: row[1] for row in rows}

    def least(self) -> dict[int, int]:
        """By partition, what every registered consumer has made durable: trim below this + 1, and partitions that are
        absent not at all."""
        return self._by_partition("min")

    def greatest(self) -> dict[int, int]:
        """By partition, the furthest that any consumer has reported: no log may end below it (`log.check_tails`)."""
        return self._by_partition("max")

    def bind_log(self, identity: LogIdentity) -> None:
        """Remembers the first log that it is given, with each of its generations, and refuses another one ever after.

        Raises:
            Corrupt: this is not the log that the positions are of: it was lost and created again.
        """
        with self._database.write() as connection:
            for known in connection.execute(select(logs)).all():
                other = known.generation == identity.generation and known.partitions != identity.partitions
                if known.name != identity.name or other:
                    raise Corrupt(
                        f"this event log ({identity.name[:8]}) is not the one that shards and lake were filled from"
                        f" ({known.name[:8]}): restore the log's files, or start with an empty state directory"
                    )
            insert_new(connection, logs, [identity._asdict()])

    def newest_log(self) -> LogIdentity | None:
        """The newest generation of the log that was ever bound; None before the first."""
        newest = select(logs.c.name, logs.c.generation, logs.c.partitions).order_by(logs.c.generation.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(newest).one_or_none()
        return None if row is None else LogIdentity(*row)

    def _by_partition(self, function: str) -> dict[int, int]:
        column = consumer_positions.c
        query = select(column.partition, getattr(func, function)(column.number)).group_by(column.partition)
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}
