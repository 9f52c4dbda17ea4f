"""The production parts for hosts: Kafka, two Neo4j, PostgreSQL and S3 on the bridge, and settings that name them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from pyarrow.fs import S3FileSystem

from cluster.embedded.passwords import write_private
from hosts.host import STATE_DIR
from services.launching import put
from services.runner import Services
from services.spec import Running

_TRUST = "trial"
_BUCKET = "intelgraph"


def start(services: Services, state_dir: Path) -> dict[str, str]:
    """Start them; returns the settings, as names and values of the environment, by which hosts use them.

    Args:
        services: whose `listen` is the bridge's address.
        state_dir: the one that hosts see as theirs; certificates and a password are put there.

    Raises:
        NotInstallable, RuntimeError: one of them cannot be had, or did not come up.
    """
    kafka, postgres, s3 = (services.start(name) for name in ("kafka", "postgres", "s3"))
    first = services.start("neo4j-0")
    put(services.folder / "neo4j-1" / "password", first.details["password"])  # IntelGraph has one for all shards
    shards = [first, services.start("neo4j-1")]
    _make_bucket(s3)
    trust = state_dir / _TRUST
    trust.mkdir(mode=0o700, exist_ok=True)
    write_private(trust / "neo4j.password", first.details["password"])
    for name, servers in {"kafka": [kafka], "postgres": [postgres], "s3": [s3], "neo4j": shards}.items():
        write_private(trust / f"{name}.crt", "".join(Path(server.details["ca"]).read_text() for server in servers))
    addresses = [shard.address.replace("bolt+ssc", "bolt+s") for shard in shards]
    values = {
        **_kafka("STREAMS__KAFKA", kafka), **_kafka("LOG__KAFKA", kafka), "LOG__KIND": "kafka",
        "LOG__KAFKA__REPLICATION_FACTOR": "1", "LOG__KAFKA__MIN_IN_SYNC": "1",
        "SHARDS__EMBEDDED": "0", "SHARDS__EXTERNAL": json.dumps(addresses),
        "SHARDS__NEO4J_PASSWORD_FILE": _seen("neo4j.password"), "SHARDS__NEO4J_CA_FILE": _seen("neo4j.crt"),
        **_control(postgres), **_s3("LAKE", s3), **_s3("SNAPSHOTS", s3),
    }  # fmt: skip
    return {f"INTELGRAPH__{name}": value for name, value in values.items()}


def exports(values: dict[str, str]) -> str:
    """Lines of a shell that export these."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _seen(name: str) -> str:
    return f"{STATE_DIR}/{_TRUST}/{name}"


def _kafka(section: str, server: Running) -> dict[str, str]:
    values = {
        "BOOTSTRAP": server.details["secure"], "SECURITY": "SASL_SSL", "MECHANISM": "PLAIN",
        "USER": server.details["user"], "PASSWORD": server.details["password"], "CA_FILE": _seen("kafka.crt"),
    }  # fmt: skip
    return {f"{section}__{name}": value for name, value in values.items()}


def _control(server: Running) -> dict[str, str]:
    values = {name: server.details[name.lower()] for name in ("HOST", "PORT", "DATABASE", "USER", "PASSWORD")}
    values |= {"KIND": "postgresql", "CA_FILE": _seen("postgres.crt")}
    return {f"CONTROL__{name}": value for name, value in values.items()}


def _s3(section: str, server: Running) -> dict[str, str]:
    values = {
        "URI": f"s3://{_BUCKET}/{section.lower()}", "ENDPOINT": server.address, "REGION": server.details["region"],
        "CA_FILE": _seen("s3.crt"), "KEY_ID": server.details["user"], "SECRET_KEY": server.details["password"],
    }  # fmt: skip
    return {f"{section}__{name}": value for name, value in values.items()}


def _make_bucket(server: Running) -> None:
    store = S3FileSystem(
        access_key=server.details["user"], secret_key=server.details["password"], allow_bucket_creation=True,
        endpoint_override=server.address.removeprefix("https://"), region=server.details["region"],
        tls_ca_file_path=server.details["ca"],
    )  # fmt: skip
    store.create_dir(_BUCKET)
