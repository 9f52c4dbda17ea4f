"""What changed between two snapshots, by case: entities, relationships and claims that came, went or changed.

Slots whose rows have equal digests are equal, and are not read. What `event_time` and sources say does not count:
things are compared by what an export shows. Each changed case comes with the hash of its export before and after,
so that anybody can check the difference against `intelgraph hash`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from cluster.fold import hash_lines
from cluster.model import KIND_NAMES
from workloads.snapshot.export import CONTENT, content, lines_of
from workloads.snapshot.layout import SLOT_BUCKETS, tenant_digest
from workloads.snapshot.read import Snapshot

_KEY = ["case", "kind", "type", "id"]
_COMPARED = [name for name in CONTENT if name not in (*_KEY, "event_time")]
_DATASETS = ("vertices", "edges", "claims")
CHANGES = ("added", "removed", "changed")


@dataclass(frozen=True)
class Change:
    """One thing that differs. `change` is one of CHANGES, `kind` as in an event."""

    tenant: str
    case: str
    change: str
    kind: str
    type: str
    id: str


@dataclass(frozen=True)
class CaseChange:
    """One case that differs, with the hashes of its export in both snapshots."""

    tenant: str
    case: str
    hash_before: str
    hash_after: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Difference:
    """What differs between two snapshots. `is_proven_equal`: their content hashes are equal, not a row was read."""

    before: str
    after: str
    is_proven_equal: bool
    cases: tuple[CaseChange, ...]

    def counts(self) -> dict[str, int]:
        """How many things were added, removed and changed."""
        every = [change.change for case in self.cases for change in case.changes]
        return {name: every.count(name) for name in CHANGES}


def diff(before: Snapshot, after: Snapshot) -> Difference:
    """Compares two snapshots. Memory: what changed slots hold of one tenant."""
    if before.manifest.content_hash == after.manifest.content_hash:
        return Difference(before.id, after.id, is_proven_equal=True, cases=())
    tenants = sorted({*before.tenants(), *after.tenants()})
    cases = tuple(case for tenant in tenants for case in _cases(before, after, tenant))
    return Difference(before.id, after.id, is_proven_equal=False, cases=cases)


def _cases(before: Snapshot, after: Snapshot, tenant: str) -> Iterator[CaseChange]:
    slots = sorted(_changed_slots(before, after, tenant))
    if not slots:
        return
    old, new = (_content(snapshot, tenant, slots) for snapshot in (before, after))
    changes = _changes(tenant, old, new)
    for case in sorted({change.case for change in changes}):
        was, now = (hash_lines(lines_of(tenant, rows.filter(pl.col("case") == case))) for rows in (old, new))
        yield CaseChange(tenant, case, was, now, tuple(change for change in changes if change.case == case))


def _changed_slots(before: Snapshot, after: Snapshot, tenant: str) -> set[int]:
    """Slots that may differ. Ids of edges and claims depend on what comes before, so they say too much, never too
    little: a slot whose vertices, edges and claims have equal digests is equal."""
    changed: set[int] = set()
    for name in _DATASETS:
        old, new = (_slots(snapshot, name, tenant) for snapshot in (before, after))
        changed |= {slot for slot in old.keys() | new.keys() if old.get(slot) != new.get(slot)}
    return changed


def _slots(snapshot: Snapshot, name: str, tenant: str) -> dict[int, str]:
    if tenant not in snapshot.tenants():
        return {}
    parts = snapshot.manifest.dataset(name, tenant_digest(tenant)).parts
    return {slot.slot: slot.digest for part in parts for slot in part.slots}


def _content(snapshot: Snapshot, tenant: str, slots: list[int]) -> pl.DataFrame:
    if tenant not in snapshot.tenants():
        return pl.DataFrame(schema={name: pl.Int32 if name == "kind" else pl.String for name in CONTENT})
    rows = content(snapshot, tenant).filter((pl.col("bucket") // SLOT_BUCKETS).is_in(slots))
    return rows.select(CONTENT)


def _changes(tenant: str, old: pl.DataFrame, new: pl.DataFrame) -> list[Change]:
    both = old.select(*_KEY, *_COMPARED).join(new.select(*_KEY, *_COMPARED), on=_KEY, how="full", suffix="_new")
    differs = pl.any_horizontal(pl.col(name) != pl.col(f"{name}_new") for name in _COMPARED)
    change = (
        pl.when(pl.col("case").is_null())
        .then(pl.lit("added"))
        .when(pl.col("case_new").is_null())
        .then(pl.lit("removed"))
        .when(differs)
        .then(pl.lit("changed"))
    )
    key = [pl.coalesce(name, f"{name}_new").alias(name) for name in _KEY]
    rows = both.select(change.alias("change"), *key).drop_nulls("change").sort(*_KEY)
    return [Change(tenant, case, name, KIND_NAMES[kind], type, id) for name, case, kind, type, id in rows.iter_rows()]
