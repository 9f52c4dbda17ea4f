"""`ray-cluster.yaml` for hosts of one's own: provider and login exchanged, all else as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def for_hosts(original: Path, head: str, workers: Sequence[str]) -> str:
    """The file for these addresses.

    Raises:
        ValueError: it is for another number of workers.
    """
    found: dict[str, Any] = yaml.safe_load(original.read_text())
    if found["max_workers"] != len(workers):
        raise ValueError(f"{original.name} is for {found['max_workers']} workers, not {len(workers)}")
    found["provider"] = {"type": "local", "head_ip": head, "worker_ips": list(workers)}
    found["auth"] = {"ssh_user": "root", "ssh_private_key": found["auth"]["ssh_private_key"]}
    return yaml.safe_dump(found, sort_keys=False)
