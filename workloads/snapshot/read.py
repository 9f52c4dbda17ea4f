"""Reading snapshots. A reader holds one manifest and a lock that keeps `prune` away; it never lists a folder.

with open_snapshot(folder) as snapshot:
    graph = snapshot.tenant_graph("acme")      # arrays: cases joined, what overlays compute on
    cases = snapshot.case_graph("acme")        # arrays: cases apart
    snapshot.vertices("acme"), snapshot.edges("acme"), snapshot.claims("acme")   # frames
    snapshot.registers(), snapshot.rules()     # the state part
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.errors import Corrupt, NotFound, Unavailable
from cluster.stores.files import FolderLock
from cluster.stores.places import FilePlace, Seen, StoredFile, lock_in, place_at
from workloads.snapshot.fold import Rules, fold_rules
from workloads.snapshot.layout import (
    LATEST,
    MANIFEST,
    SCHEMAS,
    Manifest,
    Part,
    Pointer,
    Tenant,
    decode_manifest,
    decode_pointer,
    tenant_digest,
)

Ints = NDArray[np.int64]
LOCK = "lock"


class CaseGraph(NamedTuple):
    """A tenant's visible graph, cases apart. Vertices count from 0; `first_vertex` + vertex is the snapshot's id.

    csr_offsets, csc_offsets: int64[V + 1]. csr_dst, csc_src: int64[E]. csc_edge: int64[E], rows of `edges`.
    Out-neighbours of v: csr_dst[csr_offsets[v]:csr_offsets[v + 1]]; in-neighbours likewise by csc.
    """

    first_vertex: int
    csr_offsets: Ints
    csr_dst: Ints
    csc_offsets: Ints
    csc_src: Ints
    csc_edge: Ints


class TenantGraph(NamedTuple):
    """A tenant's graph with its cases joined by (type, id); equal relationships once. Vertices count from 0.

    csr_edge: int64[E], rows of `edges`. of_vertex: int64, the joined vertex of each vertex of the case graph.
    """

    csr_offsets: Ints
    csr_dst: Ints
    csr_edge: Ints
    csc_offsets: Ints
    csc_src: Ints
    of_vertex: Ints


class Snapshot:
    """One whole snapshot, open for reading. Safe for several threads; a process opens its own."""

    def __init__(self, home: FilePlace, manifest: Manifest, lock: FolderLock) -> None:
        """`home`: where all snapshots lie."""
        self.home, self.place = home, home.within(manifest.id)
        self.manifest = manifest
        self._lock = lock

    def close(self) -> None:
        """Lets `prune` have it. Safe to call twice."""
        self._lock.release()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def id(self) -> str:
        """The snapshot's name."""
        return self.manifest.id

    def tenants(self) -> list[str]:
        """Tenants with anything visible, sorted."""
        return [tenant.tenant for tenant in self.manifest.tenants]

    def tenant(self, tenant: str) -> Tenant:
        """A tenant's share.

        Raises:
            NotFound: nothing of it is visible in the snapshot.
        """
        found = next((t for t in self.manifest.tenants if t.tenant == tenant), None)
        if found is None:
            raise NotFound(f"snapshot {self.id} holds nothing of that tenant")
        return found

    def parts(self, dataset: str, tenant: str = "") -> list[StoredFile]:
        """Files of a dataset, in the order of its rows: what a distributed reader divides among its workers."""
        found = self.manifest.dataset(dataset, tenant_digest(tenant) if tenant else "")
        return [StoredFile(self.place, part.path) for part in found.parts]

    def frame(self, dataset: str, tenant: str = "", columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A dataset, whole, in its order.

        Args:
            columns: all where absent.

        Raises:
            NotFound: the tenant has nothing in the snapshot.
            Corrupt: a file is missing or damaged.
        """
        if tenant:
            self.tenant(tenant)
        schema = SCHEMAS[dataset]
        names = list(columns or schema.names)
        frames = [read_part(file, names) for file in self.parts(dataset, tenant)]
        if not frames:
            return pl.DataFrame(pl.from_arrow(schema.empty_table())).select(names)
        return pl.concat(frames)

    def array(self, dataset: str, tenant: str, column: str) -> Ints:
        """One integer column of a dataset: int64."""
        self.tenant(tenant)
        return _integers(self.parts(dataset, tenant), column)

    def vertices(self, tenant: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A tenant's visible entities by id."""
        return self.frame("vertices", tenant, columns)

    def edges(self, tenant: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A tenant's visible relationships by (src, dst)."""
        return self.frame("edges", tenant, columns)

    def claims(self, tenant: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A tenant's visible claims by bucket, case, type, id."""
        return self.frame("claims", tenant, columns)

    def case_graph(self, tenant: str) -> CaseGraph:
        """Arrays of a tenant's graph, cases apart."""
        first = self.tenant(tenant).first_vertex
        return CaseGraph(
            first,
            self.array("csr_offsets", tenant, "offset"),
            self.array("edges", tenant, "dst") - first,
            self.array("csc_offsets", tenant, "offset"),
            self.array("csc", tenant, "src") - first,
            self.array("csc", tenant, "edge"),
        )

    def tenant_graph(self, tenant: str) -> TenantGraph:
        """Arrays of a tenant's graph, cases joined."""
        return TenantGraph(
            self.array("joined_csr_offsets", tenant, "offset"),
            self.array("joined_csr", tenant, "dst"),
            self.array("joined_csr", tenant, "edge"),
            self.array("joined_csc_offsets", tenant, "offset"),
            self.array("joined_csc", tenant, "src"),
            self.array("joined_of", tenant, "joined"),
        )

    def tenant_vertices(self, tenant: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """type, id and number of cases of each joined vertex; the row number is the vertex."""
        return self.frame("joined_vertices", tenant, columns)

    def registers(self, buckets: tuple[int, int] | None = None) -> pl.DataFrame:
        """The state part's registers, tombstones and overlays too; of buckets from the first to the last named."""
        if buckets is None:
            return self.frame("registers")
        wanted = pl.col("bucket").is_between(*buckets)
        found = [read_part(file, None).filter(wanted) for file in self.parts("registers")]
        return pl.concat(found) if found else self.frame("registers")

    def rules(self) -> Rules:
        """Floors and priorities."""
        return fold_rules(self.frame("floors"), self.frame("priorities"))


def read_part(file: StoredFile, columns: list[str] | None) -> pl.DataFrame:
    """One file of a snapshot.

    Raises:
        Corrupt: it is missing or damaged.
        Unavailable: S3 does not answer.
    """
    try:
        return pl.read_parquet(file.place.source(file.name), columns=columns, glob=False)
    except FileNotFoundError as error:
        raise Corrupt(f"{_last(file.name)} is missing from the snapshot; verify it and use another") from error
    except pl.exceptions.PolarsError as error:
        raise Corrupt(f"{_last(file.name)} is damaged ({error}); verify the snapshot and use another") from error


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _integers(files: list[StoredFile], column: str) -> Ints:
    try:
        columns = [pq.read_table(f.place.source(f.name), columns=[column]).column(0).to_numpy() for f in files]
    except (OSError, ValueError) as error:
        raise Corrupt(f"a file of the snapshot is missing or damaged ({error}); verify it and use another") from error
    if len(columns) == 1:
        return np.asarray(columns[0], np.int64)
    return np.concatenate(columns) if columns else np.empty(0, np.int64)


def look_at_pointer(place: FilePlace) -> tuple[Pointer | None, Seen | None]:
    """What LATEST holds, and the file itself, for who replaces it."""
    seen = place.look(LATEST)
    return (decode_pointer(seen.data, LATEST) if seen else None), seen


def read_pointer(where: FilePlace | Path) -> Pointer | None:
    """What LATEST holds; None where no snapshot was ever taken."""
    return look_at_pointer(place_at(where))[0]


def open_snapshot(where: FilePlace | Path, which: str = "latest") -> Snapshot:
    """Opens a snapshot by its id, or the latest one.

    Args:
        where: the place, or the folder, of all snapshots.

    Raises:
        NotFound: there is none, or none of that id.
        Corrupt: pointer or manifest are damaged.
        Unavailable: it is being removed, or S3 does not answer.
    """
    place = place_at(where)
    pointer = read_pointer(place) if which == "latest" else None
    if which == "latest" and pointer is None:
        raise NotFound("no snapshot was taken yet: run `intelgraph snapshot create`")
    name = pointer.id if pointer else which
    if Path(name).name != name or place.size(f"{name}/{MANIFEST}") is None:
        raise NotFound(f"there is no snapshot {name!r}: `intelgraph snapshot list` names those there are")
    lock = lock_in(place, f"{name}/{LOCK}")
    if not lock.acquire(shared=True):
        raise Unavailable(f"snapshot {name} is being written or removed; open the latest one")
    try:
        manifest = _manifest(place, name, pointer)
    except BaseException:
        lock.release()
        raise
    return Snapshot(place, manifest, lock)


def _manifest(place: FilePlace, name: str, pointer: Pointer | None) -> Manifest:
    seen = place.look(f"{name}/{MANIFEST}")
    if seen is None:
        raise NotFound(f"snapshot {name} was removed")
    manifest = decode_manifest(seen.data, name)
    if manifest.id != name or (pointer and not seen.data.endswith(f"{pointer.manifest_sha256}\n".encode())):
        raise Corrupt(f"snapshot {name}: the manifest is not the one that was published; use another snapshot")
    return manifest


def list_snapshots(where: FilePlace | Path) -> list[Manifest]:
    """Manifests of the published snapshots, oldest first: the latest one, its parent, that one's parent, ….

    One that is damaged or removed ends the list; `open_snapshot` says what is wrong with it.
    """
    place = place_at(where)
    pointer = read_pointer(place)
    found: list[Manifest] = []
    name = pointer.id if pointer else ""
    while name:
        seen = place.look(f"{name}/{MANIFEST}")
        if seen is None:
            break
        try:
            found.append(decode_manifest(seen.data, name))
        except Corrupt:
            break
        name = found[-1].parent
    return found[::-1]


def files_of(manifest: Manifest) -> list[Part]:
    """Every file that a manifest names."""
    return [part for dataset in manifest.datasets for part in dataset.parts]
