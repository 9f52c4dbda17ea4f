"""A snapshot of 1M and of 5M relationships against sorting the same rows into one Parquet file, in one run.

    python bench/snapshot.py [--relationships 1000000 5000000] [--per-entity 2 16] [--repeats 3] [--seed 0]

Records in the form of `bare_ingest.py gen` (5 properties each, 200 cases of 4 tenants, Pareto ends; two relationships
to an entity, and 16, as in the R-MAT graphs of the other benchmarks) are made as Arrow columns and appended to a lake
without going through ingest; not timed. Their content hashes are random numbers of the right form. Ours:
`create_snapshot`, a first one of the whole lake, in a process of its own: registers folded, the visible graph numbered,
CSR and CSC of each tenant, cases apart and joined, hashed, fsynced, published. polars: reads the lake's files, sorts by
key, writes one Parquet file (zstd), fsynced, in a process of its own; no fold, no graph. They take turns; medians are
compared; starts of processes do not count.

"More a second" is relationships that the larger lake has more, by the seconds that its snapshot takes more (the
entities that come with them are in those seconds). Last line: JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - a script has to find the packages first
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402

from bench.graph import machine  # noqa: E402
from cluster import batch  # noqa: E402
from cluster.ids import bucket_of  # noqa: E402
from cluster.model import Kind, Op  # noqa: E402
from cluster.stores.lake import Lake, LakeEntry, Positions  # noqa: E402
from cluster.versions import floor_of  # noqa: E402

CASES, TENANTS, PARTITIONS = 200, 4, 8
CHUNK, WARM = 250_000, 10_000
FIRST_POSITION = 1 << 28
"""Positions from here on have 8 hexadecimal digits, hence the letter `h` (cluster/versions.py)."""
PACKAGES = ("polars", "pyarrow", "pyiceberg", "numba", "numpy")
KEY = ("tenant", "case", "kind", "type", "id")


def stamps(first: int, count: int, rng: np.random.Generator) -> pa.Array:
    """Stamps of consecutive positions of epoch 1."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    head = f"{floor_of(1)}h".encode()
    text = np.empty((count, len(head) + 8 + 1 + 15), np.uint8)
    text[:, : len(head)] = np.frombuffer(head, np.uint8)
    position = np.arange(first, first + count, dtype=np.int64) + FIRST_POSITION
    for nibble in range(8):
        text[:, len(head) + nibble] = digits[(position >> (28 - 4 * nibble)) & 15]
    text[:, len(head) + 8] = ord(".")
    text[:, -15:] = digits[rng.integers(0, 16, (count, 15))]
    offsets = np.arange(count + 1, dtype=np.int32) * text.shape[1]
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def entities(first: int, count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Entities n<first>, n<first+1>, …"""
    i = pl.int_range(first, first + count, eager=True).alias("i")
    frame = pl.DataFrame({"i": i, "c": i % CASES, "score": rng.random(count)})
    props = ['{"active":', pl.when(pl.col("i") % 3 == 0).then(pl.lit("true")).otherwise(pl.lit("false")), ',"email":"u',
             "i", '@example.org","name":"Name ', "i", '","rank":', "i", ',"score":', "score", "}"]  # fmt: skip
    ends = {name: pl.lit("") for name in ("a_type", "a_id", "b_type", "b_id")}
    own = {"type": _text(["type_", pl.col("i") // CASES % 10]), "id": _text(["n", "i"])}
    return _records(frame, Kind.ENTITY, {**own, **ends, "props": _text(props)}, stamps(first, count, rng))


def relationships(first: int, count: int, least: int, rng: np.random.Generator) -> pl.DataFrame:
    """Relationships r<first>, …, between entities of one case.

    Args:
        least: entities that every case has.
    """
    case = rng.integers(0, CASES, count)
    hubs = np.minimum((rng.pareto(1.2, count) + 1).astype(np.int64), least) - 1
    a, b = hubs * CASES + case, rng.integers(0, least, count) * CASES + case
    j = np.arange(first, first + count)
    frame = pl.DataFrame({"j": j, "c": case, "a": a, "b": b, "weight": rng.random(count)})
    props = ['{"kind":"k","note":"note ', "j", '","seen":true,"since":', "j", ',"weight":', "weight", "}"]
    own = {"type": _text(["REL_", pl.col("j") % 10]), "id": _text(["r", "j"]), "props": _text(props)}
    for end in ("a", "b"):
        own |= {f"{end}_type": _text(["type_", pl.col(end) // CASES % 10]), f"{end}_id": _text(["n", end])}
    return _records(frame, Kind.RELATIONSHIP, own, stamps(least * CASES + first, count, rng))


def _text(parts: list[Any]) -> pl.Expr:
    columns = ("i", "j", "a", "b", "score", "weight")
    return pl.concat_str([pl.lit(p) if isinstance(p, str) and p not in columns else p for p in parts])


def _records(frame: pl.DataFrame, kind: Kind, own: dict[str, pl.Expr], stamp: pa.Array) -> pl.DataFrame:
    names = [(f"t{c % TENANTS}", f"case-{c}") for c in range(CASES)]
    places = pl.DataFrame(
        {"c": range(CASES), "tenant": [t for t, _ in names], "case": [c for _, c in names],
         "bucket": [bucket_of(*name) for name in names]}, schema_overrides={"bucket": pl.UInt16},
    )  # fmt: skip
    fixed = {"kind": pl.lit(int(kind), pl.UInt8), "op": pl.lit(int(Op.UPSERT), pl.UInt8), "source": pl.lit("bench"),
             "partition": pl.lit(""), "event_time": pl.lit("2026-01-01T00:00:00Z"), "claim": pl.lit("")}  # fmt: skip
    joined = frame.join(places.with_columns(pl.col("c").cast(pl.Int64)), on="c", how="left", maintain_order="left")
    return joined.with_columns(**own, **fixed, stamp=pl.Series(stamp)).select(batch.SCHEMA.names)


def fill(folder: Path, entity_count: int, relationship_count: int, seed: int) -> None:
    """A lake with so many facts, a commit a chunk."""
    rng = np.random.default_rng(seed)
    at = Positions("bench", 1)
    with Lake.open(folder) as lake:
        for frame in _chunks(entity_count, relationship_count, rng):
            entries = []
            for (partition,), rows in frame.group_by((pl.col("bucket") % PARTITIONS).cast(pl.Int32)):
                table = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(batch.SCHEMA).combine_chunks()
                entries.append(LakeEntry(int(partition), at.of(int(partition)).number + 1, table.to_batches()[0]))
            at = lake.append(entries, at)


def _chunks(entity_count: int, relationship_count: int, rng: np.random.Generator) -> Iterator[pl.DataFrame]:
    for first in range(0, entity_count, CHUNK):
        yield entities(first, min(CHUNK, entity_count - first), rng)
    for first in range(0, relationship_count, CHUNK):
        yield relationships(first, min(CHUNK, relationship_count - first), entity_count // CASES, rng)


def ours(lake_folder: Path, folder: Path) -> dict[str, Any]:
    """One snapshot, in this process."""
    from workloads.snapshot.create import create_snapshot

    with Lake.open(lake_folder, create=False) as lake:
        began = time.perf_counter()
        manifest = create_snapshot(lake, folder, time.time())
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "entities": manifest.counts["vertices"], "relationships": manifest.counts["edges"],
            "content_hash": manifest.content_hash, **_spent(folder)}  # fmt: skip


def bare(lake_folder: Path, folder: Path) -> dict[str, Any]:
    """The same rows read, sorted by key and written by polars, in this process."""
    folder.mkdir()
    path = folder / "sorted.parquet"
    began = time.perf_counter()
    files = sorted(lake_folder.rglob("*.parquet"))
    rows = pl.read_parquet(files, columns=batch.SCHEMA.names, hive_partitioning=False).sort(KEY)
    rows.write_parquet(path, compression="zstd")
    with path.open("rb+") as written:
        os.fsync(written.fileno())
    return {"seconds": time.perf_counter() - began, "rows": len(rows), **_spent(folder)}


def _spent(folder: Path) -> dict[str, Any]:
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()), "peak_mb": peak_kb // 1024}


def one(side: str, lake: Path, scratch: Path) -> dict[str, Any]:
    """One run of a side, in a process of its own; what it wrote is gone afterwards."""
    folder = scratch / side
    command = [sys.executable, __file__, "--side", side, str(lake), str(folder)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    shutil.rmtree(folder)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def measure(count: int, per_entity: int, options: argparse.Namespace, repeats: int) -> dict[str, Any]:
    """Medians of both sides at one size."""
    with tempfile.TemporaryDirectory(prefix="igb-") as name:
        scratch, entity_count = Path(name), max(CASES, count // per_entity)
        fill(scratch / "lake", entity_count, count, options.seed)
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "polars": []}
        for turn in range(repeats):
            for side, found in runs.items():
                turns = f"round {turn + 1}/{repeats}"
                print(f"{count:,} relationships, {per_entity} to an entity, {turns}: {side}", file=sys.stderr)
                found.append(one(side, scratch / "lake", scratch))
    rows = {side: {**found[-1], "seconds": statistics.median(run["seconds"] for run in found)}
            for side, found in runs.items()}  # fmt: skip
    last = rows["ours"]
    if (last["entities"], last["relationships"]) != (entity_count, count):
        raise SystemExit(f"the snapshot has {last['entities']} entities and {last['relationships']} relationships")
    if len({run["content_hash"] for run in runs["ours"]}) != 1 or rows["polars"]["rows"] != entity_count + count:
        raise SystemExit("equal lakes gave different snapshots, or polars read other rows")
    return rows


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All shapes and sizes, and what one more relationship costs."""
    load = os.getloadavg()[0]
    measure(WARM, options.per_entity[0], options, 1)  # compiled code and the programs' files are at hand from here on
    shapes = {per_entity: _shape(per_entity, options) for per_entity in options.per_entity}
    ratios = {f"{name}, {per_entity} to an entity": ratio for per_entity, found in shapes.items()
              for name, ratio in found["ratios"].items()}  # fmt: skip
    return {
        "bench": "snapshot", "repeats": options.repeats, "seed": options.seed, "load_before": load,
        "machine": machine(), "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "shapes": shapes, "ratios": ratios,
    }  # fmt: skip


def _shape(per_entity: int, options: argparse.Namespace) -> dict[str, Any]:
    sizes = {count: measure(count, per_entity, options, options.repeats) for count in sorted(options.relationships)}
    ratios = {f"{count:,} relationships, ours / polars, seconds": rows["ours"]["seconds"] / rows["polars"]["seconds"]
              for count, rows in sizes.items()}  # fmt: skip
    small, large = sizes[min(sizes)], sizes[max(sizes)]
    longer_s = {side: large[side]["seconds"] - small[side]["seconds"] for side in large}
    more = {}
    if min(longer_s.values()) > 0:  # else the sizes are so near to each other that only noise is between them
        more = {side: round((max(sizes) - min(sizes)) / seconds) for side, seconds in longer_s.items()}
        ratios["more relationships a second, ours / polars"] = more["ours"] / more["polars"]
    return {"sizes": sizes, "more_per_s": more, "ratios": ratios}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relationships", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--per-entity", type=int, nargs="+", default=[2, 16], help="relationships to an entity")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "LAKE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, lake, folder = options.side
        print(json.dumps({"ours": ours, "polars": bare}[side](Path(lake), Path(folder))))
        return
    found = compare(options)
    for per_entity, shape in found["shapes"].items():
        print(f"{per_entity} relationships to an entity")
        for count, rows in shape["sizes"].items():
            print(f"{count:>12,} relationships: " + ", ".join(
                f"{side} {row['seconds']:.2f} s ({row['bytes'] >> 20:,} MiB written, peak {row['peak_mb']:,} MB)"
                for side, row in rows.items()))  # fmt: skip
        for side, rate in shape["more_per_s"].items():
            print(f"  {side}: {rate:,} more relationships a second")
    for name, ratio in found["ratios"].items():
        print(f"{name:68} {ratio:.2f}x")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
