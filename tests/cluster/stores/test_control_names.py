"""Names of a tenant stay within a limit, whoever registers them."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.stores.control import ControlStore, open_control
from cluster.stores.control_names import refusal
from tests.cluster.stores.processes import in_processes

T = "tenant-1"


def register_names(worker: int, url: str, out: str) -> None:
    store = open_control(url)
    refused = store.names.register(T, "relationship_type", [f"T{worker}_{n}" for n in range(10)], limit=15)
    Path(out, f"refused-{worker}").write_text(json.dumps(sorted(refused)))
    store.close()


def test_a_tenants_names_stay_within_the_limit_whoever_registers(store: ControlStore, url: str, tmp_path: Path) -> None:
    in_processes(3, register_names, url, str(tmp_path))
    known = store.names.list(T, "relationship_type")
    refused = [name for n in range(3) for name in json.loads((tmp_path / f"refused-{n}").read_text())]
    assert (len(known), len(refused)) == (15, 15)
    assert (store.names.count(T, "relationship_type"), store.names.count(T, "property_name")) == (15, 0)
    assert not known & set(refused)
    assert store.names.register(T, "relationship_type", known, limit=15) == frozenset()
    assert store.names.register(T, "relationship_type", ["New"], limit=15) == {"New"}
    assert store.names.register("tenant-2", "relationship_type", ["New"], limit=15) == frozenset()
    assert store.names.register(T, "property_name", ["New"], limit=15) == frozenset()
    assert refusal("relationship_type", "New", 15).error_class == "constraint"
