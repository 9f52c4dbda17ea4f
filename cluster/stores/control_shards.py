"""The shard registry and the revisions of the shard map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update

from cluster.errors import Conflict, NotFound, Rejected
from cluster.shard_map import ShardMap, pack, plan, unpack
from cluster.stores.control_database import ControlDatabase, insert_new
from cluster.stores.control_leases import require
from cluster.stores.control_tables import shard_maps, shards

Role = Literal["primary", "replica"]
State = Literal["active", "draining", "down"]
STATES: tuple[State, ...] = ("active", "draining", "down")


@dataclass(frozen=True, slots=True)
class Shard:
    """One registered shard.

    Args:
        of: id of the primary that a replica copies; None for a primary.
        epoch: raised at each of its starts and at each map that moves a bucket to or from it.
        lag_records, lag_seconds: behind the log (primary) or its primary (replica), as last reported.
        updated: seconds since 1970.
    """

    id: str
    uri: str
    role: Role
    of: str | None
    region: str
    state: State
    weight: float
    epoch: int
    lag_records: int | None
    lag_seconds: float | None
    updated: float


class Shards:
    """The shard registry."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def register(
        self, id: str, uri: str, now: float, *, role: Role = "primary", of: str | None = None, region: str = "",
        weight: float = 1.0,
    ) -> Shard:  # fmt: skip
        """Registers a shard, active and with epoch 0; one that is registered gets the new URI. Safe to call twice.

        Raises:
            Rejected: a replica without its primary, a primary with one, a weight that is not positive, or the id is
                registered with another role.
        """
        if (role == "replica") != (of is not None) or not weight > 0 or not id:
            raise Rejected(f"shard {id!r}: a replica names its primary, a primary none, and weights are positive")
        with self._database.write() as connection:
            if of is not None and _get(connection, of).role != "primary":
                raise Rejected(f"shard {id!r}: {of} is no primary")
            row = {"id": id, "uri": uri, "role": role, "of": of, "region": region, "state": "active"}
            insert_new(connection, shards, [{**row, "weight": weight, "updated": now}])
            connection.execute(update(shards).where(shards.c.id == id).values(uri=uri, updated=now))
            found = _get(connection, id)
        if (found.role, found.of) != (role, of):
            raise Rejected(f"shard {id!r} is registered as {found.role} of {found.of}; give this one another id")
        return found

    def list(self) -> list[Shard]:
        """All shards by id."""
        with self._database.read() as connection:
            return [_shard(row) for row in connection.execute(select(shards).order_by(shards.c.id))]

    def get(self, id: str) -> Shard:
        """One shard. Raises NotFound."""
        with self._database.read() as connection:
            return _get(connection, id)

    def set_state(self, id: str, expected: State, state: State, now: float) -> None:
        """Changes the state if it is the expected one. It never changes who owns what.

        Raises:
            Conflict: it is another.
            NotFound: there is no such shard.
        """
        if state not in STATES:
            raise Rejected(f"shard state: one of {', '.join(STATES)}, not {state}")
        with self._database.write() as connection:
            found = _get(connection, id)
            if found.state != expected:
                raise Conflict(f"shard {id} is {found.state}, not {expected}; look again before changing it", 0.1)
            connection.execute(update(shards).where(shards.c.id == id).values(state=state, updated=now))

    def report_lag(self, id: str, lag_records: int, lag_seconds: float, now: float) -> None:
        """Notes how far behind a shard is. Safe to call twice. Raises NotFound."""
        with self._database.write(later=True) as connection:
            _get(connection, id)
            values = {"lag_records": lag_records, "lag_seconds": lag_seconds, "updated": now}
            connection.execute(update(shards).where(shards.c.id == id).values(**values))

    def raise_epoch(self, id: str) -> int:
        """Raises a shard's epoch by one and returns it; whoever names an earlier one is refused from then on.

        Raises:
            NotFound: there is no such shard.
        """
        with self._database.write() as connection:
            return _raise_epoch(connection, id)


class ShardMaps:
    """Revisions of the shard map; ownership changes here and nowhere else."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def current(self) -> ShardMap | None:
        """The latest map; None before the first is published."""
        with self._database.read() as connection:
            return _current(connection)

    def publish(
        self, expected_revision: int, new: ShardMap, now: float, made_by: str, held: Mapping[str, int] | None = None
    ) -> Mapping[str, int]:
        """Makes `new` the map if the current revision is the expected one; raises the epochs of all shards it touches.

        Args:
            expected_revision: of the current map; 0 if there is none.
            new: its revision is the expected one plus 1.
            held: leases, name → token, under which the map was planned; each has to be current still.

        Returns:
            The new epoch of each shard that gave or took a bucket.

        Raises:
            Conflict: the current map is another: plan again from it.
            Fenced: a lease of `held` is another's by now.
            Rejected: the revision does not follow, or an owner is no registered primary.
        """
        if new.revision != expected_revision + 1:
            raise Rejected(f"map revision {new.revision} does not follow {expected_revision}")
        with self._database.write() as connection:
            old = _current(connection)
            if (old.revision if old else 0) != expected_revision:
                raise Conflict(
                    f"the shard map is at revision {old.revision if old else 0}, not {expected_revision}", 0.1
                )
            _check_owners(connection, new)
            for name, token in (held or {}).items():
                require(connection, name, token)
            row = {"revision": new.revision, "map": pack(new), "made_at": now, "made_by": made_by}
            connection.execute(insert(shard_maps).values(**row))
            touched = _touched(old, new) if old else set(new.shards)
            return {id: _raise_epoch(connection, id) for id in sorted(touched)}


def _touched(old: ShardMap, new: ShardMap) -> set[str]:
    """Who gives or takes a bucket. Raises Rejected where a map changes owners and the number of partitions at once."""
    if old.partitions != new.partitions and old.owners == new.owners:
        return set()
    return {id for move in plan(old, new) for id in (move.source, move.target)}


def _check_owners(connection: Connection, new: ShardMap) -> None:
    primaries = set(connection.execute(select(shards.c.id).where(shards.c.role == "primary")).scalars())
    if strangers := set(new.shards) - primaries:
        raise Rejected(f"the map names {', '.join(sorted(strangers))}: register them as primaries first")


def _current(connection: Connection) -> ShardMap | None:
    latest = select(shard_maps.c.map).order_by(shard_maps.c.revision.desc()).limit(1)
    text = connection.execute(latest).scalar_one_or_none()
    return None if text is None else unpack(text)


def _raise_epoch(connection: Connection, id: str) -> int:
    epoch = _get(connection, id).epoch + 1
    connection.execute(update(shards).where(shards.c.id == id).values(epoch=epoch))
    return epoch


def _get(connection: Connection, id: str) -> Shard:
    row = connection.execute(select(shards).where(shards.c.id == id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no shard {id!r}; see `intelgraph shards list`")
    return _shard(row)


def _shard(row: Row[Any]) -> Shard:
    return Shard(**row._mapping)
