"""Taking a snapshot: fold(previous snapshot, events since) at one pinned version of the lake.

    pin ─► rules ─► units: registers ─► units: graph blocks ─► tenants: joined graph ─► manifest ─► pointer ─► unpin

A unit is a range of buckets. Each step of a unit or tenant is a plain function of a task that can be pickled, run by
a `Runner`: in this process, or as Ray tasks (`job`). Whatever dies, readers see the old snapshot or the new one:
files are durable before the manifest names them, and the manifest before the pointer does.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cluster.errors import Conflict, OutcomeUnknown, Unavailable
from cluster.model import Kind
from cluster.stores.files import Failpoint, FolderLock, disk_errors, make_folder, no_failpoint
from cluster.stores.lake import Lake, Positions
from cluster.stores.lake_address import LakeAddress
from cluster.stores.lake_wanted import Wanted
from cluster.stores.places import FilePlace, StoredFile, lock_in, place_at
from workloads.snapshot import publish
from workloads.snapshot.fold import COLUMNS, Rules, floors_frame, fold_rules, priorities_frame
from workloads.snapshot.graph import Base, Share, bases
from workloads.snapshot.layout import (
    FORMAT,
    MANIFEST,
    SCHEMAS,
    SLOTS,
    STATE_DATASETS,
    TENANT_DATASETS,
    AsOf,
    Dataset,
    Manifest,
    Part,
    Tenant,
    dataset_hash,
    encode_manifest,
    schema_lines,
    tenant_digest,
    whole_hash,
)
from workloads.snapshot.parts import WRITE_THREADS, Output, Written, write_parts
from workloads.snapshot.read import LOCK, Snapshot, open_snapshot, read_pointer
from workloads.snapshot.units import FoldTask, GraphTask, JoinTask, Unit, fold_unit, graph_unit, join_tenant

UNIT_ROWS = 8_000_000
"""Records and registers that one unit folds: bounds its memory (about 1 KB a row at the peak)."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class Runner(Protocol):
    """Runs a step for every task; results in the order of the tasks. The functions are plain and importable."""

    def __call__(self, step: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]: ...


