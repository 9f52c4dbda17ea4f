"""Whole snapshots: their arrays, equality, pointer, pruning, and what verification and diff find."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from cluster.errors import Conflict, Corrupt, NotFound, Rejected, Unavailable
from cluster.fold import hash_lines
from cluster.model import Op, Record
from cluster.stores.lake import Lake, Positions
from tests.cluster.stores.lake_records import claim, entity, relationship
from tests.workloads.snapshot.lakes import fill
from workloads.kernels.csr import Adjacency, check_adjacency
from workloads.snapshot import parts, publish, units
from workloads.snapshot.create import create_snapshot
from workloads.snapshot.diff import diff
from workloads.snapshot.digest import slots_of
from workloads.snapshot.export import export_hash, export_lines
from workloads.snapshot.layout import (
    LATEST,
    MANIFEST,
    TENANT_DATASETS,
    Manifest,
    dataset_hash,
    encode_manifest,
    tenant_digest,
    whole_hash,
)
from workloads.snapshot.prune import prune
from workloads.snapshot.read import Snapshot, files_of, list_snapshots, open_snapshot
from workloads.snapshot.verify import verify

NOW = 1_800_000_000.0
START = Positions("log", 1)

WORLD = [
    *(entity(f"p{n}", case=f"c{n % 3}", position=n, props=f'{{"n":{n}}}') for n in range(1, 13)),
    *(relationship(f"r{n}", f"p{n}", f"p{n + 3}", case=f"c{n % 3}", position=n) for n in range(1, 10)),
    relationship("parallel", "p1", "p4", case="c1"),
    relationship("loop", "p2", "p2", case="c2"),
    relationship("waits", "p1", "nobody", case="c1"),
    claim("k1", "p3", case="c0"),
    claim("k2", "nobody", case="c0"),
    entity("shared", case="c0"),
    entity("shared", case="c1"),
    entity("also", case="c0"),
    entity("also", case="c1"),
    relationship("both", "shared", "also", case="c0"),
    relationship("both", "shared", "also", case="c1"),
    relationship("one", "shared", "also", case="c1"),
    entity("gone", case="c0"),
    entity("gone", case="c0", op=Op.DELETE, position=2),
    entity("x", tenant="u", case="c"),
    entity("y", tenant="u", case="c"),
    relationship("xy", "x", "y", tenant="u", case="c"),
    claim("only", "z", tenant="v", case="c"),
]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake.open(tmp_path / "lake") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def taken(lake: Lake, folder: Path) -> Iterator[Snapshot]:
    fill(lake, START, WORLD)
    create_snapshot(lake, folder, NOW)
    with open_snapshot(folder) as snapshot:
        yield snapshot


def test_counts_and_as_of(taken: Snapshot, lake: Lake) -> None:
    assert taken.tenants() == ["t", "u", "v"]
    assert taken.manifest.counts["registers"] == len(WORLD) - 1
    shares = [(t.first_vertex, t.vertices, t.edges, t.claims) for t in taken.manifest.tenants]
    assert shares == [(0, 16, 14, 2), (16, 2, 1, 0), (18, 0, 0, 1)]
    assert taken.manifest.positions == lake.positions()
    assert taken.manifest.as_of.table_version == lake.version()
    assert taken.manifest.as_of.time == "2027-01-15T08:00:00.000Z"
    assert lake._table.refs().keys() == {"main"}


def test_rows_and_hashes_do_not_depend_on_how_many_files_and_groups_there_are(
    taken: Snapshot, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 5)
    monkeypatch.setattr(units, "PIECE_ROWS", 8)
    monkeypatch.setattr(parts, "TEXT_GROUP_ROWS", 3)
    monkeypatch.setattr(parts, "NUMBER_GROUP_ROWS", 3)
    create_snapshot(lake, tmp_path / "others", NOW)
    with open_snapshot(tmp_path / "others") as other:
        assert len(other.parts("registers")) > 1
        assert len(other.parts("edges", "t")) > 1
        assert other.manifest.content_hash == taken.manifest.content_hash
        assert other.edges("t").equals(taken.edges("t"))
        assert verify(other).is_whole


def test_vertices_are_ordered_by_tenant_bucket_case_type_id(taken: Snapshot) -> None:
    for tenant in ("t", "u"):
        rows = taken.vertices(tenant)
        first = taken.tenant(tenant).first_vertex
        assert rows["vertex"].to_list() == list(range(first, first + len(rows)))
        keys = list(rows.select("bucket", "case", "type", "id").iter_rows())
        assert keys == sorted(keys)
        assert set(rows["sources"]) == {'["s"]'}


def test_case_graph_holds_the_edges(taken: Snapshot) -> None:
    graph, vertices, edges = taken.case_graph("t"), taken.vertices("t"), taken.edges("t")
    names = list(vertices.select("case", "id").iter_rows())
    count = len(names)
    check_adjacency(Adjacency(graph.csr_offsets, graph.csr_dst), count)
    check_adjacency(Adjacency(graph.csc_offsets, graph.csc_src), count)
    out = [
        (names[v], names[w])
        for v in range(count)
        for w in graph.csr_dst[graph.csr_offsets[v] : graph.csr_offsets[v + 1]]
    ]
    into = [
        (names[w], names[v])
        for v in range(count)
        for w in graph.csc_src[graph.csc_offsets[v] : graph.csc_offsets[v + 1]]
    ]
    assert sorted(out) == sorted(into)
    expected = {
        (r.case, r.type, r.id): ((r.case, r.a_id), (r.case, r.b_id))
        for r in WORLD
        if r.kind == 1 and r.tenant == "t" and r.id != "waits"
    }
    assert sorted(out) == sorted(expected.values())
    for position, (kind, name) in enumerate(edges.select("type", "id").iter_rows()):
        assert expected[out[position][0][0], kind, name] == out[position]
    assert sorted(graph.csc_edge) == list(range(len(edges)))
    assert [out[e] for e in graph.csc_edge] == into


def test_joined_graph_counts_equal_relationships_once(taken: Snapshot) -> None:
    graph, vertices = taken.tenant_graph("t"), taken.tenant_vertices("t")
    names = vertices["id"].to_list()
    assert names == sorted(names)
    assert dict(vertices.select("id", "cases").iter_rows())["shared"] == 2
    count = len(names)
    check_adjacency(Adjacency(graph.csr_offsets, graph.csr_dst), count)
    check_adjacency(Adjacency(graph.csc_offsets, graph.csc_src), count)
    at = names.index("shared")
    assert [names[v] for v in graph.csr_dst[graph.csr_offsets[at] : graph.csr_offsets[at + 1]]] == ["also", "also"]
    ids = taken.edges("t")["id"].gather(graph.csr_edge)
    assert sorted(ids.to_list()).count("both") == 1
    assert len(graph.csr_dst) == len(graph.csc_src) == 13
    assert [names[j] for j in graph.of_vertex] == taken.vertices("t")["id"].to_list()


def test_equal_relationship_with_other_ends_is_another(lake: Lake, folder: Path) -> None:
    records = [entity(n, case=c) for n in "ab" for c in ("c0", "c1")]
    fill(lake, START, [*records, relationship("r", "a", "b", case="c0"), relationship("r", "b", "a", case="c1")])
    create_snapshot(lake, folder, NOW)
    with open_snapshot(folder) as snapshot:
        assert snapshot.tenant("t").joined_edges == 2


def test_claims_name_their_subject(taken: Snapshot) -> None:
    rows = {row["id"]: row for row in taken.claims("t").iter_rows(named=True)}
    assert taken.vertices("t")["id"][rows["k1"]["subject"]] == "p3"
    assert rows["k2"]["subject"] == -1
    assert taken.claims("v")["claim"].to_list() == ['["says","z",0.5]']


def test_a_tenants_data_lies_under_its_own_path(taken: Snapshot) -> None:
    for tenant in taken.tenants():
        for dataset in ("vertices", "edges", "claims"):
            assert all(f"tenants/{tenant_digest(tenant)}/" in file.name for file in taken.parts(dataset, tenant))
    with pytest.raises(NotFound):
        taken.vertices("nobody")
    assert export_lines(taken, "nobody") == []


def test_two_with_nothing_between_are_equal(lake: Lake, folder: Path) -> None:
    at = fill(lake, START, WORLD)
    first = create_snapshot(lake, folder, NOW)
    second = create_snapshot(lake, folder, NOW + 5)
    third = create_snapshot(lake, folder, NOW + 9, unit_rows=3)
    assert len(third.dataset("registers").parts) > len(second.dataset("registers").parts)
    assert first.content_hash == second.content_hash == third.content_hash
    assert (second.parent, third.parent) == (first.id, second.id)
    fill(lake, at, [entity("new")])
    assert create_snapshot(lake, folder, NOW).content_hash != first.content_hash
    for manifest in list_snapshots(folder):
        with open_snapshot(folder, manifest.id) as snapshot:
            assert verify(snapshot).problems == ()


def test_many_units_and_tenants_verify(lake: Lake, folder: Path) -> None:
    records: list[Record] = []
    for n in range(300):
        tenant, case = f"t{n % 4}", f"case-{n % 37}"
        records += [entity(f"p{n}", tenant=tenant, case=case), entity(f"q{n % 11}", tenant=tenant, case=case)]
        records.append(relationship(f"r{n}", f"p{n}", f"q{n % 11}", tenant=tenant, case=case))
    fill(lake, START, records)
    manifest = create_snapshot(lake, folder, NOW, unit_rows=50)
    assert len(manifest.dataset("registers").parts) > 10
    with open_snapshot(folder) as snapshot:
        assert verify(snapshot).problems == ()


def test_an_empty_lake_makes_an_empty_snapshot(lake: Lake, folder: Path) -> None:
    manifest = create_snapshot(lake, folder, NOW)
    assert manifest.counts["registers"] == 0
    with open_snapshot(folder) as snapshot:
        assert snapshot.tenants() == []
        assert verify(snapshot).is_whole
        assert snapshot.registers().is_empty()


def test_no_snapshot_yet(folder: Path) -> None:
    folder.mkdir()
    with pytest.raises(NotFound, match="no snapshot was taken"):
        open_snapshot(folder)
    with pytest.raises(NotFound, match="there is no snapshot"):
        open_snapshot(folder, "../etc")
    assert list_snapshots(folder) == []


# what verification finds


def test_a_flipped_byte_anywhere_is_found(taken: Snapshot, tmp_path: Path) -> None:
    paths = [taken.place.local / part.path for part in files_of(taken.manifest)]
    assert len(paths) > 15
    for path in paths:
        data = path.read_bytes()
        for at in (0, len(data) // 3, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            for deep in (False, True):
                found = verify(taken, deep=deep)
                assert len(found.problems) == 1
                assert path.name in found.problems[0]
        path.write_bytes(data)
    assert verify(taken).is_whole


def test_a_flipped_byte_in_manifest_or_pointer_is_found(taken: Snapshot, folder: Path) -> None:
    for path in (taken.place.local / MANIFEST, folder / LATEST):
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 60)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(Corrupt, match=r"damaged|other format"):
                open_snapshot(folder)
        path.write_bytes(data)
    open_snapshot(folder).close()


def test_a_missing_file_is_found(taken: Snapshot) -> None:
    name = taken.parts("edges", "t")[0].name
    taken.place.remove(name)
    assert verify(taken, deep=False).problems == (f"{name}: the file is missing",)
    with pytest.raises(Corrupt, match="missing"):
        taken.edges("t")


def forge(snapshot: Snapshot, dataset: str, tenant: str, change: object, *, rehash: bool) -> Snapshot:
    """Rewrites a file with other rows, and makes its hash and all counts fit; with `rehash` content hashes too."""
    from cluster.stores.files import blake3_of

    digest = tenant_digest(tenant) if tenant else ""
    manifest = snapshot.manifest
    old = manifest.dataset(dataset, digest)
    part = old.parts[0]
    path = snapshot.place.local / part.path
    table = change(pq.read_table(path))  # type: ignore[operator]
    pq.write_table(table, path)
    counted = [(slot.slot, slot.rows) for slot in part.slots]
    counted[-1] = (counted[-1][0], counted[-1][1] + table.num_rows - part.rows)
    slots = slots_of(table, counted) if rehash else part.slots
    new_part = msgspec.structs.replace(
        part, rows=table.num_rows, bytes=path.stat().st_size, blake3=blake3_of(path), slots=slots
    )
    content = dataset_hash(dataset, digest, (new_part,)) if rehash else old.content_hash
    new = msgspec.structs.replace(old, rows=table.num_rows, parts=(new_part,), content_hash=content)
    datasets = tuple(new if d is old else d for d in manifest.datasets)
    counts = manifest.counts | {dataset: manifest.counts[dataset] + table.num_rows - part.rows}
    whole = whole_hash(datasets) if rehash else manifest.content_hash
    forged = msgspec.structs.replace(manifest, datasets=datasets, counts=counts, content_hash=whole)
    (snapshot.place.local / MANIFEST).write_bytes(encode_manifest(forged))
    return open_snapshot(snapshot.home.local, snapshot.id)


DATASETS = [("registers", ""), *((name, "t") for name in TENANT_DATASETS)]


@pytest.mark.parametrize("rehash", [False, True])
@pytest.mark.parametrize(("dataset", "tenant"), DATASETS)
def test_a_missing_row_is_found(taken: Snapshot, dataset: str, tenant: str, rehash: bool) -> None:
    """Even where whoever lost it made the file's hash and the counts fit, and, with `rehash`, every content hash."""
    with forge(taken, dataset, tenant, lambda table: table.slice(0, table.num_rows - 1), rehash=rehash) as forged:
        assert verify(forged, deep=False).is_whole
        assert not verify(forged).is_whole


