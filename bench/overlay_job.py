"""The whole PageRank job on a running Ray cluster against networkit on one edge list, in one run.

    python bench/overlay_job.py [--scale 20] [--baselines ../shared/baselines] [--repeats 3]

Ours: the CSC of a snapshot (Parquet, as the snapshot writes it) → Ray Data's plan → partition actors → ranks on disk
and the top 100; 10 iterations, damping 0.85, float64, dangling mass spread. networkit (`graph_peers.py`, a process of
its own): reads the same graph as an edge list, builds, solves; it writes nothing. The two take turns; medians are
compared. What the job costs whatever the graph's size (actors, compiled code, footers) is printed apart, for the
first job of a cluster and for later ones. Prints a table and, as the last line, everything as JSON.
"""

# ruff: noqa: E402 - Ray reads its environment when it is imported, and a script has to find the packages first

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["RAY_AUTH_MODE"] = "disabled"

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from bench.graph import EDGE_FACTOR, ITERATIONS, generate, machine
from cluster.config import OverlaySettings
from workloads.kernels.csr import build_csc
from workloads.kernels.topk import top_k
from workloads.kernels.undirected import row_numbers
from workloads.overlay.input import ColumnFiles, GraphFiles
from workloads.overlay.pagerank_job import PageRankRun, pagerank_job
from workloads.overlay.stages import Stages, fixed_s
from workloads.snapshot.parts import Output, numbers, write_parts

SETTINGS = OverlaySettings(tolerance=0.0, iterations_max=ITERATIONS)
STAGES = ("pool", "plan", "load", "solve", "write", "top")
PACKAGES = ("ray", "numpy", "numba", "networkit", "pyarrow")


def snapshot_files(edge_list: Path, folder: Path, vertices: int) -> GraphFiles:
    """The graph as a snapshot of one tenant holds it; not timed: snapshots are taken for many jobs."""
    table = pq.read_table(edge_list)
    csc = build_csc(table["src"].to_numpy(), table["dst"].to_numpy(), vertices)
    frames = {
        "joined_csc_offsets": numbers("offset", csc.offsets),
        "joined_csc": pl.DataFrame({"dst": row_numbers(csc), "src": csc.indices.astype(np.int64)}),
    }
    written = write_parts(folder, [Output(name, "bench", frame, [(0, len(frame))]) for name, frame in frames.items()])
    offsets, neighbours = (
        tuple(str(folder / one.part.path) for one in written if one.dataset == name) for name in frames
    )
    return GraphFiles(vertices, csc.edges, ColumnFiles("offset", offsets), ColumnFiles("src", neighbours))


def job(files: GraphFiles, folder: Path) -> dict[str, float]:
    """One job; seconds of its stages and in all."""
    began = time.perf_counter()
    run: PageRankRun = pagerank_job(files, folder, SETTINGS)
    stages = Stages()
    with stages.measure("top"):
        best = top_k(run.ranks, 100)
        pl.DataFrame({"vertex": best, "rank": run.ranks[best]}).write_parquet(folder / "top.parquet")
    total_s = time.perf_counter() - began
    spent = {**run.stages, **stages.seconds}
    found = {"sum": float(run.ranks.sum()), "max": float(run.ranks.max()), "actors": run.parts}
    fixed = fixed_s(spent)
    return {**{name: spent[name] for name in STAGES}, "total_s": total_s, "fixed_s": fixed, **found}


def peer(script: Path, edge_list: Path) -> dict[str, float]:
    """networkit on the edge list, in a process of its own."""
    command = [sys.executable, str(script), "pagerank", str(edge_list), "networkit"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    found["total_s"] = found["read_s"] + found["build_s"] + found["solve_s"]
    return found


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn, and what to print of them."""
    import ray

    script = options.baselines.resolve() / "graph_peers.py"
    if not script.is_file():
        raise SystemExit(f"no {script}: name the folder of the reference loops with --baselines")
    options.data.mkdir(parents=True, exist_ok=True)
    edge_list = options.data / f"rmat-{options.scale}-{options.seed}.parquet"
    if not edge_list.exists():
        generate(edge_list, options.scale, options.seed)
    with tempfile.TemporaryDirectory(dir=options.data) as scratch:
        files = snapshot_files(edge_list, Path(scratch) / "snapshot", 1 << options.scale)
        began = time.perf_counter()
        ray.init(include_dashboard=False, log_to_driver=False, namespace="intelgraph")
        started_s = time.perf_counter() - began
        first = job(files, Path(scratch) / "first")
        ours, theirs = [], []
        for number in range(options.repeats):
            print(f"round {number + 1}/{options.repeats}", file=sys.stderr)
            theirs.append(peer(script, edge_list))
            ours.append(job(files, Path(scratch) / f"job-{number}"))
        ray.shutdown()
    return {"edges": files.edges, "cluster_start_s": started_s, "first": first, "ours": ours, "networkit": theirs}


def median(runs: list[dict[str, float]], name: str) -> float:
    """The median of one figure."""
    return statistics.median(run[name] for run in runs)


def print_table(report: dict[str, Any], scale: int) -> None:
    """What a person wants to see."""
    first, ours, theirs = report["first"], report["ours"], report["networkit"]
    print(f"\nPageRank job, R-MAT {scale}, {report['edges']:,} edges, {ITERATIONS} iterations, medians of {len(ours)}")
    print(f"{'seconds':<22}" + "".join(f"{name:>9}" for name in (*STAGES, "fixed", "in all")))
    print(f"{'first job':<22}" + "".join(f"{first[name]:>9.3f}" for name in (*STAGES, "fixed_s", "total_s")))
    row = [median(ours, name) for name in (*STAGES, "fixed_s", "total_s")]
    print(f"{'later jobs':<22}" + "".join(f"{value:>9.3f}" for value in row))
    parts = " ".join(f"{name} {median(theirs, name):.3f}" for name in ("read_s", "build_s", "solve_s"))
    print(f"networkit: {parts} in all {median(theirs, 'total_s'):.3f}")
    print(
        f"start of the cluster: {report['cluster_start_s']:.1f} s; its first job's fixed cost: {first['fixed_s']:.2f} s"
    )
    for name, value in report["ratios"].items():
        print(f"{name}: {value:.2f}x of networkit's time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=20, help="2**scale vertices, 16 edges for each")
    parser.add_argument("--baselines", type=Path, default=ROOT.parent / "shared" / "baselines")
    parser.add_argument("--data", type=Path, default=ROOT / "bench" / "data", help="where graphs are kept")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report: dict[str, Any] = {"bench": "overlay_job", "scale": options.scale, "edge_factor": EDGE_FACTOR}
    report |= {"seed": options.seed, "machine": machine()}
    report |= {"versions": {name: importlib.metadata.version(name) for name in PACKAGES}, **compare(options)}
    theirs_s = median(report["networkit"], "total_s")
    report["ratios"] = {
        "first job without its fixed cost": (report["first"]["total_s"] - report["first"]["fixed_s"]) / theirs_s,
        "first job, fixed cost and all": report["first"]["total_s"] / theirs_s,
        "later jobs, all": median(report["ours"], "total_s") / theirs_s,
    }
    print_table(report, options.scale)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
