"""The real change history of ATT&CK through log and two shards: one hash, however it is replayed.

Mapping: a domain (enterprise, mobile, ics) is a tenant with one case, `matrix`, since a relationship needs both its
ends in one case and every relationship here lies within its domain. An object's type is its type, a relation's type
its relationship type. The version is `seq`, the history's own order; `modified` is no version (3,451 changes keep the
old one) and goes along as a property.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster import batch
from cluster.fold import Fold, hash_lines
from cluster.model import Kind, Op, Record
from cluster.stores.log import Append
from cluster.values import canonical_json
from tests.faults.harness import Installation
from tests.strategies import make

pytestmark = [pytest.mark.services, pytest.mark.slow]

CASE, SOURCE = "matrix", "mitre"
BATCH_RECORDS = 1_000
_ENTITY_PROPS = ("name", "external_id", "aliases", "platforms", "created", "modified", "revoked", "deprecated")
_RELATIONSHIP_PROPS = ("created", "modified", "revoked", "deprecated")
Row = dict[str, Any]


def to_record(row: Row) -> Record:
    """One change as a record."""
    is_edge = row["kind"] == "relationship"
    names = _RELATIONSHIP_PROPS if is_edge else _ENTITY_PROPS
    props = canonical_json({name: row[name] for name in names if row[name] is not None})
    ends = ("", "", "", "")
    if is_edge:
        a, b = row["source_ref"], row["target_ref"]
        ends = (a.partition("--")[0], a, b.partition("--")[0], b)
    kind = Kind.RELATIONSHIP if is_edge else Kind.ENTITY
    op = Op.DELETE if row["op"] == "delete" else Op.UPSERT
    released = f"{row['released_at']}T00:00:00Z"
    return make(
        row["domain"], CASE, kind, row["type"], row["stix_id"], SOURCE, row["seq"], op, ends, props, time=released
    )


@pytest.fixture(scope="module")
def rows(shared_path: Callable[[str], Path]) -> list[Row]:
    table = pq.read_table(shared_path("data/attack/attack-history.parquet")).sort_by("seq")
    return table.to_pylist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def records(rows: list[Row]) -> list[Record]:
    return [to_record(row) for row in rows]


def append(system: Installation, records: Sequence[Record]) -> None:
    """Batches of each partition, in the records' order."""
    by_partition: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_partition[record.bucket % system.partitions].append(record)
    log = system.stack.open_log()
    for partition, mine in by_partition.items():
        for at in range(0, len(mine), BATCH_RECORDS):
            page = mine[at : at + BATCH_RECORDS]
            log.append([Append(partition, batch.encode(page), len(page))])
    log.close()


def test_the_history_is_the_one_that_is_documented(rows: list[Row]) -> None:
    assert len(rows) == 61_390
    assert [r["seq"] for r in rows] == list(range(1, 61_391))
    ends: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    modified: dict[tuple[str, str], str] = {}
    last_op: dict[tuple[str, str], str] = {}
    kept = created_again = 0
    known = {r["stix_id"] for r in rows if r["kind"] == "entity"}
    nowhere = 0
    for row in rows:
        key = (row["domain"], row["stix_id"])
        kept += modified.get(key) == row["modified"]
        created_again += row["op"] == "create" and last_op.get(key) == "delete"
        modified[key], last_op[key] = row["modified"], row["op"]
        if row["kind"] == "relationship":
            ends[key].add((row["source_ref"], row["target_ref"]))
            nowhere += row["source_ref"] not in known or row["target_ref"] not in known
    assert len(ends) == 24_268
    assert sum(len(found) > 1 for found in ends.values()) == 3_406
    assert kept == 3_451
    assert created_again == 25
    assert nowhere == 9


def test_replays_and_shuffles_have_one_hash(server_root: Path, records: list[Record]) -> None:
    fold = Fold().apply_all(records)
    expected = (hash_lines(fold.export_lines()), hash_lines(fold.state_lines()))
    assert len(fold.export_lines()) > 10_000
    with Installation(server_root / "ah1") as system:
        system.start()
        owners = system.stack.current_map().owners
        assert {owners[r.bucket] for r in records} == set(system.shard_ids)
        for _ in range(3):
            append(system, records)
            system.settle(deadline_s=120.0)
            assert system.hashes() == expected
        outcomes = [c for shard in system.opened() for c in shard.cursors().values()]
        assert sum(c.records for c in outcomes) == 3 * len(records)
        assert sum(c.applied for c in outcomes) <= len(records)
    shuffled = list(records)
    random.Random(20180116).shuffle(shuffled)
    with Installation(server_root / "ah2") as system:
        system.start()
        append(system, shuffled)
        system.settle(deadline_s=120.0)
        assert system.hashes() == expected
