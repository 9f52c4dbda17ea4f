"""The PageRank job against GraphX (what GraphFrames runs), where Spark and Java are there; says so where not.

    make graphx                                        installs Spark beside .venv's packages, in .venv/graphx
    python bench/graphx.py [--scale 18] [--baselines ../shared/baselines]

GraphX: `graphx.scala` in spark-shell, local[2]; its load and its 10 iterations count, its start does not. Ours: the
job of `overlay_job.py` from the snapshot's files to ranks on disk, the second of a cluster. Last line: JSON.
"""

# ruff: noqa: E402 - Ray reads its environment when it is imported, and a script has to find the packages first

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["RAY_AUTH_MODE"] = "disabled"

from bench.graph import EDGE_FACTOR, generate, machine
from bench.overlay_job import job, snapshot_files

_LOAD, _SOLVE = re.compile(r"load s ([0-9.Ee+-]+)"), re.compile(r"GRAPHX pagerank10 s ([0-9.Ee+-]+)")


def spark_shell() -> Path | None:
    """The program, of `make graphx` or of a Spark on the path; None where there is none."""
    ours = sorted((ROOT / ".venv" / "graphx").glob("lib/python3*/site-packages/pyspark/bin/spark-shell"))
    found = shutil.which("spark-shell")
    return ours[-1] if ours else Path(found).resolve() if found else None


def graphx(shell: Path, script: Path, edge_list: Path, timeout_s: float) -> dict[str, float]:
    """Seconds of GraphX's load and solve."""
    alone = ["--conf", "spark.ui.enabled=false", "--conf", "spark.driver.host=127.0.0.1"]
    command = [str(shell), "--master", "local[2]", "--driver-memory", "8g", *alone, "-I", str(script)]
    home = {"SPARK_HOME": str(shell.parent.parent), "SPARK_LOCAL_IP": "127.0.0.1"}
    environment = {**os.environ, **home, "PQ": str(edge_list)}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
    )
    load, solve = _LOAD.search(done.stdout), _SOLVE.search(done.stdout)
    if load is None or solve is None:
        raise SystemExit(f"GraphX printed no result:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return {"load_s": float(load[1]), "solve_s": float(solve[1])}


def missing(baselines: Path) -> str:
    """What is not there for the comparison; empty where all is."""
    if spark_shell() is None:
        return "no spark-shell: `make graphx` installs it"
    if shutil.which("java") is None:
        return "no Java: install a runtime of version 17 or newer"
    return "" if (baselines / "graphx.scala").is_file() else f"no {baselines / 'graphx.scala'}"


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Ours and GraphX on one graph."""
    import ray

    options.data.mkdir(parents=True, exist_ok=True)
    edge_list = options.data / f"rmat-{options.scale}-{options.seed}.parquet"
    if not edge_list.exists():
        generate(edge_list, options.scale, options.seed)
    shell = spark_shell()
    assert shell is not None
    theirs = graphx(shell, options.baselines.resolve() / "graphx.scala", edge_list, options.timeout_s)
    with tempfile.TemporaryDirectory(dir=options.data) as scratch:
        files = snapshot_files(edge_list, Path(scratch) / "snapshot", 1 << options.scale)
        ray.init(include_dashboard=False, log_to_driver=False, namespace="intelgraph")
        first, ours = (job(files, Path(scratch) / name) for name in ("first", "second"))
        ray.shutdown()
    theirs["total_s"] = theirs["load_s"] + theirs["solve_s"]
    ratios = {"times_faster": theirs["total_s"] / ours["total_s"]}
    ratios["times_faster_first_job"] = theirs["total_s"] / first["total_s"]
    return {"edges": EDGE_FACTOR << options.scale, "graphx": theirs, "first": first, "ours": ours, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=18, help="2**scale vertices, 16 edges for each")
    parser.add_argument("--baselines", type=Path, default=ROOT.parent / "shared" / "baselines")
    parser.add_argument("--data", type=Path, default=ROOT / "bench" / "data", help="where graphs are kept")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout-s", type=float, default=600.0)
    options = parser.parse_args()
    lacking = missing(options.baselines.resolve())
    if lacking:
        print(f"GraphX: skipped, {lacking}")
        print(json.dumps({"bench": "graphx", "skipped": lacking}))
        return
    report = {"bench": "graphx", "scale": options.scale, "seed": options.seed, "machine": machine(), **compare(options)}
    theirs, ours = report["graphx"], report["ours"]
    print(
        f"GraphX: load {theirs['load_s']:.1f} s, solve {theirs['solve_s']:.1f} s; ours in all {ours['total_s']:.2f} s"
    )
    print(
        f"ours is {report['times_faster']:.1f}x faster, the cluster's first job {report['times_faster_first_job']:.1f}x"
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
