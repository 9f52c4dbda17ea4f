"""What a replica of the API holds, made from the settings: the stores of this installation behind small services."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import ray

from actors.push import ALL_SOURCES, Push, PushAnswer
from actors.stack import Stack
from actors.supervisor import NAMESPACE
from cluster.config import Settings
from cluster.errors import IntelGraphError
from cluster.query.cursor import Cursors
from cluster.query.fanout import FanOut, Topology
from cluster.query.hot import applied_up_to
from cluster.query.lane import Reader
from cluster.query.types import TypeTotals
from cluster.routing import Deadline, ShardState
from cluster.shard_map import ShardMap
from cluster.stores.log import Generation
from cluster.stores.open_shard import kind_of, shown_address
from cluster.telemetry import exposition, merge_expositions, metrics
from overlays.reader import OverlayValues
from serve_apps.api.services import Json, Services
from serve_apps.letters import Letters
from serve_apps.secret import cursor_secret
from serve_apps.stored_counters import StoredCounters, set_canaries, set_stream_workers
from serve_apps.tokens import TokenAuthority

_REFRESH_S = 1.0
_METRICS_S = 2.0
_ACTIONS_SHOWN = 100


class ControlDirectory:
    """The topology from the control store, read anew once a second and whenever a shard refuses it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._lock = threading.Lock()
        self._topology, self._read_at = self._read(), time.monotonic()

    def _read(self) -> Topology:
        states = {
            s.id: ShardState(s.id, s.of, s.state, s.epoch, s.lag_seconds) for s in self._stack.control.shards.list()
        }
        return Topology(self._stack.current_map(), states)

    def topology(self) -> Topology:
        """The current one; from memory."""
        if time.monotonic() - self._read_at > _REFRESH_S and self._lock.acquire(blocking=False):
            threading.Thread(target=self._refresh, daemon=True).start()
        return self._topology

    def _refresh(self) -> None:
        try:
            self._topology, self._read_at = self._read(), time.monotonic()
        except IntelGraphError:
            self._read_at = time.monotonic()  # the one before goes on counting: shards refuse what is wrong in it
        finally:
            self._lock.release()

    def reload(self) -> None:
        """Read it now. Safe to call from several threads."""
        with self._lock:
            self._topology, self._read_at = self._read(), time.monotonic()


class ShardProgress:
    """How far shards have applied the log. They are asked as for any question: one that hangs holds no other up."""

    def __init__(self, current_map: Callable[[], ShardMap], fanout: FanOut) -> None:
        self._current_map, self._fanout = current_map, fanout

    async def reached(self, positions: Mapping[int, int], deadline: Deadline) -> bool:
        """Whether every shard that owns part of these log partitions has applied them up to these entries.

        Raises:
            Unavailable: one of them does not answer. Overloaded, TooCostly: it is busy.
        """
        current = await asyncio.to_thread(self._current_map)  # not a minute old: a case may have been moved
        owners = [(p, number, shard) for p, number in positions.items() for shard in current.shards_of_partition(p)]
        needed = sorted({shard for _, _, shard in owners})
        found = await asyncio.gather(*(self._fanout.ask(shard, applied_up_to, deadline) for shard in needed))
        cursors = dict(zip(needed, found, strict=True))
        return all(cursors[shard].get(p, -1) >= number for p, number, shard in owners)


class Catalogs:
    """Shards, sources and snapshots for those who operate them."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def shards(self) -> list[Json]:
        """Each with id, kind, address, role, state, epoch, number of buckets and lag."""
        current = self._stack.current_map()
        return [
            {
                "id": s.id, "kind": kind_of(s.uri), "address": shown_address(s.uri), "role": s.role, "state": s.state,
                "region": s.region, "epoch": s.epoch, "weight": s.weight, "buckets": len(current.buckets_of(s.id)),
                "lagRecords": s.lag_records, "lagSeconds": s.lag_seconds,
            }
            for s in self._stack.control.shards.list()
        ]  # fmt: skip

    def sources(self, tenant: str) -> list[Json]:
        """The tenant's sources, by name."""
        return [
            {
                "name": s.name, "owner": s.owner, "transport": s.transport, "licence": s.licence, "state": s.state,
                "priority": s.priority, "positions": s.positions,
            }
            for s in self._stack.control.sources.list(tenant)
        ]  # fmt: skip

    def snapshots(self, tenant: str) -> list[Json]:
        """Newest first; only those that hold the tenant, with its counts."""
        from workloads.snapshot.read import list_snapshots

        found: list[Json] = []
        for manifest in list_snapshots(self._stack.snapshots):
            mine = next((t for t in manifest.tenants if t.tenant == tenant), None)
            if mine is not None:
                counts = {"entities": mine.vertices, "relationships": mine.edges, "claims": mine.claims}
                found.append({"id": manifest.id, "asOf": manifest.as_of.time, **counts})
        return found[::-1]


