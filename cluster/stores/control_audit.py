"""The audit: who did what to which subject; appended only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select

from cluster.errors import Rejected
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_tables import audit

_PAGE_MAX = 1_000
INSTALLATION = ""
"""In place of a tenant: what an operator did to the installation itself. No tenant has this name."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action.

    Args:
        sequence: order of arrival; what pages go by.
        at: seconds since 1970.
        detail: holds no secret and no record's content.
    """

    sequence: int
    at: float
    tenant: str
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class Audit:
    """The audit of all tenants; there is no way to change or remove an entry."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def append(
        self,
        tenant: str,
        actor: str,
        action: str,
        subject: str,
        now: float,
        detail: dict[str, Any] | None = None,
        *,
        later: bool = False,
    ) -> int:
        """Keeps an action durably and returns its sequence. Called twice, there are two.

        Args:
            later: the log may have it with the next change: for who is asked before the log is opened.
        """
        row = {"at": now, "tenant": tenant, "actor": actor, "action": action, "subject": subject}
        with self._database.write(later=later) as connection:
            done = connection.execute(insert(audit).values(**row, detail=json.dumps(detail or {}, sort_keys=True)))
            key = done.inserted_primary_key
            return int(key[0]) if key else 0

    def list(self, tenant: str, *, action: str | None = None, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        """A tenant's entries, oldest first.

        Args:
            after: sequence of the last entry of the page before.
            limit: 1 to 1,000.
        """
        if not 1 <= limit <= _PAGE_MAX:
            raise Rejected(f"limit: 1 to {_PAGE_MAX}, not {limit}")
        wanted = [audit.c.tenant == tenant, audit.c.sequence > after]
        wanted += [] if action is None else [audit.c.action == action]
        with self._database.read() as connection:
            rows = connection.execute(select(audit).where(*wanted).order_by(audit.c.sequence).limit(limit))
            return [AuditEntry(**{**row._mapping, "detail": json.loads(row.detail)}) for row in rows]

    def latest(self, tenant: str, count: int) -> Sequence[AuditEntry]:
        """A tenant's last entries, oldest first."""
        newest = select(audit).where(audit.c.tenant == tenant).order_by(audit.c.sequence.desc()).limit(count)
        with self._database.read() as connection:
            rows = connection.execute(newest).all()
        return [AuditEntry(**{**row._mapping, "detail": json.loads(row.detail)}) for row in reversed(rows)]

    def every(self, tenant: str) -> Iterator[AuditEntry]:
        """All entries of a tenant, oldest first, read page by page."""
        after = 0
        while page := self.list(tenant, after=after, limit=_PAGE_MAX):
            yield from page
            after = page[-1].sequence
