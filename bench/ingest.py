"""Ingest end to end against the bare loop of `bare_ingest.py`, in one run.

    python bench/ingest.py [--entities 200000] [--relationships 400000] [--repeats 3] [--baselines ../shared/baselines]

Ours: the whole system (`intelgraph up` in a fresh state directory, two embedded shards), the same events as JSON
lines, a file a tenant, from the start of the first load to the last record's visibility in its shard; log, versions,
provenance, counts and lake on, and again with the lake off; then the same files a second time, all duplicates. The
bare loop: events in memory, one thread, two shards. They take turns; medians are compared. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.graph import machine  # noqa: E402 - a script has to find the packages first

STAGES = ("decode", "validate", "normalise", "enrich", "names", "place", "route", "append")


def generate(baselines: Path, data: Path, entities: int, relationships: int) -> Path:
    """The reference events; made once for each size."""
    path = data / f"events-{entities}-{relationships}.jsonl"
    if not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        size = ["--entities", str(entities), "--relationships", str(relationships)]
        aside = path.with_suffix(".part")
        subprocess.run([sys.executable, str(baselines / "bare_ingest.py"), "gen", str(aside), *size], check=True)
        aside.replace(path)
    return path


def by_tenant(events: Path, folder: Path) -> dict[str, Path]:
    """The same events in a file a tenant, since a load is of one tenant. Not timed."""
    files: dict[str, Any] = {}
    try:
        with events.open("rb") as lines:
            for line in lines:
                tenant = json.loads(line)["tenant"]
                if tenant not in files:
                    files[tenant] = (folder / f"{tenant}.jsonl").open("wb")
                files[tenant].write(line)
    finally:
        for file in files.values():
            file.close()
    return {tenant: folder / f"{tenant}.jsonl" for tenant in sorted(files)}


def bare(baselines: Path, events: Path) -> dict[str, float]:
    """One run of the bare loop."""
    command = [sys.executable, str(baselines / "bare_ingest.py"), "run", str(events)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    again_s = found["again_entity_s"] + found["again_relationship_s"]
    first_s = found["first_entity_s"] + found["first_relationship_s"]
    return {"first_per_s": found["first_both_per_s"], "again_per_s": found["first_both_per_s"] * first_s / again_s}


def ours(files: dict[str, Path], total: int, lake: bool) -> dict[str, Any]:
    """One run of the whole system; it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="igb-"))
    environment = {
        **os.environ, "INTELGRAPH__STATE_DIR": str(folder), "INTELGRAPH__LAKE__ENABLED": str(lake).lower(),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    cli = [sys.executable, "-m", "serve_apps.cli.main"]
    try:
        subprocess.run([*cli, "up", "--json"], env=environment, check=True, stdout=subprocess.DEVNULL)
        command = [sys.executable, str(Path(__file__)), "--drive", str(folder), "--total", str(total)]
        paths = [f"{tenant}={path}" for tenant, path in files.items()]
        out = subprocess.run([*command, *paths], env=environment, check=True, capture_output=True, text=True).stdout
        found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return found
    finally:
        subprocess.run([*cli, "down", "--json"], env=environment, check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def drive(folder: Path, total: int, files: dict[str, Path]) -> dict[str, Any]:
    """In a process of its own, joined to the running system: loads the files twice and waits for the shards."""
    from serve_apps.cli.cluster import joined
    from serve_apps.cli.session import Session

    session = Session(folder)
    result: dict[str, Any] = {}
    with joined(session):
        from actors.ingest_actor import LoadRequest, load_file  # Ray reads its environment when it is imported

        for turn, name in enumerate(("first", "again")):
            began = time.perf_counter()
            stages: dict[str, float] = {}
            for tenant, path in files.items():
                done = load_file(LoadRequest(str(path), tenant, "bench"))
                for stage, seconds in done.stage_seconds.items():
                    stages[stage] = stages.get(stage, 0.0) + seconds
            logged_s = time.perf_counter() - began
            while _counted(session) < total * (turn + 1):
                time.sleep(0.01)
            result[f"{name}_per_s"] = total / (time.perf_counter() - began)
            result[f"{name}_logged_per_s"] = total / logged_s
            result[f"{name}_stages_per_s"] = {s: round(total / stages[s]) for s in STAGES if stages.get(s)}
        outcomes = [o for shard in session.shards.values() for o in shard.outcomes().values()]
        applied, duplicate = sum(o.applied for o in outcomes), sum(o.duplicate for o in outcomes)
        assert (applied, duplicate) == (total, total), (applied, duplicate, total)
    session.close()
    return result


def _counted(session: Any) -> int:
    return sum(c.records for shard in session.shards.values() for c in shard.cursors().values())


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """All runs, taking turns, and the ratios of their medians."""
    events = generate(args.baselines, args.data, args.entities, args.relationships)
    total = args.entities + args.relationships
    runs: dict[str, list[dict[str, Any]]] = {"bare": [], "lake": [], "no_lake": []}
    with tempfile.TemporaryDirectory(prefix="igb-") as scratch:
        files = by_tenant(events, Path(scratch))
        for _ in range(args.repeats):
            runs["bare"].append(bare(args.baselines, events))
            runs["lake"].append(ours(files, total, lake=True))
            runs["no_lake"].append(ours(files, total, lake=False))
            print({name: round(found[-1]["first_per_s"]) for name, found in runs.items()}, flush=True)
    middle = {
        name: {k: statistics.median(r[k] for r in found) for k in ("first_per_s", "again_per_s")}
        for name, found in runs.items()
    }
    ratios = {
        "everything on / bare": middle["lake"]["first_per_s"] / middle["bare"]["first_per_s"],
        "lake off / bare": middle["no_lake"]["first_per_s"] / middle["bare"]["first_per_s"],
        "again / first, everything on": middle["lake"]["again_per_s"] / middle["lake"]["first_per_s"],
    }
    stages = runs["lake"][-1]["first_stages_per_s"]
    return {"bench": "ingest", "events": total, "repeats": args.repeats, "seed": 0, "machine": machine(),
            "per_s": middle, "ratios": ratios, "stages_alone_per_s": stages}  # fmt: skip


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--relationships", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baselines", type=Path, default=ROOT.parent / "shared" / "baselines")
    parser.add_argument("--data", type=Path, default=ROOT / "bench" / "data")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--total", type=int, help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        files = {name: Path(path) for name, _, path in (f.partition("=") for f in args.files)}
        print(json.dumps(drive(args.drive, args.total, files)))
        return 0
    if not args.baselines.is_dir():
        print(f"skipped: the baselines are not at {args.baselines}; name their folder with --baselines")
        return 0
    found = compare(args)
    for name, ratio in found["ratios"].items():
        print(f"{name:32} {ratio:.2f}x")
    print("stages alone, records a second:", found["stages_alone_per_s"])
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