class Gateway:
    """Pushes into the log of this installation."""

    def __init__(self, stack: Stack) -> None:
        self._log = stack.open_log()
        self._push = Push(stack.control, self._log, stack.settings)

    @property
    def generations(self) -> Sequence[Generation]:
        """Of the log that it appends to: those after the first."""
        return self._log.generations

    def push(
        self, tenant: str, sources: Sequence[str], body: bytes, content_type: str, idempotency_key: str | None
    ) -> PushAnswer:
        """See `actors.push.Push.push`; a token for one source need not repeat its name in every record."""
        only = sources[0] if len(sources) == 1 and sources[0] != ALL_SOURCES else None
        return self._push.push(tenant, sources, body, content_type, idempotency_key, only)


class Books:
    """The conservation audit, as far as it concerns a tenant."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def audit(self, tenant: str) -> Json:
        """Whether everything balances, the tenant's own loads and dead letters, and the latest actions on its data."""
        from serve_apps.cli.conservation import audit
        from serve_apps.cli.session import Session

        session = Session(self._stack.state_dir)
        try:
            balance = audit(session, self._stack.settings.query.deadline_s)
        finally:
            session.close()
        loads = [asdict(row) | {"holds": row.holds} for row in balance.loads if row.tenant == tenant]
        epochs = [asdict(row) | {"holds": row.holds} for row in balance.epochs if row.tenant == tenant]
        letters = dict(balance.dead_letters.get(tenant, {}))
        latest = self._stack.control.audit.latest(tenant, _ACTIONS_SHOWN)
        actions = [
            {"at": x.at, "actor": x.actor, "action": x.action, "subject": x.subject, "detail": x.detail} for x in latest
        ]
        return {
            "balanced": balance.holds, "epochs": epochs, "loads": loads, "deadLetters": letters, "actions": actions,
            "asOf": _now(),
        }  # fmt: skip


class NodeHealth:
    """Whether what a replica depends on answers."""

    def __init__(self, stack: Stack, directory: ControlDirectory) -> None:
        self._stack, self._directory = stack, directory

    def ready(self) -> Mapping[str, str]:
        """Part → "ok", or what is wrong with it."""
        parts: dict[str, str] = {}
        try:
            with closing(self._stack.open_log()) as log:
                log.ends()
            parts["log"] = "ok"
        except IntelGraphError as error:
            parts["log"] = str(error)
        for shard in self._directory.topology().shard_map.shards:
            parts[shard] = self._shard(shard)
        return parts

    def _shard(self, shard: str) -> str:
        try:
            with closing(self._stack.open_shard(shard, 2.0)) as opened:
                state = opened.state()
        except IntelGraphError as error:
            return str(error)
        return "ok" if state is not None and state.serving else "catching up with the log"


class ActorMetrics:
    """Metrics of this process, of the stores and of every named actor that answers in time."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._stored = stack, StoredCounters(stack)

    def exposition(self) -> bytes:
        """Prometheus's text format, each sample with the name of its actor."""
        self._snapshot_age()
        set_stream_workers(self._stack.state_dir)
        set_canaries(self._stack.state_dir, self._stack.settings.shards.canary_s)
        found = {"api": exposition(), **self._stored.expositions()}
        names = [a["name"] for a in ray.util.list_named_actors(all_namespaces=True) if a["namespace"] == NAMESPACE]
        asked: dict[str, Any] = {}
        for name in names:
            try:
                asked[name] = ray.get_actor(name, namespace=NAMESPACE).metrics.remote()
            except (ValueError, AttributeError):
                continue  # it has gone meanwhile, or is none of ours
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=_METRICS_S)
        for name, answer in asked.items():
            try:
                found[name] = ray.get(answer, timeout=0)
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
                continue  # what does not answer has no metrics: `up` in Prometheus' sense is the supervisor's affair
        return merge_expositions(found)

    def _snapshot_age(self) -> None:
        from workloads.snapshot.read import open_snapshot

        try:
            with open_snapshot(self._stack.snapshots) as latest:
                pass
        except IntelGraphError:
            return
        taken = datetime.fromisoformat(latest.manifest.as_of.time).timestamp()
        metrics.SNAPSHOT_AGE_SECONDS.labels("local").set(max(0.0, time.time() - taken))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_services(settings: Settings) -> Services:
    """What one replica holds. Called in its process."""
    stack = Stack(settings)
    stack.log_as("query-api")
    directory, catalogs, gateway = ControlDirectory(stack), Catalogs(stack), Gateway(stack)

    def connect(shard: str) -> Reader:
        return stack.open_client(shard, settings.shards.read_timeout_s)

    fanout = FanOut(directory, connect, settings.query)
    return Services(
        settings=settings,
        tokens=TokenAuthority.open(stack.state_dir),
        cursors=Cursors(cursor_secret(stack.state_dir)),
        fanout=fanout,
        health=NodeHealth(stack, directory),
        exposition=ActorMetrics(stack),
        applied=ShardProgress(stack.current_map, fanout),
        overlays=OverlayValues(stack.control.runs, stack.state_dir / "overlays", settings.overlays, time.time),
        snapshots=catalogs,
        shards=catalogs,
        sources=catalogs,
        push=gateway,
        dead_letters=Letters(stack),
        conservation=Books(stack),
        generations=gateway.generations,
        types=TypeTotals(),
    )