@pytest.mark.parametrize("rehash", [False, True])
def test_a_changed_value_is_found(taken: Snapshot, rehash: bool) -> None:
    def change(table: object) -> object:
        frame = pl.DataFrame(pl.from_arrow(table))  # type: ignore[arg-type]
        changed = frame.with_columns(pl.when(pl.col("id") == "p4").then(pl.lit("{}")).otherwise("props").alias("props"))
        return changed.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(table.schema)  # type: ignore[attr-defined]

    with forge(taken, "vertices", "t", change, rehash=rehash) as forged:
        assert not verify(forged).is_whole


# the pointer, pruning


def test_the_pointer_only_advances(lake: Lake, folder: Path) -> None:
    at = fill(lake, START, WORLD[:5])
    first = create_snapshot(lake, folder, NOW)
    fill(lake, at, WORLD[5:9])
    second = create_snapshot(lake, folder, NOW)
    publish.advance(folder, second)
    with pytest.raises(Conflict, match="published meanwhile"):
        publish.advance(folder, first)
    shorter = msgspec.structs.replace(first, sequence=99)
    with pytest.raises(Conflict):
        publish.advance(folder, shorter)
    with open_snapshot(folder) as snapshot:
        assert snapshot.id == second.id


def test_of_two_at_once_one_is_refused_and_leaves_nothing(lake: Lake, folder: Path, tmp_path: Path) -> None:
    fill(lake, START, WORLD)
    inner: list[Manifest] = []

    def meanwhile(step: str) -> None:
        if step == "manifest.write" and not inner:
            with Lake.open(tmp_path / "lake") as other:
                inner.append(create_snapshot(other, folder, NOW))

    with pytest.raises(Conflict):
        create_snapshot(lake, folder, NOW, failpoint=meanwhile)
    assert [m.id for m in list_snapshots(folder)] == [inner[0].id]
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == [inner[0].id]


