"""Tallies: counts that are kept in the transaction of what they count, so that no crash parts the two.

    add(connection, LETTERS_IN, "decode", 1)     within a transaction that writes      of(connection, LETTERS_IN)

What would take a walk over a table is one row here; and it is the same number whichever process has counted.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from cluster.stores.control_database import insert_new
from cluster.stores.control_tables import tallies

LETTERS_IN = "letters in"
"""Dead letters that came, by error class."""
LETTERS_OUT = "letters out"
"""How attempts at dead letters ended, by outcome."""
KEYS = "acceptances"
"""Idempotency-Keys whose positions are remembered, by tenant."""


def add(connection: Connection, what: str, label: str, by: int) -> None:
    """Counts `by` more, or fewer."""
    if not by:
        return
    insert_new(connection, tallies, [{"what": what, "label": label, "count": 0}])
    one = (tallies.c.what == what, tallies.c.label == label)
    connection.execute(update(tallies).where(*one).values(count=tallies.c.count + by))


def of(connection: Connection, what: str) -> dict[str, int]:
    """All counts of one thing, by label."""
    found = connection.execute(select(tallies.c.label, tallies.c.count).where(tallies.c.what == what))
    return {row[0]: row[1] for row in found}


def one(connection: Connection, what: str, label: str) -> int:
    """One count; 0 where nothing was ever counted."""
    query = select(tallies.c.count).where(tallies.c.what == what, tallies.c.label == label)
    return connection.execute(query).scalar_one_or_none() or 0
