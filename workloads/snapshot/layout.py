"""What a snapshot consists of: datasets with explicit schemas, slots, and the manifest that names every file.

A slot is 64 buckets. Content hashes (BLAKE3) are taken by slot, over rows in canonical order, so they do not depend on
how many files the rows lie in: two snapshots with equal rows have equal hashes, and a difference is found by slot.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pyarrow as pa
from blake3 import blake3

from cluster import batch
from cluster.errors import Corrupt
from cluster.ids import BUCKETS
from cluster.stores.lake_positions import Positions, positions_of

FORMAT = "intelgraph-snapshot/2"
SLOTS = 64
SLOT_BUCKETS = BUCKETS // SLOTS
MANIFEST = "manifest.json"
LATEST = "LATEST"

_TEXT, _INT = pa.large_string(), pa.int64()


def _schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


REGISTERS = pa.schema(
    [pa.field(f.name, _TEXT if f.type == pa.string() else f.type, nullable=False) for f in batch.SCHEMA]
)
_SHOWN = {"sources": _TEXT, "event_time": _TEXT, "props": _TEXT}
SCHEMAS: dict[str, pa.Schema] = {
    # state part: what the next fold starts from
    "registers": REGISTERS,
    "floors": _schema(tenant=_TEXT, source=_TEXT, type=_TEXT, version=_TEXT),
    "priorities": _schema(tenant=_TEXT, source=_TEXT, stamp=_TEXT, priority=pa.int32()),
    # graph part, cases apart; `vertex`, `src`, `dst` count from 0 over the snapshot
    "vertices": _schema(vertex=_INT, tenant=_TEXT, bucket=pa.uint16(), case=_TEXT, type=_TEXT, id=_TEXT, **_SHOWN),
    "edges": _schema(src=_INT, dst=_INT, type=_TEXT, id=_TEXT, **_SHOWN),
    "csc": _schema(dst=_INT, src=_INT, edge=_INT),
    "csr_offsets": _schema(offset=_INT),
    "csc_offsets": _schema(offset=_INT),
    "claims": _schema(
        bucket=pa.uint16(), case=_TEXT, type=_TEXT, id=_TEXT, subject=_INT, subject_type=_TEXT, subject_id=_TEXT,
        claim=_TEXT, **_SHOWN,
    ),
    # graph part, cases joined by (type, id); ids count from 0 within the tenant
    "joined_vertices": _schema(vertex=_INT, type=_TEXT, id=_TEXT, cases=pa.int32()),
    "joined_of": _schema(joined=_INT),
    "joined_csr": _schema(src=_INT, dst=_INT, edge=_INT),
    "joined_csc": _schema(dst=_INT, src=_INT),
    "joined_csr_offsets": _schema(offset=_INT),
    "joined_csc_offsets": _schema(offset=_INT),
}  # fmt: skip
"""`sources` is a canonical JSON array of the live fact sources, `props` a canonical JSON object: one group, since
sources choose their own property names and the state part is text already. `csc.edge` and `joined_csr.edge` are row
numbers in the tenant's `edges`. Offsets have one more row than there are vertices."""

CODED = frozenset({"tenant", "case", "type", "a_type", "b_type", "source", "partition", "subject_type"})
"""Columns with few values: dictionaries in the files, and hashed as such."""

STATE_DATASETS = ("registers", "floors", "priorities")
TENANT_DATASETS = tuple(name for name in SCHEMAS if name not in STATE_DATASETS)


class Slot(msgspec.Struct, frozen=True):
    """Rows of one slot within a part, and the digest of their content."""

    slot: int
    rows: int
    digest: str


class Part(msgspec.Struct, frozen=True):
    """One file: its rows are those of its slots, in order."""

    path: str
    bytes: int
    blake3: str
    rows: int
    slots: tuple[Slot, ...]


class Dataset(msgspec.Struct, frozen=True):
    """One table in parts, in the order of its rows. `tenant` is a digest, or empty for the state part."""

    name: str
    tenant: str
    rows: int
    content_hash: str
    parts: tuple[Part, ...]


