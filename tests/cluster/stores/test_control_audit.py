"""The audit is a tenant's own, and is only added to."""

from __future__ import annotations

import pytest

from cluster.errors import Rejected
from cluster.stores.control import ControlStore

T = "tenant-1"


def test_the_audit_pages_by_tenant(store: ControlStore) -> None:
    first = store.audit.append(T, "alice", "dlq.replay", "abc", 1.0, {"count": 2})
    store.audit.append("tenant-2", "bob", "source.kill", "feed", 2.0)
    second = store.audit.append(T, "alice", "source.kill", "feed", 3.0)
    assert [entry.sequence for entry in store.audit.list(T)] == [first, second]
    assert store.audit.list(T, limit=1)[0].detail == {"count": 2}
    assert [entry.sequence for entry in store.audit.list(T, after=first)] == [second]
    assert [entry.sequence for entry in store.audit.list(T, action="dlq.replay")] == [first]
    assert not any(name.startswith(("update", "delete", "remove", "set")) for name in dir(store.audit))
    with pytest.raises(Rejected):
        store.audit.list(T, limit=0)
