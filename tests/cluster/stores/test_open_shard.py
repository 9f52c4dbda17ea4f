from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from cluster.config import ShardSettings
from cluster.databases import FALKORDB, NEO4J
from cluster.errors import Rejected
from cluster.stores.neo4j_client import Neo4jClient
from cluster.stores.open_shard import kind_of, open_client, open_shard, shown_address

OURS = SecretStr("ours")


@pytest.mark.parametrize(
    ("uri", "database"),
    [
        ("unix:///run/shard.sock", FALKORDB),
        ("falkor://host:6379", FALKORDB),
        ("bolt://host:7687", NEO4J),
        ("bolt+s://host", NEO4J),
        ("neo4j+s://host", NEO4J),
    ],
)
def test_the_address_tells_the_database(uri: str, database: object) -> None:
    settings = ShardSettings()
    client = open_client(uri, settings, OURS, 1.0)
    assert client.dialect is database
    open_shard(client, settings).close()


def test_a_neo4j_has_as_many_lanes_as_the_settings_say_and_falkordb_one() -> None:
    settings = ShardSettings(neo4j_lanes=3)
    lanes = {
        uri: open_shard(open_client(uri, settings, OURS, 1.0), settings).lanes for uri in ("bolt://h", "unix:///s")
    }
    assert lanes == {"bolt://h": 3, "unix:///s": 1}


def test_neo4j_has_a_password_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" s p\n")
    settings = ShardSettings(neo4j_user="graph", neo4j_password_file=path, neo4j_database="facts")
    client = open_client("bolt://host", settings, OURS, 1.0)
    assert isinstance(client, Neo4jClient)
    assert client._password == SecretStr(" s p")
    assert (client._user, client._database) == ("graph", "facts")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_password_that_cannot_be_read_names_the_setting_and_not_what_is_in_it(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Rejected, match="neo4j_password_file") as refused:
        open_client("bolt://host", ShardSettings(neo4j_password_file=path), OURS, 1.0)
    assert "xff" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "kind", "shown"),
    [
        ("unix:///run/a@b/shard.sock", "embedded", "unix:///run/a@b/shard.sock"),
        ("falkor://:hunter2@host:6379", "embedded", "falkor://host:6379"),
        ("bolt+s://host:7687", "neo4j", "bolt+s://host:7687"),
        ("neo4j://graph:hunt/er@2@host", "neo4j", "neo4j://host"),
    ],
)
def test_a_shard_is_shown_by_kind_and_address_and_without_a_password(uri: str, kind: str, shown: str) -> None:
    assert (kind_of(uri), shown_address(uri)) == (kind, shown)


def test_an_address_of_no_kind_is_refused() -> None:
    with pytest.raises(Rejected):
        open_client("http://host", ShardSettings(), OURS, 1.0)
