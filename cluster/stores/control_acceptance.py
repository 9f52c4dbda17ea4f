"""Positions for records that come without: given once, in one transaction with what a retry is known by.

What a key got is never forgotten before its time, or a retry would get newer versions than what came after it: over
the bound of a tenant's keys a new one is refused instead.

A source's assigned positions count up within its newest epoch. When a load has opened an epoch meanwhile, the next
acceptance opens a newer one, so that what is accepted later is the newer version whichever way it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from cluster.errors import Overloaded, Rejected
from cluster.stores import control_tallies as tallies
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_sources import Source, live_source_in, set_counters, use_positions
from cluster.stores.control_tables import acceptances, epochs

CLOCK_SLACK_HOURS = 2.0
"""Keys are kept longer by this: a clock that was an hour slow and is now an hour fast expires none early."""

_KEY_CHARS = 256


def kept_seconds(hours: float) -> float:
    """How long a key is kept so that it is remembered for `hours` at least, whatever clocks do."""
    return (hours + CLOCK_SLACK_HOURS) * 3600


class IdempotencyMismatch(Rejected):
    """The Idempotency-Key was used with another body (HTTP 422)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Where the records of a request stand.

    Args:
        epoch, first_position: record i of the request has the version (epoch, first_position + i).
        replayed: the request was accepted before; its records get the same versions again.
    """

    epoch: int
    first_position: int
    replayed: bool


class Acceptance:
    """Accepts requests whose records have no positions.

    Args:
        hours: an Idempotency-Key is remembered at least so long.
    """

    def __init__(self, database: ControlDatabase, hours: float) -> None:
        self._database, self._kept_s = database, kept_seconds(hours)

    def accept(
        self, tenant: str, source: str, key: str | None, body_hash: str, count: int, now: float, most: int = 500_000
    ) -> Accepted:
        """Gives `count` positions to a request; the same key and body get the same ones again.

        No position is given twice, whatever crashes: those of a request that was not appended stay unused.

        Args:
            key: the Idempotency-Key; None if the caller sent none, then each call is a new request.
            body_hash: of the request's bytes.
            now: seconds since 1970; only ever used to forget old keys.
            most: keys of a tenant that are remembered.

        Raises:
            IdempotencyMismatch: the key was used with another body.
            Overloaded: the tenant has `most` keys; nothing was given.
            BadRecord: the source's records bring their own positions.
            NotFound, Forbidden: there is no such source, or it is killed.
        """
        if count < 0 or (key is not None and not 1 <= len(key) <= _KEY_CHARS):
            raise Rejected(f"Idempotency-Key: 1 to {_KEY_CHARS} characters")
        with self._database.write() as connection:
            found = live_source_in(connection, tenant, source)
            if key is not None and (earlier := self._earlier(connection, tenant, source, key, now, most)):
                if (earlier.body_hash, earlier.count) != (body_hash, count):
                    raise IdempotencyMismatch(f"Idempotency-Key {key!r} was used with another body; use a new key")
                return Accepted(earlier.epoch, earlier.first_position, True)
            use_positions(connection, found, "assigned")
            epoch, first = _take_positions(connection, found, count, now)
            if key is not None:
                row = {"tenant": tenant, "source": source, "key": key, "body_hash": body_hash, "epoch": epoch}
                connection.execute(insert(acceptances).values(**row, first_position=first, count=count, created=now))
                tallies.add(connection, tallies.KEYS, tenant, 1)
            return Accepted(epoch, first, False)

    def _earlier(self, connection: Connection, tenant: str, source: str, key: str, now: float, most: int) -> Any:
        """What the key got before; None where it is new and there is room for it. Raises Overloaded."""
        mine, oldest = acceptances.c.tenant == tenant, now - self._kept_s
        forgotten = connection.execute(delete(acceptances).where(mine, acceptances.c.created < oldest)).rowcount
        tallies.add(connection, tallies.KEYS, tenant, -forgotten)
        found = connection.execute(select(acceptances).where(*_is(tenant, source, key))).one_or_none()
        if found is None and tallies.one(connection, tallies.KEYS, tenant) >= most:
            first = connection.execute(select(func.min(acceptances.c.created)).where(mine)).scalar_one()
            raise Overloaded(
                f"{most:,} Idempotency-Keys of this tenant are remembered (ingest.idempotency_positions), none of which"
                " may be forgotten yet: send larger batches, or raise the limit",
                max(1.0, (now if first is None else first) - oldest),
            )
        return found


def _take_positions(connection: Connection, source: Source, count: int, now: float) -> tuple[int, int]:
    if source.assigned_epoch is not None and source.assigned_epoch == source.next_epoch - 1:
        set_counters(connection, source, next_position=source.next_position + count)
        return source.assigned_epoch, source.next_position
    epoch = source.next_epoch
    row = {"tenant": source.tenant, "source": source.name, "digest": f"accepted/{epoch}", "epoch": epoch}
    connection.execute(insert(epochs).values(**row, created=now))
    set_counters(connection, source, next_epoch=epoch + 1, assigned_epoch=epoch, next_position=1 + count)
    return epoch, 1


def _is(tenant: str, source: str, key: str) -> tuple[Any, ...]:
    return acceptances.c.tenant == tenant, acceptances.c.source == source, acceptances.c.key == key
