"""Errors of readers of topics."""

from __future__ import annotations

import pickle

from cluster.errors import NotFound
from cluster.stores.kafka_stream_records import OffsetLost, StreamGone


def test_errors_survive_the_way_between_processes() -> None:
    gone = pickle.loads(pickle.dumps(StreamGone("ab")))  # noqa: S301
    assert isinstance(gone, NotFound)
    assert gone.topic_id == "ab"
    lost = pickle.loads(pickle.dumps(OffsetLost(1, 2, 3, 4)))  # noqa: S301
    assert (lost.partition, lost.asked, lost.first, lost.end, lost.replaced) == (1, 2, 3, 4, None)
    assert "retention" in str(lost)
    assert "lost its end" in str(OffsetLost(1, 5, 3, 4))
    replaced = pickle.loads(pickle.dumps(OffsetLost(1, 5, 3, 9, 4)))  # noqa: S301
    assert replaced.replaced == 4
    assert "has other records now from 4 on" in str(replaced)
