"""Runs the benchmarks one after the other, each in a process of its own, and ends with a table of their ratios.

    python -m bench [NAME…] [--quick] [--baselines ../shared/baselines]

Names: graph, overlay_job, graphx, ingest, streams, stream_latency, latency, query, snapshot; all of them without one.
`--quick` takes small sizes: whether everything runs, no figures to quote. Each one's last line is kept in
bench/results/NAME.json. Exit code 1 where one failed. Benchmarks that compare with the reference loops are skipped
where those are not there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BASELINES = ROOT.parent / "shared" / "baselines"
RESULTS = ROOT / "bench" / "results"

QUICK = {
    "graph": "--scale 14 --louvain-scale 12 --repeats 1",
    "overlay_job": "--scale 14 --repeats 1",
    "graphx": "--scale 14",
    "ingest": "--entities 5000 --relationships 10000 --repeats 1",
    "streams": "--entities 5000 --relationships 5000 --repeats 1 --warm 0 --partitions 1",
    "stream_latency": "--flood 20000 --turns 1 --seconds 2 --warm-s 1 --asked-s 3 --burst-s 4",
    "latency": "--rate 1000 --seconds 3 --warm-s 1",
    "query": "--entities 5000 --relationships 10000 --count 20",
    "snapshot": "--relationships 20000 50000 --repeats 1",
}
"""Arguments of small runs, by name; the names are all that there are, in the order in which they run."""
ALONE = frozenset({"snapshot", "stream_latency"})
"""Those that need no reference loops."""

Report = dict[str, Any]


def run(name: str, words: list[str]) -> Report:
    """Run one and keep its last line; a report with `failed` where it went wrong."""
    command = [sys.executable, str(ROOT / "bench" / f"{name}.py"), *words]
    print(f"\n--- {name} {' '.join(words)}", flush=True)
    began, last = time.perf_counter(), ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        for line in child.stdout or ():
            last = line if line.strip() else last
            if not line.startswith("{"):
                print(line, end="", flush=True)
    print(f"({time.perf_counter() - began:.0f} s)", flush=True)
    if child.returncode:
        return {"bench": name, "failed": f"exit code {child.returncode}"}
    try:
        report: Report = json.loads(last)
    except ValueError:
        return {"bench": name, "failed": "its last line is no JSON"}
    (RESULTS / f"{name}.json").write_text(json.dumps(report) + "\n")
    return report


def ratios(report: Report) -> Iterator[tuple[str, float]]:
    """(what is compared, ratio) of a report; it names its alternatives in `ratios`, or as `graph` and `graphx` do."""
    yield from report.get("ratios", {}).items()
    for verb in ("pagerank", "louvain"):
        engines = report.get(verb, {}).get("engines", {})
        for engine, row in engines.items():
            if engine != "ours":
                yield f"{verb}, {engine} / ours, solve", row["ours_faster_solve"]
                yield f"{verb}, {engine} / ours, read, build and solve", row["ours_faster_total"]
                if "modularity" in row:
                    yield f"{verb}, modularity, ours / {engine}", engines["ours"]["modularity"] / row["modularity"]
    for key, what in (("times_faster_first_job", "first job of a cluster"), ("times_faster", "later jobs")):
        if key in report:
            yield f"GraphX / ours, {what}", report[key]


def print_summary(reports: list[Report]) -> None:
    """A line for every ratio, and for everything that gave none."""
    print(f"\n{'benchmark':<12} {'ratio':>8}  of")
    for report in reports:
        name = report["bench"]
        for what, value in ratios(report):
            print(f"{name:<12} {value:>7.2f}x  {what}")
        for word in ("skipped", "failed"):
            if word in report:
                print(f"{name:<12} {word:>8}  {report[word]}")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(QUICK))
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--baselines", type=Path, default=BASELINES, help="folder of the reference loops")
    options = parser.parse_args()
    if unknown := set(options.names) - QUICK.keys():
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}; there are {', '.join(QUICK)}")
    RESULTS.mkdir(exist_ok=True)
    baselines = options.baselines.resolve()
    print(f"load of this machine: {os.getloadavg()[0]:.1f} (figures are worth something below 1.5)")
    reports: list[Report] = []
    for name in options.names or QUICK:
        words = QUICK[name].split() if options.quick else []
        if name in ALONE:
            reports.append(run(name, words))
        elif baselines.is_dir():
            reports.append(run(name, [*words, "--baselines", str(baselines)]))
        else:
            reports.append({"bench": name, "skipped": f"no reference loops in {baselines}: name them with --baselines"})
            print(f"\n--- {name}: skipped, {reports[-1]['skipped']}")
    print_summary(reports)
    return int(any("failed" in report for report in reports))


if __name__ == "__main__":
    sys.exit(main())
