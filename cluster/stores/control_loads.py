"""Epochs of source ranges, and loads: what was read of a file, how far, and what became of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Label, Row, Select, func, insert, select, update

from cluster.errors import Conflict, NotFound, Rejected
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_epochs import epoch_of
from cluster.stores.control_tables import load_ranges, loads


@dataclass(frozen=True, slots=True)
class Load:
    """One reading of a recorded range, usually a file.

    Args:
        epoch: of the range: the same content has the same one, whenever and however often it is read.
        digest: of the content.
        label: what people call it: the path or URL.
        mapping: how columns become fields.
        acked: records that are durable in the log; dead: those that became dead letters instead.
        applied, duplicate, stale: what the shards did with the acked ones, as last counted.
        started, ended: seconds since 1970.
    """

    id: str
    tenant: str
    source: str
    epoch: int
    digest: str
    label: str
    mapping: dict[str, Any]
    state: Literal["running", "done", "undone"]
    acked: int
    applied: int
    duplicate: int
    stale: int
    dead: int
    started: float
    ended: float | None

    @property
    def uncounted(self) -> int:
        """Acknowledged records whose outcome nobody has counted."""
        return max(0, self.acked - self.applied - self.duplicate - self.stale)


class Loads:
    """Epochs and loads."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def epoch_of(self, tenant: str, source: str, digest: str, now: float) -> int:
        """The epoch of a range of a source: the same digest's is the same for ever, a new digest gets the next one.

        Raises:
            NotFound, Forbidden: there is no such source, or it is killed.
        """
        with self._database.write() as connection:
            return epoch_of(connection, [tenant], source, digest, now)

    def start(
        self,
        tenant: str,
        source: str,
        digest: str,
        now: float,
        *,
        label: str = "",
        mapping: dict[str, Any] | None = None,
    ) -> Load:
        """Starts a load, or returns the one of this content that is still running, to be continued.

        Raises:
            NotFound, Forbidden: there is no such source, or it is killed.
        """
        with self._database.write() as connection:
            epoch = epoch_of(connection, [tenant], source, digest, now)
            same = (loads.c.tenant == tenant, loads.c.source == source, loads.c.digest == digest)
            running = connection.execute(_counted().where(*same, loads.c.state == "running").limit(1)).one_or_none()
            if running is not None:
                return _load(running)
            id = uuid.uuid4().hex
            row = {"id": id, "tenant": tenant, "source": source, "epoch": epoch, "digest": digest}
            how = {"label": label, "mapping": json.dumps(mapping or {}, sort_keys=True), "state": "running"}
            connection.execute(insert(loads).values(**row, **how, started=now))
            return _get(connection, tenant, id)

    def get(self, tenant: str, load: str) -> Load:
        """One load. Raises NotFound."""
        with self._database.read() as connection:
            return _get(connection, tenant, load)

    def list(self, tenant: str, limit: int = 100) -> list[Load]:
        """A tenant's latest loads, newest first."""
        query = _counted().where(loads.c.tenant == tenant).order_by(loads.c.started.desc(), loads.c.id).limit(limit)
        with self._database.read() as connection:
            return [_load(row) for row in connection.execute(query)]

    def every(self, tenant: str, page: int = 1_000) -> Iterator[Load]:
        """All loads of a tenant by id, some at a time: none that was there when it began is left out."""
        after = ""
        while True:
            query = _counted().where(loads.c.tenant == tenant, loads.c.id > after).order_by(loads.c.id).limit(page)
            with self._database.read() as connection:
                found = [_load(row) for row in connection.execute(query)]
            yield from found
            if len(found) < page:
                return
            after = found[-1].id

    def positions(self, tenant: str, load: str) -> dict[int, int]:
        """How far each range of the load is committed; a range that is absent stands at 0."""
        with self._database.read() as connection:
            _get(connection, tenant, load)
            query = select(load_ranges.c.range, load_ranges.c.position).where(load_ranges.c.load == load)
            return {row[0]: row[1] for row in connection.execute(query)}

    def commit(
        self, tenant: str, load: str, range: int, expected: int, position: int, *, acked: int = 0, dead: int = 0
    ) -> None:
        """Moves a range of the load forward, with the counts of what was read in between: both, or neither.

        Args:
            range: number of the range within the load.
            expected: its position until now, 0 at first.
            position: behind the last record that is durable in the log or as a dead letter.

        Raises:
            Conflict: the range stands elsewhere: another worker has it, or this call has succeeded before.
            Rejected: it would not move forward, or the load has ended.
            NotFound: there is no such load.
        """
        if position <= expected:
            raise Rejected(f"load {load}: position {position} is not after {expected}")
        with self._database.write(later=True) as connection:
            if _get(connection, tenant, load).state != "running":
                raise Rejected(f"load {load} has ended; start it again")
            _move(connection, load, range, expected, position, acked, dead)

    def record_outcomes(self, tenant: str, load: str, *, applied: int, duplicate: int, stale: int) -> None:
        """Sets what the shards did with the load's records, counted from the start. Safe to call twice."""
        counts = {"applied": applied, "duplicate": duplicate, "stale": stale}
        with self._database.write(later=True) as connection:
            _get(connection, tenant, load)
            connection.execute(update(loads).where(loads.c.id == load).values(**counts))

    def end(self, tenant: str, load: str, state: Literal["done", "undone"], now: float) -> None:
        """Ends a load, or marks one that is done as undone. Safe to call twice.

        Raises:
            Rejected: it is undone and shall be done.
            NotFound: there is no such load.
        """
        with self._database.write() as connection:
            found = _get(connection, tenant, load)
            if found.state == "undone" and state == "done":
                raise Rejected(f"load {load} was undone; start it again")
            if found.state != state:
                connection.execute(update(loads).where(loads.c.id == load).values(state=state, ended=now))