class Tenant(msgspec.Struct, frozen=True):
    """One tenant's share: vertices first_vertex … first_vertex + vertices - 1."""

    tenant: str
    digest: str
    first_vertex: int
    vertices: int
    edges: int
    claims: int
    joined_vertices: int
    joined_edges: int


class AsOf(msgspec.Struct, frozen=True):
    """What a snapshot is complete for."""

    positions: dict[str, Any]
    table_version: int | None
    table_sequence: int
    time: str


class Manifest(msgspec.Struct, frozen=True):
    """A whole snapshot. `content_hash` covers rows alone: no file names, times or positions."""

    format: str
    id: str
    sequence: int
    parent: str
    as_of: AsOf
    schemas: dict[str, list[str]]
    counts: dict[str, int]
    content_hash: str
    datasets: tuple[Dataset, ...]
    tenants: tuple[Tenant, ...]

    @property
    def positions(self) -> Positions:
        """The log positions that the snapshot is complete for."""
        return positions_of(self.as_of.positions)

    def dataset(self, name: str, tenant: str = "") -> Dataset:
        """A dataset by its name and its tenant's digest."""
        found = next((d for d in self.datasets if d.name == name and d.tenant == tenant), None)
        if found is None:
            raise Corrupt(f"snapshot {self.id} names no dataset {name} {tenant}; verify it, or use another")
        return found


class Pointer(msgspec.Struct, frozen=True):
    """What LATEST holds."""

    id: str
    sequence: int
    manifest_sha256: str
    positions: dict[str, Any]


def tenant_digest(tenant: str) -> str:
    """32 hexadecimal digits that stand for a tenant in paths."""
    return hashlib.blake2b(tenant.encode(), digest_size=16).hexdigest()


def dataset_hash(name: str, tenant: str, parts: tuple[Part, ...]) -> str:
    """The content hash of a dataset: of its slots' digests in order, however the parts divide them."""
    digest = blake3(f"{name}\n{tenant}\n".encode())
    for slot in sorted((slot for part in parts for slot in part.slots), key=lambda slot: slot.slot):
        if slot.rows:
            digest.update(f"{slot.slot} {slot.rows} {slot.digest}\n".encode())
    return digest.hexdigest()


def whole_hash(datasets: tuple[Dataset, ...]) -> str:
    """The content hash of a snapshot."""
    digest = blake3()
    for dataset in sorted(datasets, key=lambda d: (d.name, d.tenant)):
        digest.update(f"{dataset.name} {dataset.tenant} {dataset.rows} {dataset.content_hash}\n".encode())
    return digest.hexdigest()


def schema_lines(schema: pa.Schema) -> list[str]:
    """A schema as text."""
    return [f"{field.name}: {field.type}" for field in schema]


_encoder = msgspec.json.Encoder(order="sorted")


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest's only bytes: canonical JSON, then a line with its SHA-256."""
    body = _encoder.encode(manifest)
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def decode_manifest(data: bytes, where: str) -> Manifest:
    """The manifest of its bytes.

    Raises:
        Corrupt: any byte differs from what was written.
    """
    body, _, rest = data.partition(b"\n")
    if rest != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise Corrupt(f"{where}: the manifest is damaged; use another snapshot, and take a new one")
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{where}: the manifest is of another format: {error}") from error
    if manifest.format != FORMAT:
        raise Corrupt(
            f"{where}: format {manifest.format!r}; this program reads {FORMAT!r}. Move the snapshots away: the next one"
            " is made from the lake alone"
        )
    return manifest


def encode_pointer(pointer: Pointer) -> bytes:
    """LATEST's bytes."""
    body = _encoder.encode(pointer)
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def decode_pointer(data: bytes, where: str) -> Pointer:
    """LATEST from its bytes.

    Raises:
        Corrupt: any byte differs from what was written.
    """
    body, _, rest = data.partition(b"\n")
    if rest != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise Corrupt(f"{where}: the pointer is damaged; write the id of a verified snapshot with `promote`")
    try:
        return msgspec.json.decode(body, type=Pointer)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{where}: the pointer is of another format: {error}") from error
