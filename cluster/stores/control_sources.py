"""The source registry: who writes facts, from where, under which priority, and whether it still may."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, select, update

from cluster.errors import BadRecord, Forbidden, NotFound, Rejected
from cluster.stores.control_database import ControlDatabase, insert_new
from cluster.stores.control_tables import sources

Positions = Literal["own", "assigned"]
RESERVED = ("overlay/", "system/")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}")


@dataclass(frozen=True, slots=True)
class Source:
    """One registered source.

    Args:
        positions: `own` if its records bring their positions, `assigned` if we give them; None until the first record.
        priority: of its values, the greater wins; changed by events, this is what it was registered with.
        next_epoch: the epoch that the next new range gets.
        next_position: in `assigned_epoch`, the one that records without position get now.
        created: seconds since 1970.
    """

    tenant: str
    name: str
    owner: str
    transport: str
    licence: str
    positions: Positions | None
    priority: int
    state: Literal["active", "killed"]
    next_epoch: int
    next_position: int
    assigned_epoch: int | None
    created: float


class Sources:
    """The source registry."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def register(
        self, tenant: str, name: str, now: float, *, owner: str = "", transport: str = "", licence: str = "",
        priority: int = 0, ours: bool = False,
    ) -> Source:  # fmt: skip
        """Registers a source; one that is registered is returned as it is. Safe to call twice.

        Args:
            ours: the caller is the platform itself: names under `overlay/` and `system/` are allowed, and no others.

        Raises:
            Forbidden: the name is reserved.
            Rejected: the name is malformed, or there is no tenant.
        """
        if name.startswith(RESERVED) != ours:
            raise Forbidden(f"source {name!r}: names under overlay/ and system/ are the platform's, and only those")
        if not tenant or not _NAME.fullmatch(name):
            raise Rejected(f"source {name!r}: 1 to 255 of letters, digits and . _ : / @ + -, after a letter or digit")
        row = {"tenant": tenant, "name": name, "owner": owner, "transport": transport, "licence": licence}
        with self._database.write() as connection:
            insert_new(connection, sources, [{**row, "priority": priority, "created": now}])
            return source_in(connection, tenant, name)

    def list(self, tenant: str) -> list[Source]:
        """A tenant's sources by name."""
        query = select(sources).where(sources.c.tenant == tenant).order_by(sources.c.name)
        with self._database.read() as connection:
            return [_source(row) for row in connection.execute(query)]

    def tenants(self) -> Sequence[str]:
        """Every tenant that has a source, the one that came first first. For operators: it names them all."""
        column = sources.c
        query = select(column.tenant).group_by(column.tenant).order_by(func.min(column.created), column.tenant)
        with self._database.read() as connection:
            return [str(tenant) for tenant in connection.execute(query).scalars()]

    def get(self, tenant: str, name: str) -> Source:
        """One source. Raises NotFound."""
        with self._database.read() as connection:
            return source_in(connection, tenant, name)

    def kill(self, tenant: str, name: str) -> None:
        """Stops a source for good: nothing of it is accepted afterwards. Safe to call twice. Raises NotFound."""
        with self._database.write() as connection:
            source_in(connection, tenant, name)
            connection.execute(_update(tenant, name).values(state="killed"))

    def own_or_assigned(self, tenant: str, name: str, positions: Positions) -> None:
        """Fixes at first use whether the source's records bring their positions. Safe to call twice.

        Raises:
            BadRecord: the source has been used the other way (class `schema`).
            NotFound, Forbidden: there is no such source, or it is killed.
        """
        if self.get(tenant, name).positions == positions:
            return
        with self._database.write() as connection:
            use_positions(connection, live_source_in(connection, tenant, name), positions)


def source_in(connection: Connection, tenant: str, name: str) -> Source:
    """A source, within a transaction. Raises NotFound."""
    query = select(sources).where(sources.c.tenant == tenant, sources.c.name == name)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no source {name!r}; register it first")
    return _source(row)


def live_source_in(connection: Connection, tenant: str, name: str) -> Source:
    """A source that may write. Raises NotFound, or Forbidden if it is killed."""
    source = source_in(connection, tenant, name)
    if source.state != "active":
        raise Forbidden(f"source {name!r} is killed: nothing of it is accepted")
    return source


def use_positions(connection: Connection, source: Source, positions: Positions) -> None:
    """`Sources.own_or_assigned`, within a transaction."""
    if source.positions is None:
        connection.execute(_update(source.tenant, source.name).values(positions=positions))
    elif source.positions != positions:
        has = "have positions of their own" if source.positions == "own" else "come without positions"
        raise BadRecord("schema", f"records of source {source.name!r} {has}: a source has them always or never")


def set_counters(connection: Connection, source: Source, **values: int) -> None:
    """Sets next_epoch, next_position or assigned_epoch, within a transaction."""
    connection.execute(_update(source.tenant, source.name).values(**values))


def _update(tenant: str, name: str) -> Any:
    return update(sources).where(sources.c.tenant == tenant, sources.c.name == name)


def _source(row: Row[Any]) -> Source:
    return Source(**row._mapping)
