"""Which actors may leave the head."""

from __future__ import annotations

from typing import Any

import pytest

from actors import supervisor
from actors.supervisor import Wanted, start_actor, wanted
from cluster.config import Settings

OVER_THE_NETWORK = {"log": {"kind": "kafka"}, "shards": {"embedded": 0}}


def roaming(settings: Settings) -> set[str]:
    return {actor.name for actor in wanted(settings, ["neo4j-0", "neo4j-1"]) if actor.roams}


def test_writers_leave_the_head_only_where_it_is_asked_for() -> None:
    assert roaming(Settings()) == roaming(Settings.model_validate(OVER_THE_NETWORK)) == set()
    spread = Settings.model_validate({**OVER_THE_NETWORK, "ray": {"actors": "spread"}})
    assert roaming(spread) == {"shard-writer:neo4j-0", "shard-writer:neo4j-1"}  # not the lake's: its catalog stays


@pytest.mark.parametrize("roams", [False, True])
def test_an_actor_is_bound_to_the_head_unless_it_roams(monkeypatch: pytest.MonkeyPatch, roams: bool) -> None:
    asked: dict[str, Any] = {}

    class Remote:
        def options(self, **options: Any) -> Remote:
            asked.update(options)
            return self

        def remote(self, *_: Any) -> None:
            return

    monkeypatch.setattr(supervisor.ray, "remote", lambda _: Remote())
    start_actor(Wanted("shard-writer:x", object, (), roams))
    assert ("resources" in asked, asked.get("scheduling_strategy")) == ((False, "SPREAD") if roams else (True, None))
