"""Run in a host: prints which actor of IntelGraph runs on which host, and which hosts are in the cluster, as JSON."""

from __future__ import annotations

import json
import logging

import ray
from ray._private import state


def main() -> None:
    """Asks Ray's head, whose address the environment gives."""
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    nodes = state.state.node_table()  # type: ignore[no-untyped-call]
    names = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes if node["Alive"]}
    actors = {
        actor["Name"] or actor["ActorClassName"]: names.get(actor["Address"]["NodeID"], "")
        for actor in state.actors().values()
        if actor["State"] == "ALIVE"
    }
    print(json.dumps({"hosts": sorted(names.values()), "actors": actors}))


if __name__ == "__main__":
    main()
