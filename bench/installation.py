"""A whole system in a fresh state directory, for benchmarks that need one: up, used, down, gone.

`installation` yields a `Session`, as every command has one: its node says where the API is, its stack opens stores.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from serve_apps.cli.session import Session

BASELINES = ROOT.parent / "shared" / "baselines"
CLI = [sys.executable, "-m", "serve_apps.cli.main"]


@contextmanager
def installation(**settings: str) -> Iterator[Session]:
    """The whole system with its defaults, ready; afterwards it is down and its data removed.

    Args:
        settings: environment variables without the prefix, such as LAKE__ENABLED="false".
    """
    folder = Path(tempfile.mkdtemp(prefix="igb-"))
    named = {f"INTELGRAPH__{name}": value for name, value in settings.items()}
    environment = {**os.environ, "INTELGRAPH__STATE_DIR": str(folder), "PYTHONPATH": str(ROOT), **named}
    session = None
    try:
        _cli(environment, "up")
        from serve_apps.cli.session import Session

        session = Session(folder)
        with patch.dict(os.environ, named):  # passwords of stores are in no file of the installation
            yield session
    finally:
        if session is not None:
            session.close()
        subprocess.run([*CLI, "down", "--json"], env=environment, check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def ingest(session: Session, files: Mapping[str, Path], source: str) -> None:
    """Load a file for each tenant with the command line; returns once all of it is visible."""
    environment = {**session.environment, "PYTHONPATH": str(ROOT)}
    for tenant, path in files.items():
        _cli(environment, "ingest", str(path), "--tenant", tenant, "--source", source)


def _cli(environment: Mapping[str, str], *words: str) -> str:
    done = subprocess.run(
        [*CLI, *words, "--json"], env=dict(environment), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def token_of(session: Session, tenant: str, source: str) -> str:
    """A token that reads, and writes one source, which is registered."""
    from serve_apps.tokens import TokenAuthority

    session.control.sources.register(tenant, source, time.time(), transport="push")
    return TokenAuthority.open(session.state_dir).issue(tenant, ["read", "ingest"], [source], 3600, "bench")


def plain_redis(session: Session, shard: str) -> Any:
    """A plain redis client on a shard's own socket."""
    import redis

    stack = session.stack
    socket = stack.control.shards.get(shard).uri.removeprefix("unix://")
    return redis.Redis(unix_socket_path=socket, password=stack.password.get_secret_value(), protocol=2)


def bare_loop(baselines: Path) -> ModuleType | None:
    """The module `bare_ingest` of the reference loops; None where they are not there."""
    path = baselines / "bare_ingest.py"
    spec = importlib.util.spec_from_file_location("bare_ingest", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds, and how many there were."""
    ordered = sorted(seconds)
    found = {f"p{p}_ms": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1e3, 3) for p in (50, 95, 99)}
    return {**found, "count": len(ordered)}
