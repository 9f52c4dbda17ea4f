"""Whose shard a database is: nobody else's facts are served, and nobody else's graph is written to."""

from __future__ import annotations

from typing import NamedTuple

from cluster.errors import Rejected


class Owner(NamedTuple):
    """Who a database belongs to.

    Args:
        log: the name of the event log that it is filled from (`LogIdentity.name`).
        name: the shard's id.
    """

    log: str
    name: str


def refuse_other(what: str, found: Owner | None, wanted: Owner, own: str, other: str) -> None:
    """Raises Rejected where a database is another shard than it should be.

    Args:
        what: it is, such as `the database`.
        found: whose it is; None: nobody's.
        own, other: what is to be done where it is of the same installation, and of another.
    """
    if found is None or found == wanted:
        return
    if found.log == wanted.log:
        raise Rejected(f"{what} is shard {found.name} of this installation already: {own}")
    raise Rejected(f"{what} is shard {found.name} of another installation, or of an event log that was lost: {other}")
