"""Every service of `services/` does what it is there for, with its own client, and refuses strangers."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import neo4j
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from pyarrow.fs import S3FileSystem

from services.runner import FILE, Services
from services.spec import Running

pytestmark = [pytest.mark.production, pytest.mark.timeout(900)]  # the first run fetches and builds
Find = Callable[[str], Running]
TOPIC = "trial"


def neo4j_driver(server: Running, password: str | None = None) -> neo4j.Driver:
    trusted = neo4j.TrustCustomCAs(server.details["ca"])
    auth = (server.details["user"], password or server.details["password"])
    uri = server.address.replace("bolt+ssc", "bolt")
    return neo4j.GraphDatabase.driver(uri, auth=auth, encrypted=True, trusted_certificates=trusted)


@pytest.mark.parametrize("name", ["neo4j-0", "neo4j-1"])
def test_neo4j_speaks_bolt_over_tls_to_those_who_know_its_password(service: Find, name: str) -> None:
    server = service(name)
    with neo4j_driver(server) as driver:
        driver.execute_query("MERGE (:Trial {name: $name})", name=name)
        records = driver.execute_query("MATCH (t:Trial) RETURN t.name AS name").records
        assert [record["name"] for record in records] == [name]
    with neo4j_driver(server, "neo4j") as driver, pytest.raises(neo4j.exceptions.AuthError):
        driver.verify_connectivity()
    plain, refused = (
        server.address.replace("bolt+ssc", "bolt"),
        (neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError),
    )
    auth = (server.details["user"], server.details["password"])
    with neo4j.GraphDatabase.driver(plain, auth=auth, connection_timeout=5) as driver, pytest.raises(refused):
        driver.verify_connectivity()  # no TLS, no service


def test_both_neo4j_know_one_password_and_one_authority_as_shards_of_an_installation_do(service: Find) -> None:
    first, second = service("neo4j-0"), service("neo4j-1")
    trusted = neo4j.TrustCustomCAs(first.details["ca"])
    auth = (first.details["user"], first.details["password"])
    uri = second.address.replace("bolt+ssc", "bolt")
    with neo4j.GraphDatabase.driver(uri, auth=auth, encrypted=True, trusted_certificates=trusted) as driver:
        driver.verify_connectivity()


def secure(server: Running, password: str | None = None) -> dict[str, Any]:
    return {
        "bootstrap_servers": server.details["secure"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": server.details["user"],
        "sasl_plain_password": password or server.details["password"],
        "ssl_context": ssl.create_default_context(cafile=server.details["ca"]),
    }


async def produce(values: list[bytes], topic: str = TOPIC, **where: Any) -> None:
    producer = AIOKafkaProducer(acks="all", **where)
    try:
        await producer.start()
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def consume(topic: str, count: int, timeout_s: float = 60.0, **where: Any) -> list[Any]:
    found: list[Any] = []
    async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **where) as consumer:
        async with asyncio.timeout(timeout_s):
            while len(found) < count:
                found += [r for rows in (await consumer.getmany(timeout_ms=500)).values() for r in rows]
    return found


def test_kafka_takes_records_and_keeps_them_over_a_kill(service: Find, production: Services) -> None:
    server = service("kafka")
    asyncio.run(produce([b"plain"], bootstrap_servers=server.address))
    asyncio.run(produce([b"secure"], **secure(server)))
    with pytest.raises(KafkaError):
        asyncio.run(produce([b"stranger"], **secure(server, "wrong")))
    production.kill("kafka")
    assert production.find("kafka") is None
    again = service("kafka")
    assert (again.address, again.pid) == (server.address, again.pid) != (server.address, server.pid)
    assert [r.value for r in asyncio.run(consume(TOPIC, 2, bootstrap_servers=again.address))] == [b"plain", b"secure"]


def psql(server: Running, statements: str) -> str:
    command = ["psql", "-qAt", "-v", "ON_ERROR_STOP=1", server.address.replace("//", f"//{server.details['user']}@")]
    environment = {**os.environ, "PGPASSWORD": server.details["password"]}
    done = subprocess.run(command, input=statements, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_postgres_decodes_its_log_and_wants_a_password(service: Find) -> None:
    server = service("postgres")
    assert psql(server, "SHOW wal_level;").strip() == "logical"
    command = ["psql", "-w", server.address.replace("//", f"//{server.details['user']}@"), "-c", "SELECT 1"]
    environment = {**os.environ, "PGPASSWORD": "wrong"}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 2


def call(method: str, url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - an address of ours
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def test_debezium_carries_changes_of_postgres_into_kafka(service: Find) -> None:
    database, broker, worker = (service(name) for name in ("postgres", "kafka", "connect"))
    psql(
        database,
        "CREATE TABLE things (id text PRIMARY KEY, name text); ALTER TABLE things REPLICA IDENTITY FULL;"
        "INSERT INTO things VALUES ('a', 'first'); CREATE PUBLICATION trial FOR TABLE things;",
    )
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "database.hostname": database.details["host"],
        "database.port": database.details["port"],
        "database.user": database.details["user"],
        "database.password": database.details["password"],
        "database.dbname": database.details["database"],
        "topic.prefix": "cdc",
        "slot.name": "trial",
        "publication.name": "trial",
        "publication.autocreate.mode": "disabled",
        "table.include.list": "public.things",
        "poll.interval.ms": "50",
    }
    status, _ = call("POST", f"{worker.address}/connectors", {"name": "trial", "config": config})
    assert status == 201
    try:
        topic = "cdc.public.things"
        assert [r.value for r in asyncio.run(consume(topic, 1, bootstrap_servers=broker.address))]
        psql(database, "UPDATE things SET name = 'second'; DELETE FROM things;")
        rows = asyncio.run(consume(topic, 4, bootstrap_servers=broker.address))
    finally:
        call("DELETE", f"{worker.address}/connectors/trial")
    envelopes = [json.loads(row.value) if row.value else None for row in rows]
    assert [e and e["op"] for e in envelopes] == ["r", "u", "d", None]
    assert [e and (e["after"] or {}).get("name") for e in envelopes] == ["first", "second", None, None]


def test_the_registry_refuses_a_schema_that_readers_cannot_follow(service: Find) -> None:
    root = service("registry").address
    schema = {"type": "record", "name": "Thing", "fields": [{"name": "id", "type": "string"}]}
    other = {**schema, "fields": [{"name": "id", "type": "long"}]}
    assert call("PUT", f"{root}/config", {"compatibility": "BACKWARD"})[0] == 200
    assert call("POST", f"{root}/subjects/trial/versions", {"schema": json.dumps(schema)})[0] == 200
    assert call("POST", f"{root}/subjects/trial/versions", {"schema": json.dumps(other)})[0] == 409


def test_redis_wants_its_password(service: Find) -> None:
    server = service("redis")
    host, _, port = server.address.partition(":")
    with redis.Redis(host=host, port=int(port), password=server.details["password"]) as client:
        client.set("trial", "1")
        assert client.get("trial") == b"1"
    with redis.Redis(host=host, port=int(port)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.get("trial")


def test_s3_keeps_objects(service: Find) -> None:
    server = service("s3")
    host, authority = server.address.removeprefix("https://"), server.details["ca"]
    options = {"endpoint_override": host, "region": server.details["region"], "tls_ca_file_path": authority}
    store = S3FileSystem(
        access_key=server.details["user"], secret_key=server.details["password"], allow_bucket_creation=True, **options
    )
    store.create_dir("trial")
    table = pa.table({"id": [f"e{n}" for n in range(10_000)]})
    pq.write_table(table, "trial/part.parquet", filesystem=store)
    assert pq.read_table("trial/part.parquet", filesystem=store).equals(table)
    stranger = S3FileSystem(access_key=server.details["user"], secret_key="wrong", **options)
    with pytest.raises(OSError, match=r"(?i)signature|access|forbidden"):
        stranger.get_file_info("trial/part.parquet")


def test_secrets_are_for_their_owner(service: Find, production: Services) -> None:
    server = service("redis")
    folder: Path = production.folder / "redis"
    assert (folder.stat().st_mode & 0o077, (folder / FILE).stat().st_mode & 0o077) == (0, 0)
    assert server.details["password"] not in repr(server)
    command_line = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode()
    assert server.details["password"] not in command_line


def test_a_stopped_service_is_gone_and_comes_back_with_its_data(service: Find, production: Services) -> None:
    before = service("postgres")
    psql(before, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7);")
    began = time.monotonic()
    production.stop("postgres")
    assert time.monotonic() - began < 20
    assert not Path(f"/proc/{before.pid}").exists()
    assert production.find("postgres") is None
    after = service("postgres")
    assert (after.address, psql(after, "SELECT id FROM kept;").strip()) == (before.address, "7")