def test_another_lake_is_refused(lake: Lake, folder: Path, tmp_path: Path) -> None:
    fill(lake, START, WORLD)
    create_snapshot(lake, folder, NOW)
    with Lake.open(tmp_path / "other") as other:
        fill(other, Positions("another", 1), WORLD)
        with pytest.raises(Conflict, match="another lake"):
            create_snapshot(other, folder, NOW)


def test_prune_keeps_the_newest_and_what_is_read(lake: Lake, folder: Path) -> None:
    fill(lake, START, WORLD)
    ids = [create_snapshot(lake, folder, NOW).id for _ in range(5)]
    (folder / "00000099-dead").mkdir()
    (folder / "LATEST.x.aside").touch()
    with open_snapshot(folder, ids[0]) as reader:
        pruned = prune(folder, keep=2)
        assert pruned.removed == (ids[1], ids[2], "00000099-dead")
        assert pruned.in_use == (ids[0],)
        assert verify(reader).is_whole
    assert prune(folder, keep=2).removed == (ids[0],)
    assert [m.id for m in list_snapshots(folder)] == ids[3:]
    assert not list(folder.glob("*.aside"))
    with pytest.raises(Rejected, match="1 or more"):
        prune(folder, keep=0)
    with pytest.raises(NotFound):
        open_snapshot(folder, ids[0])


