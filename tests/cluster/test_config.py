"""Every number in the settings has bounds, and who breaks one is told which and what it wants."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from cluster.config import Settings, load
from cluster.config_fields import WITH_SECRETS
from cluster.errors import Rejected

ZERO_IS_FINE = {
    "ingest.push_wait_s",  # told to retry at once
    "overlays.tolerance",  # all iterations are done
    "streams.scaling.up_cpu",  # whatever they take
    "streams.scaling.down_cpu",  # only where nothing is done at all
    "streams.scaling.cores_free",  # more come however busy the hosts are
    "streams.cores_free",  # nobody is slowed
    "streams.ahead_s",  # nothing but a full log keeps readers from reading on
    "streams.interval_ms",  # read as soon as there is something
    "log.interval_ms",
    "lake.interval_ms",
    "shards.canary_s",  # there are none
    "shards.embedded",  # every shard is elsewhere
    "overlays.seed",
    "overlays.gate_overlap",  # each gate: it lets everything through
    "overlays.gate_rbo",
    "overlays.gate_kendall",
}
BELOW_ZERO_IS_FINE = {"overlays.gate_kendall"}  # a correlation


def numbers(model: BaseModel, before: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number of the settings, by dotted name, as it is by default."""
    for field in type(model).model_fields:
        value = getattr(model, field)
        if isinstance(value, BaseModel):
            yield from numbers(value, f"{before}{field}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield before + field, value


NUMBERS = dict(numbers(Settings()))


def loaded(name: str, value: Any) -> Settings:
    return load(environment={f"INTELGRAPH__{name.replace('.', '__').upper()}": value})


def refused(name: str, value: Any) -> str:
    with pytest.raises(Rejected) as raised:
        loaded(name, value)
    return str(raised.value)


def test_all_sections_are_walked() -> None:
    sections = {name for name in Settings.model_fields if isinstance(getattr(Settings(), name), BaseModel)}
    assert {name.partition(".")[0] for name in NUMBERS} == sections
    assert set(NUMBERS) > ZERO_IS_FINE | BELOW_ZERO_IS_FINE


@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_refused_where_it_makes_no_sense(name: str) -> None:
    if name in ZERO_IS_FINE:
        assert dict(numbers(loaded(name, "0")))[name] == 0
    else:
        told = refused(name, "0")
        assert f"{name}: Input should be greater than" in told
        assert told.endswith(", not 0")


@pytest.mark.parametrize("name", NUMBERS)
def test_less_than_zero_is_refused(name: str) -> None:
    assert f"{name}: Input should be greater than" in refused(name, "-2")
    if name in BELOW_ZERO_IS_FINE:
        assert dict(numbers(loaded(name, "-1")))[name] == -1
    else:
        assert f"{name}: Input should be greater than" in refused(name, "-1")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_what_is_no_finite_number_is_refused(name: str, value: str) -> None:
    assert f"{name}: Input should be a finite number" in refused(name, value)


@pytest.mark.parametrize("name", NUMBERS)
def test_what_no_machine_has_is_refused(name: str) -> None:
    assert f"{name}: Input should be less than" in refused(name, str(1 << 62))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_default_is_within_its_bounds(name: str) -> None:
    """Defaults are not validated when a model is made, but when they are named."""
    assert math.isfinite(NUMBERS[name])
    assert dict(numbers(loaded(name, str(NUMBERS[name]))))[name] == NUMBERS[name]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("query.page_max", "50", "query: page_default is 100; it can be at most page_max, which is 50"),
        ("ingest.retry_most_s", "0.01", "ingest: retry_first_s is 0.05; it can be at most retry_most_s, which is 0.01"),
        ("streams.workers_min", "9", "streams: workers_min is 9; it can be at most workers_max, which is 4"),
        (
            "streams.scaling.up_lag_records",
            "9",
            "streams.scaling: down_lag_records is 1000; it can be at most up_lag_records, which is 9",
        ),
        ("log.timeout_s", "1", "log: block_ms is 500; it has to be below half of timeout_s, 1.0"),
        ("query.hosts", "3", "query: hosts is 3, but no other reaches host 127.0.0.1: set it to 0.0.0.0"),
        ("ray.actors", "spread", "set log.kind to kafka and shards.embedded to 0"),
        ("records.record_bytes", str(8 << 20), "records.record_bytes is 8388608; it can be at most half of log.entry"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(name: str, value: str, told: str) -> None:
    assert told in refused(name, value)


@pytest.mark.parametrize("embedded", [{"LOG__KIND": "redis"}, {"SHARDS__EMBEDDED": "1"}])
def test_actors_spread_only_where_every_part_is_reached_over_the_network(embedded: dict[str, str]) -> None:
    over_the_network = {"RAY__ACTORS": "spread", "LOG__KIND": "kafka", "SHARDS__EMBEDDED": "0"}
    named = [{f"INTELGRAPH__{n}": v for n, v in {**over_the_network, **more}.items()} for more in ({}, embedded)]
    assert load(None, named[0]).ray.actors == "spread"
    with pytest.raises(Rejected, match="embedded parts are reached from their own host alone"):
        load(None, named[1])


def test_a_file_is_held_to_the_same_bounds(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("query:\n  page_max: 0\n  port: 70000\nlog:\n  partition: 3\n")
    with pytest.raises(Rejected) as raised:
        load(path, {})
    told = str(raised.value)
    assert "query.page_max: Input should be greater than or equal to 1, not 0" in told
    assert "query.port: Input should be less than or equal to 65535, not 70000" in told
    assert "log.partition: Extra inputs are not permitted" in told


KAFKA = {
    "INTELGRAPH__LOG__KAFKA__SECURITY": "SASL_SSL",
    "INTELGRAPH__LOG__KAFKA__USER": "intel",
    "INTELGRAPH__LOG__KAFKA__PASSWORD": "0123",
}


def test_a_password_is_taken_as_it_is_written_and_shown_nowhere() -> None:
    settings = load(None, KAFKA)
    assert settings.log.kafka.password.get_secret_value() == "0123"
    assert "0123" not in f"{settings!r} {settings.model_dump_json()} {settings.model_dump()}"
    told = settings.model_dump(mode="json", context=WITH_SECRETS)
    assert Settings.model_validate(told) == settings


def test_a_password_is_not_in_a_message(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    for given in (
        "password: 12345",
        "password: 12345678x\n    security: SASL_SSL",
        "password: 12345678x\n    users: 7",
    ):
        path.write_text(f"log:\n  kafka:\n    {given}\n")
        with pytest.raises(Rejected, match=r"log\.kafka") as raised:
            load(path, {})
        assert "12345" not in f"{raised.value} {raised.value.__cause__}"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MIN_IN_SYNC", "4", "min_in_sync is 4; it can be at most replication_factor, which is 3"),
        ("SECURITY", "SASL_SSL", "security is SASL_SSL, which needs user and password"),
        ("SECURITY", "TLS", "Input should be 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
        ("TOPIC_PREFIX", "a/b", "String should match pattern"),
        ("COMPRESSION", "gzip", "Input should be 'none', 'lz4' or 'zstd'"),
    ],
)
def test_kafka_settings_that_cannot_work_are_refused(name: str, value: str, told: str) -> None:
    with pytest.raises(Rejected, match=re.escape(told)):
        load(None, {f"INTELGRAPH__LOG__KAFKA__{name}": value})


S3 = {
    "INTELGRAPH__LAKE__URI": "s3://bucket/some/prefix",
    "INTELGRAPH__LAKE__KEY_ID": "intel",
    "INTELGRAPH__LAKE__SECRET_KEY": "0123",
}


def test_a_place_in_s3_and_its_secret() -> None:
    settings = load(None, S3)
    assert (settings.lake.bucket, settings.lake.prefix) == ("bucket", "some/prefix")
    assert settings.lake.secret_key.get_secret_value() == "0123"
    assert "0123" not in f"{settings!r} {settings.model_dump_json()} {settings.model_dump()}"
    assert Settings.model_validate(settings.model_dump(mode="json", context=WITH_SECRETS)) == settings
    assert load(None, {**S3, "INTELGRAPH__LAKE__ENDPOINT": "http://127.0.0.1:7070"}).lake.endpoint


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("URI", "s3://Bucket/x", "uri: give s3://bucket/prefix"),
        ("URI", "s3://bucket/a/../b", "uri: give s3://bucket/prefix"),
        ("URI", "s3://bucket/a/", "uri: give s3://bucket/prefix"),
        ("URI", "https://bucket/a", "uri: give s3://bucket/prefix"),
        ("SECRET_KEY", "", "needs key_id and secret_key"),
        ("ENDPOINT", "http://s3.example.org", "http:// would show everything"),
        ("ENDPOINT", "https://me:word@s3.example.org", "without user and password"),
        ("ENDPOINT", "s3.example.org:9000", "give https://host:port"),
    ],
)
def test_places_in_s3_that_cannot_work_are_refused(name: str, value: str, told: str) -> None:
    with pytest.raises(Rejected, match=re.escape(told)) as raised:
        load(None, {**S3, f"INTELGRAPH__LAKE__{name}": value})
    assert "word" not in str(raised.value).replace("password", "")


def test_no_file_holds_the_secret_of_s3(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("snapshots:\n  uri: s3://bucket/x\n  secret_key: 0123\n")
    with pytest.raises(Rejected, match="INTELGRAPH__SNAPSHOTS__SECRET_KEY") as raised:
        load(path, {})
    assert "0123" not in str(raised.value)
