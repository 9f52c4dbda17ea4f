"""The control store: what the platform has to remember about itself, in SQL.

    store = open_control("sqlite:////…/control.db")
    store.sources.register(…)   store.acceptance.accept(…)   store.dead_letters.list(…)   store.shard_maps.publish(…)

One class a concern, each in a module of its own (`control_*`), all over one database. Every call is one transaction,
takes its tenant explicitly where it has one and its time from the caller, and translates the database's errors
(`control_database`). Calls block. A store may be shared by threads; a child process has to open its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from cluster.config_control import ControlSettings
from cluster.stores.control_acceptance import Acceptance
from cluster.stores.control_audit import Audit
from cluster.stores.control_database import ControlDatabase, Journal
from cluster.stores.control_dead_letters import DeadLetters
from cluster.stores.control_leases import Leases
from cluster.stores.control_loads import Loads
from cluster.stores.control_names import RegisteredNames
from cluster.stores.control_positions import ConsumerPositions
from cluster.stores.control_pushes import PushKeys
from cluster.stores.control_runs import Pointers, Runs
from cluster.stores.control_shards import ShardMaps, Shards
from cluster.stores.control_sources import Sources
from cluster.stores.control_stream_schemas import StreamSchemas
from cluster.stores.control_streams import Streams


@dataclass(frozen=True, slots=True)
class ControlStore:
    """Everything that the control store keeps, by concern."""

    database: ControlDatabase
    shards: Shards
    shard_maps: ShardMaps
    sources: Sources
    loads: Loads
    streams: Streams
    stream_schemas: StreamSchemas
    acceptance: Acceptance
    pushes: PushKeys
    dead_letters: DeadLetters
    names: RegisteredNames
    runs: Runs
    pointers: Pointers
    leases: Leases
    audit: Audit
    positions: ConsumerPositions

    def close(self) -> None:
        """Closes the connections. Safe to call twice."""
        self.database.close()


def control_url(settings: ControlSettings, state_dir: Path) -> str | URL:
    """Where the control store is.

    Args:
        state_dir: absolute; a store in SQLite is a file of it.
    """
    if settings.kind == "sqlite":
        return f"sqlite:///{state_dir / 'control.db'}"
    trusted = {} if settings.ca_file is None else {"sslrootcert": str(settings.ca_file.resolve())}
    password = settings.password.get_secret_value()
    where = (settings.user, password, settings.host, settings.port, settings.database)
    return URL.create("postgresql+psycopg", *where, {"sslmode": settings.tls, **trusted})


def open_control(
    url: str | URL, idempotency_hours: float = 24.0, busy_timeout_s: float = 10.0, journal: Journal | None = None
) -> ControlStore:
    """Opens the control store and brings its schema up to date; safe from several processes at once.

    Args:
        url: `sqlite:////absolute/path` or `postgresql+driver://…`.
        idempotency_hours: how long an Idempotency-Key is remembered at least.
        busy_timeout_s: how long a writer waits for others.
        journal: takes every change before it is committed: the log's control partition.

    Raises:
        Unavailable: the database does not answer.
        Rejected: a newer version made its schema.
    """
    database = ControlDatabase(url, busy_timeout_s, journal)
    try:
        database.migrate()
    except BaseException:
        database.close()
        raise
    return ControlStore(
        database=database,
        shards=Shards(database),
        shard_maps=ShardMaps(database),
        sources=Sources(database),
        loads=Loads(database),
        streams=Streams(database),
        stream_schemas=StreamSchemas(database),
        acceptance=Acceptance(database, idempotency_hours),
        pushes=PushKeys(database, idempotency_hours),
        dead_letters=DeadLetters(database),
        names=RegisteredNames(database),
        runs=Runs(database),
        pointers=Pointers(database),
        leases=Leases(database),
        audit=Audit(database),
        positions=ConsumerPositions(database),
    )
