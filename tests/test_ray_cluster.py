"""`ray-cluster.yaml`: fits Ray's own schema, and keeps what a cluster must not start without."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from cluster.config import load
from serve_apps.node_state import ray_environment

CLUSTER_FILE = Path(__file__).parents[1] / "ray-cluster.yaml"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CLUSTER_FILE.read_text())
    return found


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text())
    return found


def exported(cluster: dict[str, Any]) -> dict[str, str]:
    """The environment that the setup commands write for every Ray process."""
    line = next(command for command in cluster["setup_commands"] if "printf" in command)
    pairs = (word.partition("=") for word in shlex.split(line) if "=" in word)
    return {name: value for name, _, value in pairs}


def test_fits_rays_schema(cluster: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.validate(cluster, schema)


def test_the_schema_would_refuse_an_unknown_key(cluster: dict[str, Any], schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "head_node_typ": "local"}, schema)


def test_every_ray_process_asks_for_the_token(cluster: dict[str, Any]) -> None:
    environment = exported(cluster)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"].endswith("/.intelgraph/ray.token")
    assert "~/.intelgraph/ray.token" in cluster["file_mounts"]
    state_dir = environment["INTELGRAPH__STATE_DIR"]  # what is started with the token there, a node ends as its own
    assert not environment["RAY_AUTH_TOKEN_PATH"].startswith(f"{state_dir}/")
    starts = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    assert all(command.startswith(". ~/.intelgraph/environment;") for command in starts)


def test_rays_workers_take_one_thread_each(cluster: dict[str, Any]) -> None:
    """As the node sets it where it starts Ray itself: Ray shares the cores out, by actors and tasks."""
    assert exported(cluster)["POLARS_MAX_THREADS"] == "1"


@pytest.mark.parametrize(
    "name", ["RAY_worker_niceness", "RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "RAY_USAGE_STATS_ENABLED"]
)
def test_ray_is_set_as_the_node_sets_it(cluster: dict[str, Any], tmp_path: Path, name: str) -> None:
    assert exported(cluster)[name] == ray_environment(tmp_path)[name]


@pytest.mark.parametrize(("status", "stops"), [(0, True), (1, False), (3, True), (127, True)])
@pytest.mark.parametrize(
    ("commands", "stopped"),
    [("head_start_ray_commands", ["intelgraph down", "ray stop"]), ("worker_start_ray_commands", ["ray stop"])],
)
def test_what_runs_is_stopped_first_and_so_it_is_where_nobody_can_tell(
    cluster: dict[str, Any], tmp_path: Path, commands: str, stopped: list[str], status: int, stops: bool
) -> None:
    """`status`: what `pgrep` ends with: 1 where nothing runs."""
    for name, line in {"pgrep": f"exit {status}", "intelgraph": 'echo "intelgraph $@"', "ray": 'echo "ray $@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".intelgraph").mkdir()
    (tmp_path / ".intelgraph" / "environment").touch()
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = ["bash", "-c", cluster[commands][0]]
    done = subprocess.run(run, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    assert done.stdout.splitlines() == (stopped if stops else [])


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_what_runs_is_found_by_its_command_and_nobody_else_s(cluster: dict[str, Any], commands: str) -> None:
    words = shlex.split(cluster[commands][0])
    pattern = words[words.index("-f") + 1]
    found = [
        "/x/ray/core/src/ray/raylet/raylet --raylet_socket_name=/y",
        "/x/ray/core/src/ray/gcs/gcs_server --log_dir=/y",
        "/x/bin/python /x/site-packages/ray/dashboard/dashboard.py --host=127.0.0.1",
        "/x/bin/python -u /x/site-packages/ray/autoscaler/_private/monitor.py --logs-dir=/y",
        "/x/bin/python -m ray.util.client.server --address=10.0.0.1:6379",
        "ray::ShardWriterActor.status",
    ]
    found += ["/x/bin/python -m serve_apps.node", "/x/bin/redis-server unixsocket:/y"] * ("head" in commands)
    assert not re.search(pattern, "/bin/bash /home/ray/script"), "a user may be called ray"
    assert all(re.search(pattern, line) for line in found)
    assert not re.search(pattern, f"bash --login -c (. ~/.intelgraph/environment; pgrep -u 1 -f '{pattern}')")


def test_workers_of_the_local_provider_can_join(cluster: dict[str, Any]) -> None:
    assert exported(cluster)["RAY_enable_autoscaler_v2"] == "0"
    assert len(cluster["provider"]["worker_ips"]) == cluster["max_workers"]


def test_nothing_secret_or_large_is_copied_to_the_hosts(cluster: dict[str, Any]) -> None:
    assert {".services/**", ".cluster/**", ".intelgraph/**", ".venv/**"} <= set(cluster["rsync_exclude"])


def test_settings_come_from_the_operator_and_only_their_owner_reads_them(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/.intelgraph/settings"] == "~/.ray/intelgraph.env"
    modes, _, made, settings, proxies = cluster["setup_commands"]
    assert "chmod 600 ~/.intelgraph/ray.token ~/.intelgraph/settings" in modes
    assert made.startswith("umask 077;") and made.endswith("> ~/.intelgraph/environment")
    assert settings == "cat ~/.intelgraph/settings >> ~/.intelgraph/environment"
    assert "serve_apps.host_environment >> ~/.intelgraph/environment" in proxies


def test_the_dashboard_listens_on_loopback(cluster: dict[str, Any]) -> None:
    (start,) = [command for command in cluster["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in start


def test_the_head_runs_the_node_with_settings_that_there_are(cluster: dict[str, Any]) -> None:
    assert cluster["head_start_ray_commands"][-1].endswith("intelgraph up")
    ours = {name: value for name, value in exported(cluster).items() if name.startswith("INTELGRAPH__")}
    settings = load(environment=ours)
    assert settings.ray.address == "auto"
