"""What the API needs from the rest of the product, as small protocols, and the one value that carries them.

All methods block and are called on worker threads, several at a time; they raise errors of cluster/errors.py. Answers
are JSON-able. Every method that takes a tenant returns that tenant's things only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from actors.push import PushAnswer
from cluster.config import Settings
from cluster.query.cursor import Cursors
from cluster.query.fanout import FanOut
from cluster.query.types import TypeTotals
from cluster.routing import Deadline
from cluster.stores.log import Generation
from serve_apps.tokens import TokenAuthority

Json = dict[str, Any]


class PushGateway(Protocol):
    """Takes batches of events into the log."""

    def push(
        self, tenant: str, sources: Sequence[str], body: bytes, content_type: str, idempotency_key: str | None
    ) -> PushAnswer:
        """Check, route and append; returns once that is durable. Safe to repeat with an Idempotency-Key.

        Args:
            sources: those that the token may write; `*` is all of the tenant's.
            content_type: `application/json` (an array, or one event) or `application/x-ndjson`.

        Raises:
            KeyReused: the key came with another body. TooLarge: too many records. Overloaded, Unavailable, Conflict:
            nothing was taken. BadRecord: the body as a whole cannot be read.
        """


class AppliedPositions(Protocol):
    """How far shards have applied the log."""

    async def reached(self, positions: Mapping[int, int], deadline: Deadline) -> bool:
        """Whether every shard that owns part of these log partitions has applied them up to these entries.

        Raises:
            Unavailable: one of them does not answer. Overloaded, TooCostly: it is busy.
        """


class OverlayReader(Protocol):
    """Values that overlays have written back."""

    def top(self, tenant: str, name: str, case: str | None, limit: int) -> Json:
        """{"overlay", "asOf", "run", "stale", "items": [...]}, best first. Raises NotFound for an unknown name."""


class SnapshotCatalog(Protocol):
    """Snapshots that a reader can open."""

    def snapshots(self, tenant: str) -> list[Json]:
        """Newest first, each with `asOf`, counts of the tenant's things and hashes."""


class ShardCatalog(Protocol):
    """The shard map for operators."""

    def shards(self) -> list[Json]:
        """Each with id, kind, address (without user and password), role, state, epoch, number of buckets and lag."""


class SourceCatalog(Protocol):
    """Registered sources."""

    def sources(self, tenant: str) -> list[Json]:
        """The tenant's sources, by name."""


class DeadLetters(Protocol):
    """Bad records that were kept."""

    def page(self, tenant: str, limit: int, after: str | None) -> tuple[list[Json], str | None]:
        """Some dead letters, oldest first, and what `after` of the next page is; None after the last."""

    def letter(self, tenant: str, id: str) -> Json:
        """One dead letter, with `held`: what of it breaks which part of its schema, or which rule. Raises NotFound."""

    def replay(self, tenant: str, actor: str, ids: Sequence[str] | None, dry_run: bool, limit: int) -> Json:
        """Send some (or, with None, all) through the stages again. Safe to repeat: versions make it harmless."""


class Conservation(Protocol):
    """Whether every accepted record has exactly one outcome."""

    def audit(self, tenant: str) -> Json:
        """{"balanced", "epochs", "loads", "deadLetters", "actions"} and `asOf`; epochs and loads say each whether it
        holds; actions are the latest on the tenant's data, oldest first."""


class Health(Protocol):
    """What this process depends on."""

    def ready(self) -> Mapping[str, str]:
        """Part → "ok", or what is wrong with it; quick."""


class Exposition(Protocol):
    """Metrics of the whole installation."""

    def exposition(self) -> bytes:
        """Prometheus's text format."""


@dataclass(frozen=True)
class Services:
    """Everything that the application is made of. A part that is None has no routes.

    Args:
        fanout: owned by the application, which closes it.
        generations: of the event log, those after the first: what positions are told and judged by. A replica that
            serves is of the newest, since a start opens one.
        types: how many relationship types graphs have; None: few.
        now: seconds since 1970, by which overlay values are stale.
    """

    settings: Settings
    tokens: TokenAuthority
    cursors: Cursors
    fanout: FanOut
    health: Health
    exposition: Exposition
    applied: AppliedPositions | None = None
    push: PushGateway | None = None
    overlays: OverlayReader | None = None
    snapshots: SnapshotCatalog | None = None
    shards: ShardCatalog | None = None
    sources: SourceCatalog | None = None
    dead_letters: DeadLetters | None = None
    conservation: Conservation | None = None
    generations: Sequence[Generation] = ()
    types: TypeTotals | None = None
    now: Callable[[], float] = time.time
