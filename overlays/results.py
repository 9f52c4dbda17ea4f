"""What runs leave on disk: their Parquet files, the top K, and the plan of what goes back to the shards.

    <folder>/<tenant>/<overlay>/<run>/result.json     written before the folder gets its name
                                     /ranks-*.parquet (vertex, rank) or communities-*.parquet
                                     /plan.parquet    the records to write back, by case, best first; not of gated runs

A run's folder appears whole, by one rename: from then on the plan is decided, and whoever finds the run unfinished
finishes it from there. Folders are local, or on a file system that all nodes share.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl
import pyarrow.parquet as pq

from cluster import batch
from cluster.errors import Corrupt
from cluster.model import Record
from cluster.stores.files import (
    ASIDE_SUFFIX,
    Failpoint,
    HashingFile,
    disk_errors,
    fsync_folder,
    make_folder,
    no_failpoint,
    publish,
    sha256_of,
    write_whole,
)

RESULT = "result.json"
PLAN = "plan.parquet"
PLAN_GROUP_ROWS = 16 << 10
_SLUG = re.compile(r"[^A-Za-z0-9]+")


class Result(msgspec.Struct, frozen=True):
    """result.json.

    Args:
        as_of: RFC 3339, of the snapshot.
        top: the tenant's best, best first: {"rank", "type", "id", …properties}.
        summary: rows about the whole, as the overlay's `summarise` gives them.
        gate: the decision, as in the control store.
        plan_sha256: of plan.parquet; empty where nothing is to be written back.
        written: values in the plan.
        stages: seconds.
    """

    tenant: str
    overlay: str
    run: int
    snapshot: str
    as_of: str
    files: tuple[str, ...]
    top: tuple[dict[str, Any], ...]
    summary: tuple[dict[str, Any], ...]
    detail: dict[str, Any]
    gate: dict[str, Any]
    plan_sha256: str
    written: int
    stages: dict[str, float]


class RunFolder(NamedTuple):
    """Where one run's files go: `aside` until it is whole, then `path`."""

    path: Path
    aside: Path


class Results:
    """The results of a tenant's overlay."""

    def __init__(self, folder: Path, tenant: str, overlay: str, failpoint: Failpoint = no_failpoint) -> None:
        self._folder = folder / _tenant_folder(tenant) / overlay
        self._failpoint = failpoint

    def begin(self, run: int) -> RunFolder:
        """An empty folder for a run. Safe to call twice: what an earlier attempt left aside is removed."""
        path = self._folder / f"{run:012d}"
        aside = path.with_name(path.name + ASIDE_SUFFIX)
        shutil.rmtree(aside, ignore_errors=True)
        make_folder(aside)
        return RunFolder(path, aside)

    def commit(self, folder: RunFolder, make: Callable[[str], Result], plan: Sequence[Record] | None) -> Result:
        """Write plan and result, then give the folder its name: the point of no return.

        make: the result, given the plan's SHA-256 (empty without one). Failpoints: plan, result.write,
        result.rename, commit.

        Raises:
            Unavailable: the disk is full; the run is not there.
        """
        with disk_errors("overlay results", folder.aside):
            self._failpoint("plan")
            result = make("" if plan is None else _write_plan(folder.aside / PLAN, plan))
            write_whole(folder.aside / RESULT, msgspec.json.encode(result), self._failpoint, "result")
            self._failpoint("commit")
            publish(folder.aside, folder.path)
        return result

    def read(self, run: int) -> Result | None:
        """A run's result; None where it has none.

        Raises:
            Corrupt: the file is damaged.
        """
        path = self._folder / f"{run:012d}" / RESULT
        if not path.exists():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=Result)
        except msgspec.DecodeError as error:
            raise Corrupt(f"{path} is damaged ({error}); run the overlay again") from error

    def path_of(self, run: int) -> Path:
        """The folder of a run's files."""
        return self._folder / f"{run:012d}"

    def read_plan(self, result: Result) -> list[Record] | None:
        """The records that a run decided to write back; None where its gate held them back.

        Raises:
            Corrupt: the plan is missing or damaged.
        """
        if not result.plan_sha256:
            return None
        path = self.path_of(result.run) / PLAN
        if sha256_of(path) != result.plan_sha256:
            raise Corrupt(f"{path} is damaged; run the overlay again")
        return batch.from_arrow(pq.read_table(path))

    def read_case(self, result: Result, case: str, k: int) -> list[Record]:
        """What a published run wrote into one case, best first, at most k; reads little more than these rows.

        Raises:
            Corrupt: the plan is missing or damaged.
        """
        path = self.path_of(result.run) / PLAN
        try:
            found = pl.scan_parquet(path, glob=False).filter(pl.col("case") == case).head(k).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise Corrupt(f"{path} is missing or damaged; run the overlay again") from error
        return [Record(*row) for row in found.select(Record._fields).iter_rows()]

    def prune(self, keep: int, needed: int | None) -> list[int]:
        """Remove all runs but the newest `keep` and `needed`, and what earlier ones left aside. Safe to call twice.

        Returns:
            the runs whose results were removed.
        """
        there = sorted((int(path.name) for path in self._folder.glob("[0-9]*") if path.name.isdigit()), reverse=True)
        gone = [run for run in there[keep:] if run != needed]
        left = [
            path for path in self._folder.glob(f"*{ASIDE_SUFFIX}") if path.name[:12] < f"{max(there, default=0):012d}"
        ]
        for path in [*map(self.path_of, gone), *left]:
            shutil.rmtree(path, ignore_errors=True)
        if gone or left:
            fsync_folder(self._folder)
        return gone


def top_rows(keys: Sequence[tuple[str, str]], props: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Rows of a top K, best first."""
    rows = enumerate(zip(keys, props, strict=True), start=1)
    return tuple({"rank": rank, "type": key[0], "id": key[1], **own} for rank, (key, own) in rows)


def _write_plan(path: Path, records: Sequence[Record]) -> str:
    with HashingFile(path) as file:
        with pq.ParquetWriter(file, batch.SCHEMA, compression="zstd", compression_level=1) as writer:
            for first in range(0, len(records), PLAN_GROUP_ROWS):
                writer.write_batch(batch.to_arrow(records[first : first + PLAN_GROUP_ROWS]))
        return file.seal()


def _tenant_folder(tenant: str) -> str:
    """A name that shows the tenant and that no two tenants share, whatever they are called."""
    digest = hashlib.blake2b(tenant.encode(), digest_size=16).hexdigest()
    return f"{_SLUG.sub('-', tenant)[:32]}-{digest}"
