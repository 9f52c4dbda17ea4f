"""One node at a time works on a control store in PostgreSQL: a lock of the node's session.

    take() ─► it is ours, until `end`, or until the server loses the session
    take() ─► … again each second: still ours, or taken anew after the server was away

A store in SQLite needs none of it: the node holds the lock of its state directory, where the file is.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from cluster.errors import Conflict

_LOCK = 0x17E17
_NAME_CHARACTERS = 63
"""What the server keeps of a session's name."""


class Tenure(Protocol):
    """The right of one node to work on a control store. For one thread."""

    def take(self) -> None:
        """Takes it, or sees that it is still held. Safe to call twice.

        Raises:
            Conflict: another node has it.
            Unavailable: the database does not answer.
        """

    def end(self) -> None:
        """Gives it back. Safe to call twice."""


class NoTenure:
    """Of a store that only this node's state directory leads to."""

    def take(self) -> None:
        """Held already."""

    def end(self) -> None:
        """Nothing to give back."""


class SessionTenure:
    """See `Tenure`: raises SQLAlchemy's errors where the database does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def take(self) -> None:
        """See `Tenure.take`."""
        if self._connection is not None:
            try:
                self._connection.exec_driver_sql("SELECT 1")
            except SQLAlchemyError:
                self.end()
                raise
            return
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            connection.detach()  # the lock is the session's: it must not go back to the pool with it
            name = f"intelgraph node on {socket.gethostname()}"[:_NAME_CHARACTERS]
            connection.exec_driver_sql("SELECT set_config('application_name', %s, false)", (name,))
            if not connection.exec_driver_sql("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).scalar_one():
                raise Conflict(f"control store: another node works on it: {_holder(connection)}", 1.0)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def end(self) -> None:
        """See `Tenure.end`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()


def _holder(connection: Connection) -> str:
    query = (
        "SELECT a.application_name, coalesce(host(a.client_addr), 'its own host'), a.backend_start::timestamp(0)"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
        " AND l.objid = %s AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    found = connection.exec_driver_sql(query, (_LOCK,)).first()
    if found is None:
        return "it has just ended; try again"
    return f"{found[0]}, connected from {found[1]} since {found[2]} UTC; say `intelgraph down` there"
