"""Taking a load back from the command line: the lake is waited for, then what `actors.undo` decides is appended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.undo import Undone
    from cluster.model import Record
    from cluster.stores.lake import Lake
    from serve_apps.cli.session import Session


def take_back(session: Session, tenant: str, load: str, actor: str, wait_s: float) -> tuple[Undone, int]:
    """(what was done, log entries that shards have not applied when the wait ends). Safe to repeat.

    Raises:
        NotFound, Rejected, Conflict: as `actors.undo.Undo.undo`.
        Unavailable: the lake does not reach the log's ends within `wait_s`.
    """
    from actors.undo import Undo
    from serve_apps.cli.loading import wait_applied

    with closing(session.stack.open_lake()) as lake:
        reader = _UpToNow(session, lake, wait_s)
        done = Undo(session.control, session.log, reader, session.settings).undo(tenant, load, actor)
    return done, wait_applied(session, done.reached, wait_s)


class _UpToNow:
    """The lake, once it holds the log up to the moment of the question."""

    def __init__(self, session: Session, lake: Lake, wait_s: float) -> None:
        self._session, self._lake, self._wait_s = session, lake, wait_s

    def events(self, tenant: str, source: str) -> Iterator[Record]:
        """Everything that the source said and its floors. Raises Unavailable."""
        from workloads.snapshot.job import wait_for_lake

        wait_for_lake(self._lake, self._session.log.ends(), self._wait_s)
        return records_of(self._lake, tenant, source)


def records_of(lake: Lake, tenant: str, source: str) -> Iterator[Record]:
    """A source's records in the lake, batch by batch."""
    from cluster import batch

    for rows in lake.read(tenant=tenant, source=source):
        yield from batch.from_arrow(rows.select(batch.SCHEMA.names))
