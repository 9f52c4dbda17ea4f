"""PageRank and Louvain against what a user would pick instead, in one run.

    python bench/graph.py [--scale 20] [--baselines ../shared/baselines] [--repeats 5]

Generates an R-MAT graph (0.57, 0.19, 0.19, 0.05, edge factor 16; kept as Parquet for the next run), then runs ours and
the peers of `graph_peers.py`, each in a process of its own, in turn, `repeats` times; compares medians. PageRank: 10
iterations, damping 0.85, float64, dangling mass spread. networkit's default spreads no dangling mass. Louvain runs on
a smaller graph (--louvain-scale). Prints a table and, as the last line, everything as JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
EDGE_FACTOR = 16
ITERATIONS = 10
PHASES = ("read_s", "build_s", "solve_s")
PACKAGES = ("numpy", "numba", "networkit", "scipy", "pyarrow")


def generate(path: Path, scale: int, seed: int) -> None:
    """Write the graph with columns src, dst int64; the same numbers for the same scale and seed."""
    rng = np.random.default_rng(seed)
    vertices, edges = 1 << scale, EDGE_FACTOR << scale
    src, dst = np.zeros(edges, np.int64), np.zeros(edges, np.int64)
    for bit in range(scale):
        draw = rng.random(edges)
        src |= (draw > 0.76).astype(np.int64) << bit
        dst |= (((draw > 0.57) & (draw <= 0.76)) | (draw > 0.95)).astype(np.int64) << bit
    names = rng.permutation(vertices)
    aside = path.with_suffix(".part")
    pq.write_table(pa.table({"src": names[src], "dst": names[dst]}), aside, compression="zstd")
    aside.rename(path)


def solve(verb: str, path: Path) -> dict[str, Any]:
    """Our side of one comparison, in this process: read, build, solve in seconds."""
    sys.path.insert(0, str(ROOT))
    began = time.perf_counter()
    table = pq.read_table(path)
    src, dst = table["src"].to_numpy(), table["dst"].to_numpy()
    vertices = int(max(src.max(), dst.max())) + 1
    read_s = time.perf_counter() - began
    found = {"pagerank": _pagerank, "louvain": _louvain}[verb](src, dst, vertices)
    return {"engine": "ours", "edges": len(src), "read_s": read_s, **found}


def _pagerank(src: Any, dst: Any, vertices: int) -> dict[str, Any]:
    from workloads.kernels.csr import build_csc, out_weights
    from workloads.kernels.pagerank import pagerank

    one = np.zeros(1, np.int64)
    pagerank(build_csc(one, one, 1), max_iter=1)  # compiles, or loads what was compiled before
    began = time.perf_counter()
    csc = build_csc(src, dst, vertices)
    leaving = out_weights(csc)
    build_s = time.perf_counter() - began
    result = pagerank(csc, leaving, tol=0.0, max_iter=ITERATIONS)
    solve_s = result.prepare_s + result.solve_s
    return {"build_s": build_s, "solve_s": solve_s, "sum": float(result.ranks.sum()), "max": float(result.ranks.max())}


def _louvain(src: Any, dst: Any, vertices: int) -> dict[str, Any]:
    from workloads.kernels.louvain import louvain

    one = np.zeros(1, np.int64)
    louvain(one, one, 1)
    result = louvain(src, dst, vertices)
    return {"build_s": result.prepare_s, "solve_s": result.solve_s, "modularity": result.modularity}


def measure(commands: dict[str, list[str]], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Run each engine's command in turn, `repeats` rounds; the last line that each prints is its JSON."""
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in commands}
    for at in range(repeats):
        for engine, command in commands.items():
            print(f"round {at + 1}/{repeats}: {engine}", file=sys.stderr)
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs[engine].append(json.loads(done.stdout.splitlines()[-1]))
    return runs


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Medians of each phase and of the total; solver ratio = the peer's median solve over ours."""
    rows: dict[str, dict[str, float]] = {}
    for engine, results in runs.items():
        rows[engine] = {phase: statistics.median(r[phase] for r in results) for phase in PHASES}
        rows[engine]["total_s"] = statistics.median(sum(r[phase] for phase in PHASES) for r in results)
        rows[engine]["least_solve_s"] = min(r["solve_s"] for r in results)
        rows[engine] |= {name: results[-1][name] for name in ("max", "modularity") if name in results[-1]}
    for row in rows.values():
        row["ours_faster_solve"] = row["solve_s"] / rows["ours"]["solve_s"]
        row["ours_faster_total"] = row["total_s"] / rows["ours"]["total_s"]
    return rows


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    names = list(rows["ours"])
    print(f"\n{title}\n{'engine':<12}" + "".join(f"{name:>19}" for name in names))
    for engine, row in rows.items():
        print(f"{engine:<12}" + "".join(f"{row[name]:>19.4g}" for name in names))


def machine() -> dict[str, Any]:
    sys.path.insert(0, str(ROOT))
    from workloads.kernels.threads import usable_cores

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cores": usable_cores(), "python": platform.python_version(), "platform": platform.platform()}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    peers = options.baselines.resolve() / "graph_peers.py"
    if not peers.is_file():
        raise SystemExit(f"no {peers}: name the folder of the reference loops with --baselines")
    options.data.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"bench": "graph", "seed": options.seed, "repeats": options.repeats}
    report |= {"machine": machine(), "versions": {name: importlib.metadata.version(name) for name in PACKAGES}}
    plan = {"pagerank": (options.scale, ("numba", "networkit")), "louvain": (options.louvain_scale, ("plm",))}
    for verb, (scale, engines) in plan.items():
        if scale == 0:
            continue
        path = options.data / f"rmat-{scale}-{options.seed}.parquet"
        if not path.exists():
            generate(path, scale, options.seed)
        commands = {"ours": [sys.executable, __file__, "--solve", verb, str(path)]}
        commands |= {engine: [sys.executable, str(peers), verb, str(path), engine] for engine in engines}
        rows = summarise(measure(commands, options.repeats))
        print_table(f"{verb}, R-MAT {scale}, {EDGE_FACTOR << scale:,} edges, medians of {options.repeats}", rows)
        report[verb] = {"scale": scale, "edges": EDGE_FACTOR << scale, "engines": rows}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=20, help="PageRank on 2**scale vertices; 0 leaves it out")
    parser.add_argument("--louvain-scale", type=int, default=18, help="Louvain on 2**scale vertices; 0 leaves it out")
    parser.add_argument("--baselines", type=Path, default=ROOT.parent / "shared" / "baselines")
    parser.add_argument("--data", type=Path, default=ROOT / "bench" / "data", help="where graphs are kept")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--solve", nargs=2, metavar=("VERB", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.solve:
        print(json.dumps(solve(options.solve[0], Path(options.solve[1]))))
        return
    report = compare(options)
    print(f"\n{json.dumps(report['machine'])} seed {options.seed} {json.dumps(report['versions'])}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