def test_one_that_is_being_written_is_not_pruned(lake: Lake, folder: Path) -> None:
    fill(lake, START, WORLD)
    seen: list[object] = []

    def look(step: str) -> None:
        if step in ("vertices.rename", "manifest.write", "pointer.rename") and len(seen) < 9:
            found = prune(folder, keep=1)
            seen.append(found.removed)
            assert len(found.in_use) == 1

    create_snapshot(lake, folder, NOW, failpoint=look)
    assert seen
    assert set(seen) == {()}
    with open_snapshot(folder) as snapshot:
        assert verify(snapshot).is_whole


def test_one_that_is_being_removed_cannot_be_opened(taken: Snapshot, folder: Path) -> None:
    from cluster.stores.files import FolderLock

    taken.close()
    lock = FolderLock(taken.place.local / "lock")
    assert lock.acquire(shared=False)
    with pytest.raises(Unavailable, match="removed"):
        open_snapshot(folder)
    lock.release()


# diff


def test_diff_names_what_changed(lake: Lake, folder: Path) -> None:
    at = fill(lake, START, WORLD)
    first = create_snapshot(lake, folder, NOW)
    again = create_snapshot(lake, folder, NOW)
    fill(
        lake,
        at,
        [
            entity("new", case="c9"),
            entity("p4", case="c1", position=50, props='{"n":0}'),
            entity("p2", case="c2", position=50, op=Op.DELETE),
            entity("x", tenant="u", case="c", position=9),
        ],
    )
    second = create_snapshot(lake, folder, NOW)
    with (
        open_snapshot(folder, first.id) as a,
        open_snapshot(folder, again.id) as b,
        open_snapshot(folder, second.id) as c,
    ):
        assert diff(a, b).is_proven_equal
        assert diff(a, b).cases == ()
        found = diff(a, c)
        assert {(case.case, x.change, x.kind, x.id) for case in found.cases for x in case.changes} == {
            ("c9", "added", "entity", "new"),
            ("c1", "changed", "entity", "p4"),
            ("c2", "removed", "entity", "p2"),
            ("c2", "removed", "relationship", "r2"),
            ("c2", "removed", "relationship", "loop"),
        }
        assert found.counts() == {"added": 1, "removed": 3, "changed": 1}
        for case in found.cases:
            assert case.hash_before == export_hash(a, case.tenant, case.case)
            assert case.hash_after == export_hash(c, case.tenant, case.case)
            assert case.hash_before != case.hash_after
        assert next(c.hash_before for c in found.cases if c.case == "c9") == hash_lines([])
        back = diff(c, a)
        assert back.counts() == {"added": 3, "removed": 1, "changed": 1}


