"""Overlay runs, and pointers that only advance: which snapshot is the current one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select, update

from cluster.errors import Conflict, NotFound, Rejected
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_tables import pointers, runs

RunState = Literal["running", "published", "gated", "failed"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an overlay.

    Args:
        run: counts up per (tenant, overlay) from 1; the version of what it writes back.
        snapshot: what it was computed from.
        state: `gated` is computed and held back; `gate` then says why.
        started, ended: seconds since 1970.
    """

    tenant: str
    overlay: str
    run: int
    snapshot: str
    state: RunState
    gate: dict[str, Any] | None
    started: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a name points.

    Args:
        sequence: greater than that of every manifest before it.
        updated: seconds since 1970.
    """

    name: str
    sequence: int
    manifest: str
    updated: float


class Runs:
    """Overlay runs."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def start(self, tenant: str, overlay: str, snapshot: str, now: float) -> Run:
        """Starts a run under the next number; a number is never used again, even if its run fails."""
        mine = (runs.c.tenant == tenant, runs.c.overlay == overlay)
        with self._database.write() as connection:
            number = (connection.execute(select(func.max(runs.c.run)).where(*mine)).scalar_one() or 0) + 1
            row = {"tenant": tenant, "overlay": overlay, "run": number, "snapshot": snapshot, "state": "running"}
            connection.execute(insert(runs).values(**row, started=now))
            return _run(connection, tenant, overlay, number)

    def finish(
        self, tenant: str, overlay: str, run: int, state: RunState, now: float, gate: dict[str, Any] | None = None
    ) -> Run:
        """Ends a run. Safe to call twice with the same state.

        Raises:
            Conflict: it has ended with another state.
            NotFound: there is no such run.
        """
        with self._database.write() as connection:
            found = _run(connection, tenant, overlay, run)
            if found.state not in ("running", state):
                raise Conflict(f"run {run} of {overlay} is {found.state}; start a new one", 0.1)
            if found.state == "running":
                text = None if gate is None else json.dumps(gate, sort_keys=True)
                here = (runs.c.tenant == tenant, runs.c.overlay == overlay, runs.c.run == run)
                connection.execute(update(runs).where(*here).values(state=state, gate=text, ended=now))
            return _run(connection, tenant, overlay, run)

    def list(self, tenant: str, overlay: str | None = None, limit: int = 100) -> list[Run]:
        """A tenant's latest runs, newest first."""
        wanted = [runs.c.tenant == tenant] + ([] if overlay is None else [runs.c.overlay == overlay])
        query = select(runs).where(*wanted).order_by(runs.c.started.desc(), runs.c.overlay, runs.c.run.desc())
        with self._database.read() as connection:
            return [_as_run(row) for row in connection.execute(query.limit(limit))]

    def latest(self, tenant: str, overlay: str, state: RunState = "published") -> Run | None:
        """The run of this state with the greatest number, or None."""
        mine = (runs.c.tenant == tenant, runs.c.overlay == overlay, runs.c.state == state)
        with self._database.read() as connection:
            row = connection.execute(select(runs).where(*mine).order_by(runs.c.run.desc()).limit(1)).one_or_none()
        return None if row is None else _as_run(row)


class Pointers:
    """Pointers that only advance."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def get(self, name: str) -> Pointer | None:
        """Where the name points; None if it never did."""
        with self._database.read() as connection:
            return _pointer(connection, name)

    def advance(self, name: str, expected: int, sequence: int, manifest: str, now: float) -> Pointer:
        """Points the name at a newer manifest, if it stands where expected.

        Args:
            expected: the pointer's sequence until now; 0 if it never pointed anywhere.

        Raises:
            Conflict: it stands elsewhere.
            Rejected: `sequence` is not greater than `expected`.
        """
        if sequence <= expected:
            raise Rejected(f"pointer {name}: sequence {sequence} is not after {expected}")
        row = {"sequence": sequence, "manifest": manifest, "updated": now}
        with self._database.write() as connection:
            stands = _pointer(connection, name)
            if (stands.sequence if stands else 0) != expected:
                raise Conflict(f"pointer {name} stands at {stands.sequence if stands else 0}, not {expected}", 0.1)
            if stands is None:
                connection.execute(insert(pointers).values(name=name, **row))
            else:
                connection.execute(update(pointers).where(pointers.c.name == name).values(**row))
        return Pointer(name, sequence, manifest, now)


def _pointer(connection: Connection, name: str) -> Pointer | None:
    row = connection.execute(select(pointers).where(pointers.c.name == name)).one_or_none()
    return None if row is None else Pointer(**row._mapping)


def _run(connection: Connection, tenant: str, overlay: str, run: int) -> Run:
    query = select(runs).where(runs.c.tenant == tenant, runs.c.overlay == overlay, runs.c.run == run)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"overlay {overlay!r} has no run {run}")
    return _as_run(row)


def _as_run(row: Row[Any]) -> Run:
    values = dict(row._mapping)
    gate = values.pop("gate")
    return Run(**values, gate=None if gate is None else json.loads(gate))
