"""What `status` shows: one look at every part, where a part that does not answer says so and hides no other."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cluster.errors import IntelGraphError
from serve_apps.cli.canaries import canaries
from serve_apps.cli.workers import stream_workers

if TYPE_CHECKING:
    from serve_apps.cli.session import Session
    from serve_apps.node_state import NodeState

Row = dict[str, Any]
_DASHBOARD_S = 5.0


def survey(session: Session, node: NodeState) -> dict[str, list[Row]]:
    """Rows by title; the keys of the rows are the columns. `storage` has one row."""
    return {
        "node": [{"phase": node.phase, "pid": node.pid, "api": node.api, "dashboard": node.dashboard}],
        "servers": list(_servers(session)),
        "actors": actors(session, node),
        "shards": shards(session),
        "stream_workers": [told] if (told := stream_workers(session)) else [],
        "storage": [_storage(session)],
    }


def _servers(session: Session) -> Iterable[Row]:
    from cluster.embedded import process

    for folder in sorted((session.state_dir / "servers").glob("*")):
        pid = process.server_in(folder, folder / "server.pid")
        alive = process.is_locked(folder / "lock")
        yield {"name": folder.name, "state": "up" if alive else "down", "pid": pid if alive else None}


def actors(session: Session, node: NodeState) -> list[Row]:
    """Ray's actors by name, as the dashboard tells them."""
    import httpx

    try:
        token = session.ray_token.read_text().strip()
        answer = httpx.get(
            f"{node.dashboard}/api/v0/actors", params={"limit": 1000, "detail": "false"}, timeout=_DASHBOARD_S,
            headers={"Authorization": f"Bearer {token}"}, trust_env=False,
        )  # fmt: skip
        answer.raise_for_status()
        found = answer.json()["data"]["result"]["result"]
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        return [{"name": "(the dashboard does not answer)", "state": type(error).__name__, "pid": None}]
    return actor_rows(found)


def actor_rows(found: Iterable[Row]) -> list[Row]:
    """Those that are not dead, of Ray's list of actors. Who has no process yet has no pid: Ray says 0 there, and a
    signal to 0 goes to the whole process group of who sends it."""
    rows = [{"name": a.get("name") or a["class_name"], "state": a["state"], "pid": a["pid"] or None} for a in found]
    return sorted((row for row in rows if row["state"] != "DEAD"), key=lambda row: str(row["name"]))


def shards(session: Session) -> list[Row]:
    """The shard registry beside what each shard says of itself."""
    current = session.control.shard_maps.current()
    sung = {canary["shard"]: canary["age_s"] for canary in canaries(session)}
    rows = []
    for shard in session.control.shards.list():
        buckets = len(current.buckets_of(shard.id)) if current else 0
        drained = shard.state == "draining" and not buckets
        rows.append({
            "id": shard.id, "role": shard.role, "state": shard.state, "epoch": shard.epoch,
            "serving": "drained" if drained else _shard_state(session, shard.id), "buckets": buckets,
            "lag_records": shard.lag_records, "lag_seconds": shard.lag_seconds,
            "canary_s": sung.get(shard.id),
        })  # fmt: skip
    return rows


def _shard_state(session: Session, shard_id: str) -> str:
    try:
        with closing(session.stack.open_shard(shard_id, 5.0)) as shard:
            state = shard.state()
    except IntelGraphError:
        return "no answer"
    if state is None:
        return "empty"
    return "ready" if state.serving == state.raised else "catching up"


def _storage(session: Session) -> Row:
    try:
        ends: dict[int, int] = session.log.ends()
        log_bytes: int | None = session.log.bytes_used()
        generation: int | None = session.log.identity.generation
    except IntelGraphError:
        ends, log_bytes, generation = {}, None, None
    lake = session.control.positions.of("lake")
    try:
        snapshot = latest_snapshot(session)
    except IntelGraphError:
        snapshot = {"id": "no answer", "as_of": None, "age_s": None}
    return {
        "log_generation": generation, "log_bytes": log_bytes, "log_entries": sum(ends.values()),
        "lake_entries": sum(lake.values()),
        "lake_lag_entries": sum(max(0, end - lake.get(p, 0)) for p, end in ends.items()),
        "snapshot": snapshot and snapshot["id"], "snapshot_as_of": snapshot and snapshot["as_of"],
        "snapshot_age_s": snapshot and snapshot["age_s"],
    }  # fmt: skip


def latest_snapshot(session: Session) -> Row | None:
    """The current snapshot's id, asOf and age in seconds; None where there is none."""
    from workloads.snapshot.read import open_snapshot, read_pointer

    place = session.stack.snapshots
    if read_pointer(place) is None:
        return None
    with open_snapshot(place) as snapshot:
        as_of = snapshot.manifest.as_of.time
    age_s = time.time() - datetime.fromisoformat(as_of).timestamp()
    return {"id": snapshot.id, "as_of": as_of, "age_s": round(max(0.0, age_s), 1)}