def test_diff_of_a_tenant_that_came(lake: Lake, folder: Path) -> None:
    at = fill(lake, START, [entity("a")])
    first = create_snapshot(lake, folder, NOW)
    fill(lake, at, [entity("b", tenant="w")])
    create_snapshot(lake, folder, NOW)
    with open_snapshot(folder, first.id) as a, open_snapshot(folder) as b:
        assert [(c.tenant, c.changes[0].change) for c in diff(a, b).cases] == [("w", "added")]
        assert [(c.tenant, c.changes[0].change) for c in diff(b, a).cases] == [("w", "removed")]


def test_a_reader_keeps_its_snapshot_while_others_are_taken(taken: Snapshot, lake: Lake, folder: Path) -> None:
    before = export_lines(taken, "t")
    fill(lake, lake.positions(), [entity("later", case="c0", position=99)])
    create_snapshot(lake, folder, NOW)
    prune(folder, keep=1)
    assert export_lines(taken, "t") == before
    assert np.array_equal(taken.case_graph("t").csr_offsets, taken.case_graph("t").csr_offsets)


def test_a_snapshot_can_be_copied_elsewhere(taken: Snapshot, tmp_path: Path) -> None:
    shutil.copytree(taken.home.local, tmp_path / "copy")
    with open_snapshot(tmp_path / "copy") as copy:
        assert verify(copy).is_whole
        assert export_lines(copy, "t") == export_lines(taken, "t")
