from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.stack import Stack
from cluster import shard_map
from cluster.errors import Rejected
from cluster.stores.control_shards import Shard
from serve_apps.services import Catalogs, Letters


def test_a_place_among_dead_letters_that_no_page_gave_is_refused() -> None:
    def listed(tenant: str, after: int, limit: int) -> list[Any]:
        assert after < 2**63, "more than the store can be asked for"
        return []

    stack = SimpleNamespace(control=SimpleNamespace(dead_letters=SimpleNamespace(list=listed)))
    letters = Letters(cast(Stack, stack))
    assert letters.page("t", 10, None) == letters.page("t", 10, "17") == ([], None)
    for after in ("x", "", "-1", "1.0", "1_0", str(2**70), "٣"):
        with pytest.raises(Rejected, match="after"):
            letters.page("t", 10, after)


def test_shards_are_listed_with_kind_and_address_and_without_a_password() -> None:
    addresses = {"shard-0": "unix:///s", "neo4j-0": "bolt+s://graph:hunter2@host:7687"}
    known = [Shard(id, uri, "primary", None, "", "active", 1.0, 3, 0, 0.0, 0.0) for id, uri in addresses.items()]
    stack = SimpleNamespace(
        control=SimpleNamespace(shards=SimpleNamespace(list=lambda: known)),
        current_map=lambda: shard_map.initial(list(addresses), 4),
    )
    listed = Catalogs(cast(Stack, stack)).shards()
    assert [(row["id"], row["kind"], row["address"], row["buckets"]) for row in listed] == [
        ("shard-0", "embedded", "unix:///s", 2048),
        ("neo4j-0", "neo4j", "bolt+s://host:7687", 2048),
    ]
    assert "hunter2" not in str(listed)
