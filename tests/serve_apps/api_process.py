"""A process that serves the API on Ray from the first line of its standard input until that ends."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from cluster.config import Settings
from serve_apps import haproxy


def make(settings: Settings, shard: dict[str, Any]) -> Any:
    """Services over one shard that owns everything."""
    from cluster.query.cursor import Cursors
    from cluster.query.fanout import FanOut, Topology
    from cluster.routing import ShardState
    from cluster.shard_map import initial
    from cluster.stores.falkor import FalkorClient
    from serve_apps.api.services import Services
    from serve_apps.secret import cursor_secret
    from serve_apps.tokens import TokenAuthority
    from tests.serve_apps.api.stand import Gateway, Parts

    class Directory:
        def topology(self) -> Topology:
            return Topology(initial(["only"], 8), {"only": ShardState("only", None, "active", shard["epoch"])})

        def reload(self) -> None: ...

    def connect(_: str) -> FalkorClient:
        return FalkorClient(shard["uri"], SecretStr(shard["password"]), timeout_s=5.0, graph=shard["graph"])

    parts = Parts()
    return Services(
        settings, TokenAuthority.open(settings.state_dir), Cursors(cursor_secret(settings.state_dir)),
        FanOut(Directory(), connect, settings.query), parts, parts, push=Gateway(),
    )  # fmt: skip


def main() -> None:
    """Start, say where, wait, stop."""
    asked = json.loads(sys.stdin.readline())
    settings = Settings(state_dir=Path(asked["state_dir"]))
    os.environ.update({"RAY_AUTH_MODE": "disabled", **haproxy.environment(settings)})
    import ray

    from cluster.embedded.ports import free_port
    from serve_apps.serve import start_api, stop_api

    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20,
        _node_ip_address="127.0.0.1", _temp_dir=asked["ray_dir"],
    )  # fmt: skip
    url = start_api(settings, free_port(18_080).number, partial(make, shard=asked["shard"]))
    ports = [int(os.environ[f"RAY_SERVE_HAPROXY_{name}_PORT"]) for name in ("STATS", "METRICS")]
    sys.stdout.write(json.dumps({"url": url, "ports": ports}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    stop_api()
    ray.shutdown()
    haproxy.forget_files(settings.state_dir)


if __name__ == "__main__":
    main()
