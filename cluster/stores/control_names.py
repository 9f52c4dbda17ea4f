"""Names that a tenant's records have brought: relationship types, property names; each space has a limit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from sqlalchemy import func, select

from cluster.errors import BadRecord
from cluster.stores.control_database import ControlDatabase, insert_new
from cluster.stores.control_tables import registered_names

Space = Literal["relationship_type", "property_name"]


class RegisteredNames:
    """The registered names of all tenants; nothing is ever removed, so a caller may remember what it has seen."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def register(self, tenant: str, space: Space, names: Iterable[str], limit: int) -> frozenset[str]:
        """Registers names up to the tenant's limit, in sorted order; returns the refused ones. Safe to call twice.

        Args:
            limit: how many names the tenant may have in this space.
        """
        wanted = frozenset(names)
        mine = (registered_names.c.tenant == tenant, registered_names.c.space == space)
        with self._database.write() as connection:
            new = sorted(wanted - frozenset(connection.execute(select(registered_names.c.name).where(*mine)).scalars()))
            count = connection.execute(select(func.count()).select_from(registered_names).where(*mine)).scalar_one()
            fitting = new[: max(0, limit - count)]
            insert_new(
                connection, registered_names, [{"tenant": tenant, "space": space, "name": name} for name in fitting]
            )
        return frozenset(new[len(fitting) :])

    def count(self, tenant: str, space: Space) -> int:
        """How many names a tenant has in a space. As none is removed, an equal number is the same names."""
        mine = (registered_names.c.tenant == tenant, registered_names.c.space == space)
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(registered_names).where(*mine)).scalar_one())

    def list(self, tenant: str, space: Space) -> frozenset[str]:
        """The names of a tenant in a space."""
        query = select(registered_names.c.name).where(
            registered_names.c.tenant == tenant, registered_names.c.space == space
        )
        with self._database.read() as connection:
            return frozenset(connection.execute(query).scalars())


def refusal(space: Space, name: str, limit: int) -> BadRecord:
    """What a record with a refused name is told."""
    return BadRecord("constraint", f"{space.replace('_', ' ')} {name!r}: the tenant has {limit} already, its limit")
