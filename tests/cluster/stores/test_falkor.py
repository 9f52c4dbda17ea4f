from __future__ import annotations

from typing import Any

import pytest
import redis

from cluster.embedded import Running, kill_server, start
from cluster.errors import Rejected, Unavailable
from cluster.stores.falkor import FalkorClient, translate
from tests.conftest import StartServer

pytestmark = pytest.mark.services


def test_a_shard_that_is_not_serving_yet_is_asked_again_later(start_server: StartServer) -> None:
    before = start_server("shard")
    kill_server(before.spec)
    seen: list[Exception] = []

    def ask(new: Running, operator: Any) -> None:
        client = FalkorClient(f"unix://{new.socket}", new.password)
        for call in (client.read, client.write):
            with pytest.raises(Unavailable) as refused:
                call("RETURN 1", {})
            seen.append(refused.value)
        client.close()

    again = start(before.spec, ask)
    assert len(seen) == 2
    assert FalkorClient(f"unix://{again.socket}", again.password).write("RETURN 1", {}) == [[1]]


def test_a_command_that_our_user_may_not_run_is_no_matter_of_time() -> None:
    assert type(translate(redis.exceptions.NoPermissionError("no"), False)) is Rejected
