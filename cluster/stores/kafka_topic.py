"""A topic as the brokers know it, and how it is followed while its partitions change their leaders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import Corrupt
from cluster.stores.kafka_errors import CAUGHT, WHAT

if TYPE_CHECKING:
    from cluster.stores.kafka_client import KafkaClient

_POLL_S, _POLL_FOR_S = 0.1, 1.0


class TopicGone(Corrupt):
    """The brokers do not know the topic's id any more; one of the same name would be another topic."""

    def __init__(self, topic_id: str) -> None:
        super().__init__(
            f"{WHAT} has lost its topic of id {topic_id}: it was deleted, and one of the same name would be"
            " another log. Stop ingest and restore the brokers' files"
        )
        self.topic_id = topic_id

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.topic_id,)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as a broker knows it.

    Args:
        id: 16 bytes, drawn by the cluster when the topic was made.
        leaders: broker that takes and gives the entries, by partition; -1 while there is none.
        replicas: brokers that hold it, by partition.
    """

    name: str
    id: bytes
    leaders: Mapping[int, int]
    replicas: Mapping[int, tuple[int, ...]]


def by_leader(topic: Topic, partitions: Iterable[int]) -> dict[int, list[int]]:
    """The partitions by the broker that leads them; those without a leader are under -1, which nobody answers to."""
    nodes: dict[int, list[int]] = {}
    for partition in partitions:
        nodes.setdefault(topic.leaders.get(partition, -1), []).append(partition)
    return nodes


async def known_topic(client: KafkaClient, topic_id: bytes, timeout_s: float) -> Topic:
    """The topic of that id. Asked for a second where it is unknown: news of it takes a moment to reach every broker.

    Raises:
        TopicGone: it stays unknown.
    """
    until = time.monotonic() + min(_POLL_FOR_S, timeout_s / 2)
    while (topic := await client.topic(topic_id)) is None:
        if time.monotonic() > until:
            raise TopicGone(topic_id.hex())
        await asyncio.sleep(_POLL_S)
    return topic


class CurrentTopic:
    """A topic that is looked up again when its leaders have moved; never another one of its name.

    Used on the client's event loop.
    """

    def __init__(self, client: KafkaClient, topic: Topic, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.client, self.topic = client, topic
        self._refreshing: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Looks it up again; a broker that cannot be reached leaves it as it was.

        Raises:
            TopicGone: the brokers do not know it any more.
        """
        try:
            await self.client.refresh_brokers()
            self.topic = await known_topic(self.client, self.topic.id, self._timeout_s)
        except CAUGHT:  # whoever asks the old leader next is told
            return

    def refresh_soon(self) -> None:
        """`refresh`, without waiting for it; once at a time. Whoever asks next is told if the topic is gone."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self.refresh())
            self._refreshing.add_done_callback(_seen)


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
