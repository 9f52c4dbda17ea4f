"""`python -m hosts`: see the package."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import hosts
from hosts.cluster import HEAD, NAMES, NODES, OPERATOR, HostCluster
from services.spec import NotInstallable

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cluster"
ARTIFACTS = ROOT / ".services" / "artifacts"


def main() -> int:
    """Run a verb; returns the exit code."""
    options = _options()
    cluster = HostCluster(options.folder, ROOT, options.artifacts)
    if options.verb == "up":
        return _up(cluster, options.embedded)
    if options.verb == "down":
        cluster.down()
        left = cluster.left()
        print(f"left: {', '.join(left)}" if left else "everything is down and away")
        return 1 if left else 0
    if options.verb == "status":
        for name in NAMES:
            print(f"{name:10} {cluster.network.address(name) if cluster.pid(name) else 'down'}")
        return 0
    line = " ".join(options.command) or "exec bash"
    return subprocess.run(cluster.command(options.host, f"cd ~; {line}"), check=False).returncode


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "hosts", description=hosts.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("up", "down", "status", "run"))
    parser.add_argument("host", nargs="?", choices=NAMES, default=HEAD, help="run: where")
    parser.add_argument("command", nargs="*", help="run: what, in the host's shell; a shell without it")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they live; .cluster by default")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="where fetched files lie")
    parser.add_argument("--embedded", action="store_true", help="up: with the embedded parts instead of production's")
    return parser.parse_args()


def _up(cluster: HostCluster, embedded: bool) -> int:
    began = time.monotonic()
    try:
        cluster.up(embedded=embedded)
    except NotInstallable as error:
        print(f"no cluster here: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"{error}\n\nwhat runs goes on, to be looked at: `make cluster-down` ends it", file=sys.stderr)
        return 1
    print(f"the cluster is up ({time.monotonic() - began:.0f} s)\n")
    for name in NODES:
        print(f"{name:10} API {cluster.api(name)}   logs {cluster.folder / name / 'tmp' / 'ray'}")
    run = f"{sys.executable} -m hosts run"
    print(f"node.log   {cluster.state_dir / 'node.log'}\n\nTry:")
    for host, command in {
        HEAD: "'. ~/.intelgraph/environment; intelgraph status'",
        OPERATOR: "'cd intelgraph; ray exec ray-cluster.yaml \"ray status\"'",
    }.items():
        print(f"  {run} {host} {command}")
    print("  make cluster-down")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