def _move(connection: Connection, load: str, range: int, expected: int, position: int, acked: int, dead: int) -> None:
    """Counts and position in one row: a row that comes back older is read again from there, and counted again."""
    here = (load_ranges.c.load == load, load_ranges.c.range == range)
    stands = connection.execute(select(load_ranges.c.position).where(*here)).scalar_one_or_none()
    if (stands or 0) != expected:
        raise Conflict(f"load {load}: range {range} stands at {stands or 0}, not {expected}; go on from there", 0.1)
    if stands is None:
        row = {"load": load, "range": range, "position": position, "acked": acked, "dead": dead}
        connection.execute(insert(load_ranges).values(**row))
    else:
        counts = {"acked": load_ranges.c.acked + acked, "dead": load_ranges.c.dead + dead}
        connection.execute(update(load_ranges).where(*here).values(position=position, **counts))


def _counted() -> Select[Any]:
    """Loads, with what all their ranges have counted."""
    columns = [column for column in loads.c if column.name not in ("acked", "dead")]
    return select(*columns, *(_total(name) for name in ("acked", "dead")))


def _total(name: str) -> Label[Any]:
    of_ranges = select(func.coalesce(func.sum(load_ranges.c[name]), 0)).where(load_ranges.c.load == loads.c.id)
    return (loads.c[name] + of_ranges.scalar_subquery()).label(name)


def _get(connection: Connection, tenant: str, load: str) -> Load:
    row = connection.execute(_counted().where(loads.c.tenant == tenant, loads.c.id == load)).one_or_none()
    if row is None:
        raise NotFound(f"there is no load {load!r}; see `intelgraph ingest list`")
    return _load(row)


def _load(row: Row[Any]) -> Load:
    values = dict(row._mapping)
    counts = {name: int(values[name]) for name in ("acked", "dead")}  # PostgreSQL's sums are decimals
    return Load(**{**values, **counts, "mapping": json.loads(values["mapping"])})
