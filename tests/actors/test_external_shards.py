"""Shards on a real Neo4j that we do not start: whose it is, and what happens when it comes back without us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from actors.external_shards import came_back, register, shard_name
from actors.stack import Stack
from cluster.config import Settings, ShardSettings
from cluster.errors import Rejected
from cluster.shard_map import initial
from cluster.stores import neo4j_tenure
from cluster.stores.neo4j_client import Neo4jClient
from cluster.stores.neo4j_tenure import Standing
from cluster.stores.shard_owner import Owner
from tests.graph_stores import Neo4jStore

OURS = Owner("log-a", "neo4j-0")


@pytest.mark.parametrize(
    ("before", "epoch", "phase", "back"),
    [
        ((4, 2), 4, 2, False),
        ((4, 2), 4, 1, True),  # the time of its readers is over: a restart, or a database of last week
        ((4, 2), 4, 0, True),  # empty, or of an earlier epoch
        ((4, 1), 4, 0, True),
        ((4, 0), 4, 0, False),  # its writer has not come yet
        ((4, 2), 5, 0, False),  # a new epoch begins
        ((-1, 0), 4, 1, False),
        ((-1, 0), 4, -1, True),  # over before anybody looked
    ],
)
def test_a_shard_that_is_less_far_under_the_same_epoch_has_come_back(
    before: tuple[int, int], epoch: int, phase: int, back: bool
) -> None:
    assert came_back(before, epoch, phase) is back


def test_a_first_start_has_a_shard_at_least(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    made = Stack(Settings(state_dir=tmp_path / "s", shards=ShardSettings(embedded=0)))
    assert made.register_embedded() == []
    with pytest.raises(Rejected, match="there has to be a shard"):
        made.publish_first_map([])


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="without user and password") as refused:
        ShardSettings(external=("bolt+s://neo4j:hunter2@host:7687",))
    assert "hunter2" not in str(refused.value)


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """An installation with one external shard in its registry; no server runs."""
    made = Stack(Settings(state_dir=tmp_path / "s"))
    (tmp_path / "s").mkdir(mode=0o700)
    made.control.shards.register("neo4j-0", "bolt+s://a:7687", 1.0)
    made.control.shard_maps.publish(0, initial(["neo4j-0"], 8), 1.0, "test")
    return made


def test_names_of_external_shards(stack: Stack) -> None:
    assert shard_name(stack, "bolt+s://b:7687", None) == "neo4j-1"
    assert shard_name(stack, "bolt+s://a:7687", None) == "neo4j-0"
    assert shard_name(stack, "bolt+s://b:7687", "neo4j-0") == "neo4j-0", "it has moved"
    for uri, name in (
        ("bolt+s://a:7687", "other"), ("bolt+s://b", "shard-7"), ("bolt://b", "A b"), ("redis://b", None),
    ):  # fmt: skip
        with pytest.raises(Rejected):
            shard_name(stack, uri, name)


@pytest.fixture
def client(neo4j_store: Neo4jStore) -> Iterator[Any]:
    with closing(neo4j_store.client(neo4j_store.fresh())) as opened:
        yield opened


@pytest.mark.production
class TestClaim:
    """A database belongs to one shard of one installation."""

    def test_an_empty_one_is_taken_and_stays_ours(self, client: Neo4jClient) -> None:
        assert neo4j_tenure.standing(client) == Standing(None)
        for _ in range(2):
            neo4j_tenure.claim(client, OURS, 30.0)
        assert neo4j_tenure.standing(client) == Standing(OURS)

    @pytest.mark.parametrize(
        ("other", "says"),
        [(Owner("log-a", "neo4j-1"), "of this installation already"), (Owner("log-b", "neo4j-0"), "of another")],
    )
    def test_that_of_another_shard_is_refused(self, client: Neo4jClient, other: Owner, says: str) -> None:
        neo4j_tenure.claim(client, OURS, 30.0)
        with pytest.raises(Rejected, match=says):
            neo4j_tenure.claim(client, other, 30.0)
        assert neo4j_tenure.standing(client).owner == OURS

    def test_somebody_elses_graph_is_refused_and_left_alone(self, client: Neo4jClient) -> None:
        client.write("CREATE (:Film {name: 'M'})", {})
        with pytest.raises(Rejected, match="no shard's"):
            neo4j_tenure.claim(client, OURS, 30.0)
        assert client.read("MATCH (n) RETURN labels(n)", {}) == [[["Film"]]]

    def test_a_version_that_is_known(self, client: Neo4jClient, monkeypatch: pytest.MonkeyPatch) -> None:
        assert neo4j_tenure.check_version(client)[:2] == "20"
        monkeypatch.setattr(neo4j_tenure, "OLDEST", (9_999, 1))
        with pytest.raises(Rejected, match="wants 9999"):
            neo4j_tenure.check_version(client)


@pytest.mark.production
class TestExtending:
    """Readers are let in for some time, and no longer than somebody looks."""

    def test_only_readers_of_the_epoch_that_serves(self, client: Neo4jClient, neo4j_store: Neo4jStore) -> None:
        neo4j_tenure.claim(client, OURS, 30.0)
        shard = neo4j_store.shard(client)
        assert not neo4j_tenure.extend(client, OURS, 0, 5.0)
        shard.raise_epoch(3)
        assert not neo4j_tenure.extend(client, OURS, 3, 5.0), "nobody is let in yet"
        shard.serve(3)
        bound = "MATCH (m:_Shard) RETURN m.until - timestamp() > 0 AND m.until - timestamp() <= 10000"
        assert client.read(bound, {}) == [[True]], "nobody has extended it yet, and it ends nevertheless"
        assert neo4j_tenure.extend(client, OURS, 3, 5.0)
        assert not neo4j_tenure.extend(client, OURS, 2, 5.0)
        assert not neo4j_tenure.extend(client, Owner("log-b", "neo4j-0"), 3, 5.0)

    def test_what_is_over_needs_a_new_epoch(self, client: Neo4jClient, neo4j_store: Neo4jStore) -> None:
        neo4j_tenure.claim(client, OURS, 30.0)
        shard = neo4j_store.shard(client)
        shard.raise_epoch(3)
        shard.serve(3)
        assert neo4j_tenure.extend(client, OURS, 3, 0.001)
        client.read("UNWIND range(1, 20000) AS n RETURN count(n)", {})
        assert not neo4j_tenure.extend(client, OURS, 3, 5.0)
        state = shard.state()
        assert state is not None
        assert (state.raised, state.serving) == (3, 0)
        shard.raise_epoch(4)
        shard.serve(4)
        assert neo4j_tenure.extend(client, OURS, 4, 5.0)


def test_an_installation_knows_no_address_of_another_kind(stack: Stack) -> None:
    with pytest.raises(Rejected):
        register(stack, "neo4j-0", shard_name(stack, "http://host", None))


@pytest.mark.production
def test_an_authority_of_ones_own_vouches_for_the_server(service: Any, tmp_path: Path) -> None:
    server = service("neo4j-0")
    uri, user = server.address.replace("+ssc", "+s"), server.details["user"]
    password = SecretStr(server.details["password"])
    with closing(Neo4jClient(uri, user, password, 5.0, ca_file=Path(server.details["ca"]))) as trusted:
        assert trusted.read("RETURN 1", {}) == [[1]]
    with closing(Neo4jClient(uri, user, password, 5.0)) as unknown:
        assert not unknown.answers()
    (tmp_path / "none.pem").write_text("none")
    for path in (tmp_path / "none.pem", tmp_path / "missing.pem"):
        with pytest.raises(Rejected, match="neo4j_ca_file"):
            Neo4jClient(uri, user, password, ca_file=path)
