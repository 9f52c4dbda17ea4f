"""What brokers say of a topic as it stands: its partitions, their offsets, and whether what was read is still there.

Each leader is asked by itself. One that does not answer, or a partition that has none, hides no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.errors import InvalidTopicError, TopicAuthorizationFailedError
from aiokafka.protocol.api import Request
from aiokafka.protocol.offset import OffsetRequest

from cluster.errors import NotFound, Unavailable
from cluster.stores.kafka_client import FIRST, NEXT, KafkaClient
from cluster.stores.kafka_errors import CAUGHT, Named, check_code
from cluster.stores.kafka_stream_records import Reached, TopicLook
from cluster.stores.kafka_topic import Topic, by_leader
from cluster.stores.kafka_wire_epochs import EpochEnds

Row = tuple[int, int, Any]
"""(partition, error code, what was asked for)."""


class _Asked(NamedTuple):
    """What all the questions of one look have in common."""

    client: KafkaClient
    topic: Topic
    timeout_s: float


async def look(
    client: KafkaClient, name: str, reached: Mapping[int, Reached], timeout_s: float, named: Named
) -> TopicLook:
    """A topic as it stands now.

    Args:
        reached: of partitions that are read, how far.
        timeout_s: of one leader's answers.

    Raises:
        NotFound: there is none. Unavailable: it is made again at this moment. The client's errors: nobody answers.
    """
    try:
        topic = await client.topic(name=name)
    except InvalidTopicError as error:
        raise NotFound(f"{name!r} cannot be the name of a topic") from error
    if topic is None:
        raise NotFound(f"{named.what} has no topic {name!r}, or {named.settings}.user may not see it")
    asked = _Asked(client, topic, timeout_s)
    first, end, ends_of = await asyncio.gather(
        leaders_offsets(client, topic, topic.leaders, FIRST, timeout_s),
        leaders_offsets(client, topic, topic.leaders, NEXT, timeout_s, committed=True),
        _epoch_ends(asked, {p: at.leader_epoch for p, at in reached.items() if at.leader_epoch >= 0}),
    )
    again = await client.topic(name=name)
    if again is None or again.id != topic.id:  # offsets are asked for by name: they may be another topic's
        raise Unavailable(f"topic {name!r} is being deleted or made again; try again shortly")
    seen = first.keys() & end.keys()
    replaced = {
        p: at
        for p, answer in ends_of.items()
        if p in seen and (at := other_from(reached[p], answer, first[p])) is not None
    }
    return TopicLook(
        topic.name, topic.id.hex(), {p: first[p] for p in sorted(seen)}, {p: end[p] for p in sorted(seen)},
        frozenset(topic.leaders.keys() - seen), replaced,
    )  # fmt: skip


async def leaders_offsets(
    client: KafkaClient, topic: Topic, partitions: Iterable[int], which: int, timeout_s: float, committed: bool = False
) -> dict[int, int]:
    """As `KafkaClient.offsets`, of the partitions whose leaders say it. Raises if none does."""

    def question(mine: Collection[int]) -> Request[Any]:
        return OffsetRequest(-1, int(committed), [(topic.name, [(partition, which) for partition in mine])])

    def rows(answer: Any) -> Iterable[Row]:
        return ((p, code, offset) for _, found in answer.topics for p, code, _, offset in found)

    return await _from_leaders(_Asked(client, topic, timeout_s), partitions, question, rows)


async def _epoch_ends(asked: _Asked, epochs: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Newest epoch up to one that is named, and the offset behind it; of the partitions whose leaders say it."""

    def question(mine: Collection[int]) -> Request[Any]:
        return EpochEnds(asked.topic.name, {partition: epochs[partition] for partition in mine})

    def rows(answer: Any) -> Iterable[Row]:
        return ((p, code, (epoch, end)) for _, found, _ in answer.topics for code, p, epoch, end, _ in found)

    try:
        return await _from_leaders(asked, epochs.keys() & asked.topic.leaders.keys(), question, rows)
    except CAUGHT:  # each fetch asks the same again
        return {}


async def _from_leaders(
    asked: _Asked,
    partitions: Iterable[int],
    question: Callable[[Collection[int]], Request[Any]],
    rows: Callable[[Any], Iterable[Row]],
) -> dict[int, Any]:
    """By partition, what its leader answers; those of leaders that do not, and without one, are left out.

    Raises:
        The client's errors: nobody has answered, or the user may not ask.
    """
    nodes = by_leader(asked.topic, partitions)
    answers = await asyncio.gather(*(_answer(asked, node, question(mine)) for node, mine in nodes.items()))
    found: dict[int, Any] = {}
    failed: list[BaseException] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            failed.append(answer)
            continue
        for partition, code, value in rows(answer):
            try:
                check_code(code)
            except TopicAuthorizationFailedError:
                raise
            except CAUGHT as error:
                failed.append(error)
            else:
                found[partition] = value
    if failed and not found:
        raise failed[0]
    return found


async def _answer(asked: _Asked, node: int, request: Request[Any]) -> Any:
    """Its answer, or why there is none."""
    try:
        return await asyncio.wait_for(_on_lane(asked.client, node, request), asked.timeout_s)
    except CAUGHT as error:
        return error


async def _on_lane(client: KafkaClient, node: int, request: Request[Any]) -> Any:
    """On a connection of its own: a request that is given up holds up no other."""
    async with client.lane() as lane:
        return await client.send(node, request, lane)


def other_from(reached: Reached, answer: tuple[int, int], first: int) -> int | None:
    """From which offset on a partition has other records than were read; None where all of it is as it was.

    Args:
        answer: the newest leader epoch up to that of the last record read, and the offset behind it; -1 and -1: the
            leader knows none that high.
        first: of the partition: where nothing can be told, nothing counts as read.
    """
    epoch, end = answer
    if epoch == reached.leader_epoch and end >= reached.offset:
        return None
    if epoch >= 0 and end < reached.offset:
        return max(first, end)
    return first