def run_here(step: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """Runs the tasks one after the other in this process."""
    return [step(task) for task in tasks]


def run_threads(step: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """Runs the tasks on a few threads of this process: for steps whose work is in native code."""
    with ThreadPoolExecutor(WRITE_THREADS) as threads:
        return list(threads.map(step, tasks))


@dataclass(frozen=True)
class Plan:
    """What one snapshot is made from.

    Args:
        root: the new snapshot's place. lake: opens the lake anew, in whatever process.
    """

    lake: LakeAddress
    root: FilePlace
    id: str
    sequence: int
    previous: Snapshot | None
    positions: Positions
    version: int | None
    table_sequence: int
    rules: Rules
    now_s: float
    failpoint: Failpoint


def create_snapshot(
    lake: Lake,
    where: FilePlace | Path,
    now_s: float,
    *,
    run: Runner = run_here,
    unit_rows: int = UNIT_ROWS,
    failpoint: Failpoint = no_failpoint,
) -> Manifest:
    """Takes a snapshot of everything that the lake holds, from the latest one and the events since, and publishes it.

    Wait for the lake to reach the log's ends first (`job.wait_for_lake`), where the newest facts matter. Blocks.

    Args:
        where: the place, or the folder, of all snapshots; created where missing.
        run: runs the steps where there are several units; the steps of one alone run in this process.
        now_s: seconds since 1970, for `asOf`; orders nothing.

    Returns:
        the manifest. Calling it again takes another one; with nothing between, of equal content hash.

    Raises:
        Conflict: another snapshot was published meanwhile; this one is removed.
        Unavailable: the disk is full, or S3 does not answer; what was written is removed, the old snapshot stays.
        OutcomeUnknown: S3 gave no answer to the very last step. The new snapshot stays, and is the latest one or not.
        Corrupt: the previous snapshot or the lake is damaged, or they are not of the same log.
    """
    home = place_at(where)
    with disk_errors("snapshot", home.local):
        make_folder(home.local)
        pointer = read_pointer(home)
        sequence = (pointer.sequence if pointer else 0) + 1
        name = f"{sequence:08d}-{secrets.token_hex(4)}"
        make_folder(home.local / name)
    lock = lock_in(home, f"{name}/{LOCK}")
    previous = None
    try:
        if not lock.acquire(shared=False):
            raise Conflict(f"snapshot: {name} is being removed; try again")
        previous = open_snapshot(home, pointer.id) if pointer else None
        return _pinned(lake, home, name, sequence, previous, lock, (now_s, run, unit_rows, failpoint))
    except OutcomeUnknown:
        raise
    except Exception:
        with suppress(Unavailable):  # what S3 does not let go is left to `prune`
            home.within(name).remove_all()
        raise
    finally:
        lock.release()
        if previous:
            previous.close()


def _pinned(
    lake: Lake,
    home: FilePlace,
    name: str,
    sequence: int,
    previous: Snapshot | None,
    lock: FolderLock,
    how: tuple[Any, ...],
) -> Manifest:
    now_s, run, unit_rows, failpoint = how
    root = home.within(name)
    pin = lake.pin(f"snapshot-{name}", now_s)
    try:
        positions = lake.positions(pin.version) if pin.version is not None else Positions()
        if previous and not positions.covers(previous.manifest.positions):
            raise Conflict(
                f"snapshot: the lake does not hold what snapshot {previous.id} was made from: it is another lake, or an"
                " older copy. Restore the lake, or move the snapshots away",
            )
        table_sequence = lake.sequence(pin.version) if pin.version is not None else 0
        rules = _rules(lake, pin.version, previous)
        plan = Plan(
            lake.address,
            root,
            name,
            sequence,
            previous,
            positions,
            pin.version,
            table_sequence,
            rules,
            now_s,
            failpoint,
        )
        manifest = _build(plan, run, unit_rows)
        with disk_errors("snapshot", root.local):
            root.write(MANIFEST, encode_manifest(manifest), failpoint, "manifest")
            lock.share()
            publish.advance(home, manifest, failpoint)
    finally:
        with suppress(Unavailable):  # a pin ends by itself; that it stays is not what the caller has to know
            lake.unpin(pin)
    return manifest


def _rules(lake: Lake, version: int | None, previous: Snapshot | None) -> Rules:
    floors, priorities = previous.rules() if previous else Rules.none()
    before = previous.manifest if previous else None
    after = before.positions if before else None
    newer = before.as_of.table_sequence if before else 0
    if version is None:
        return Rules(floors, priorities)
    ours = lake.events(Wanted(after=after, least_kind=int(Kind.FLOOR)), COLUMNS, version, newer)
    return fold_rules(floors_frame(floors), priorities_frame(priorities), ours)


def _build(plan: Plan, run: Runner, unit_rows: int) -> Manifest:
    ranges = _ranges(plan, unit_rows)
    alone = len(ranges) == 1  # the whole of it fits here: no other process has to read again what this one has
    run, beside = (run_here, run_threads) if alone else (run, run_threads if run is run_here else run)
    units = run(fold_unit, [_fold_task(plan, slots, alone) for slots in ranges])
    at = bases([unit.shares for unit in units])
    blocks = run(graph_unit, [_graph_task(plan, unit, base) for unit, base in zip(units, at, strict=True)])
    written = [found for block in blocks for found in block]
    tenants = sorted({tenant for unit in units for tenant in unit.shares})
    joined = beside(join_tenant, [_join_task(plan, tenant, at, written) for tenant in tenants])
    rules = _write_rules(plan)
    registers = [written for unit in units for written in unit.registers]
    everything = [*registers, *rules, *written, *(found for one in joined for found in one)]
    return _manifest(plan, everything, _tenants(tenants, units, at, joined))


def _ranges(plan: Plan, unit_rows: int) -> list[tuple[int, int]]:
    """Ranges of slots, first and last, one for each unit."""
    before = plan.previous.manifest if plan.previous else None
    rows = before.counts["registers"] if before else 0
    rows += plan.positions.records - (before.positions.records if before else 0)
    units = max(1, min(SLOTS, math.ceil(rows / unit_rows)))
    return [(SLOTS * i // units, SLOTS * (i + 1) // units - 1) for i in range(units)]


def _fold_task(plan: Plan, slots: tuple[int, int], keep_visible: bool) -> FoldTask:
    previous = plan.previous
    return FoldTask(
        lake=plan.lake,
        root=plan.root,
        slots=slots,
        version=plan.version,
        after=previous.manifest.positions if previous else Positions(),
        newer_than=previous.manifest.as_of.table_sequence if previous else 0,
        previous=tuple(previous.parts("registers")) if previous else (),
        rules=plan.rules,
        keep_visible=keep_visible,
        failpoint=plan.failpoint,
    )


def _graph_task(plan: Plan, unit: Unit, base: dict[str, Base]) -> GraphTask:
    registers = tuple(StoredFile(plan.root, written.part.path) for written in unit.registers)
    return GraphTask(plan.root, registers, plan.rules.priorities, base, unit.visible, plan.failpoint)


def _join_task(plan: Plan, tenant: str, at: list[dict[str, Base]], written: list[Written]) -> JoinTask:
    digest = tenant_digest(tenant)
    first = next(base[tenant].vertex for base in at if tenant in base)

    def files(name: str) -> tuple[StoredFile, ...]:
        return tuple(StoredFile(plan.root, w.part.path) for w in written if w.dataset == name and w.tenant == digest)

    return JoinTask(plan.root, digest, first, files("vertices"), files("edges"), plan.failpoint)


def _write_rules(plan: Plan) -> list[Written]:
    frames = {"floors": floors_frame(plan.rules.floors), "priorities": priorities_frame(plan.rules.priorities)}
    outputs = [Output(name, "", frame, [(0, len(frame))]) for name, frame in frames.items() if len(frame)]
    return write_parts(plan.root, outputs, plan.failpoint)


def _tenants(
    tenants: list[str], units: list[Unit], at: list[dict[str, Base]], joined: list[list[Written]]
) -> tuple[Tenant, ...]:
    found = []
    for tenant, own in zip(tenants, joined, strict=True):
        share = Share(*map(sum, zip(*(unit.shares[tenant] for unit in units if tenant in unit.shares), strict=True)))
        rows = {written.dataset: written.part.rows for written in own}
        first = next(base[tenant].vertex for base in at if tenant in base)
        sizes = (rows.get("joined_vertices", 0), rows.get("joined_csr", 0))
        found.append(Tenant(tenant, tenant_digest(tenant), first, *share, *sizes))
    return tuple(found)


def _manifest(plan: Plan, written: list[Written], tenants: tuple[Tenant, ...]) -> Manifest:
    places = [(name, "") for name in STATE_DATASETS]
    places += [(name, tenant.digest) for tenant in tenants for name in TENANT_DATASETS]
    by_place: dict[tuple[str, str], list[Part]] = {}
    for one in written:
        by_place.setdefault((one.dataset, one.tenant), []).append(one.part)
    datasets = tuple(_dataset(name, digest, tuple(by_place.get((name, digest), ()))) for name, digest in places)
    counts = {name: sum(d.rows for d in datasets if d.name == name) for name in SCHEMAS}
    time = datetime.fromtimestamp(plan.now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    as_of = AsOf(plan.positions.as_plain(), plan.version, plan.table_sequence, time)
    return Manifest(
        format=FORMAT,
        id=plan.id,
        sequence=plan.sequence,
        parent=plan.previous.id if plan.previous else "",
        as_of=as_of,
        schemas={name: schema_lines(schema) for name, schema in SCHEMAS.items()},
        counts=counts,
        content_hash=whole_hash(datasets),
        datasets=datasets,
        tenants=tenants,
    )


def _dataset(name: str, digest: str, parts: tuple[Part, ...]) -> Dataset:
    return Dataset(name, digest, sum(part.rows for part in parts), dataset_hash(name, digest, parts), parts)
