"""Leases: one holder at a time, each take-over with a greater token, so that an earlier holder can be refused."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update

from cluster.errors import Conflict, Fenced
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_tables import leases

_RETRY_MAX_S = 5.0


class Leases:
    """Named leases. A lease only says who should work; what must not be done twice is guarded by its token."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def acquire(self, name: str, holder: str, ttl_s: float, now: float, *, by_force: bool = False) -> int:
        """Takes the lease if it is free or expired, or held under this very name, and returns its new token.

        A clock that goes backwards makes the lease last longer, never end earlier.

        Args:
            holder: who; a restarted process that names itself the same takes over at once.
            by_force: take it over whoever holds it; they are refused from then on.

        Raises:
            Conflict: another holds it; `retry_after_s` says when to try again.
        """
        with self._database.write() as connection:
            row = _get(connection, name)
            if row is None:
                connection.execute(insert(leases).values(name=name, holder=holder, token=1, expires=now + ttl_s))
                return 1
            if row.holder != holder and now < row.expires and not by_force:
                left_s = min(row.expires - now, _RETRY_MAX_S)
                raise Conflict(f"lease {name} is held by {row.holder}; wait for it to expire", left_s)
            values = {"holder": holder, "token": row.token + 1, "expires": now + ttl_s}
            connection.execute(update(leases).where(leases.c.name == name).values(**values))
            return int(row.token) + 1

    def renew(self, name: str, token: int, ttl_s: float, now: float) -> None:
        """Extends the lease from now; also an expired one that nobody has taken over. Safe to call twice.

        Raises:
            Fenced: another has taken over, or it was released: stop working.
        """
        with self._database.write(later=True) as connection:
            row = require(connection, name, token)
            connection.execute(
                update(leases).where(leases.c.name == name).values(expires=max(row.expires, now + ttl_s))
            )

    def release(self, name: str, token: int) -> None:
        """Gives the lease back; does nothing if it is another's by now. Safe to call twice."""
        mine = (leases.c.name == name, leases.c.token == token)
        with self._database.write(later=True) as connection:
            connection.execute(update(leases).where(*mine).values(holder="", expires=0.0))

    def check(self, name: str, token: int) -> None:
        """Nothing if the token is the current one. Raises Fenced."""
        with self._database.read() as connection:
            require(connection, name, token)


def require(connection: Connection, name: str, token: int) -> Any:
    """The lease's row, within a transaction, if the token is the current one. Raises Fenced."""
    row = _get(connection, name)
    if row is None or row.token != token or not row.holder:
        raise Fenced(f"lease {name}: token {token} is no longer current; stop, and acquire it again")
    return row


def _get(connection: Connection, name: str) -> Any:
    query = select(leases.c.name, leases.c.holder, leases.c.token, leases.c.expires).where(leases.c.name == name)
    return connection.execute(query).one_or_none()
