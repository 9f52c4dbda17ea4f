"""Reading a topic by position: fetches that carry their offsets.

fetch(…) ─► records of each partition, compressed as they came ─► Unread.take(limits) ─► entries, or a stream's records
                                                  what is left ─► ReadAhead, until a reader comes to that position
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from cluster.errors import Unavailable
from cluster.stores.kafka_client import KafkaClient
from cluster.stores.kafka_errors import CAUGHT, CORRUPT_MESSAGE, Named, check_code
from cluster.stores.kafka_topic import CurrentTopic, Topic, by_leader
from cluster.stores.kafka_wire import FetchById, diverged


class Part(NamedTuple):
    """What a fetch brought of one partition.

    Args:
        code: error code; 0 for none.
        end: offset behind the last entry that this reader may see, as the leader knows it.
        records: batches as they are stored; the last may be cut off.
        aborted: of transactions whose entries are among them: producer id, first offset; empty unless `committed`.
        diverged: as `kafka_wire.diverged`: the entries before the offset are others now, so none come.
    """

    code: int
    end: int
    records: bytes
    aborted: Sequence[tuple[int, int]] = ()
    diverged: tuple[int, int] | None = None


class _Fetch(NamedTuple):
    """What all the requests of one fetch have in common."""

    client: KafkaClient
    topic: Topic
    partition_bytes: int
    committed: bool
    epochs: Mapping[int, int]


async def fetch(
    client: KafkaClient,
    current: CurrentTopic,
    offsets: Mapping[int, int],
    partition_bytes: int,
    wait_ms: int,
    committed: bool = False,
    epochs: Mapping[int, int] = MappingProxyType({}),
) -> dict[int, Part]:
    """What there is from some offsets on, waiting up to `wait_ms` until there is something.

    A broker that does not answer hides its own partitions only, unless there is nothing else: then its error is raised.
    With `committed` it is only if no other broker answers: whoever reads a topic is told of such partitions elsewhere.

    Args:
        offsets: of the first entry wanted, by partition.
        partition_bytes: of each partition; more where its first batch is larger.
        committed: nothing from the first open transaction on, and which transactions were aborted.
        epochs: of the leader of the entry before an offset, by partition, as far as they are known.
    """
    one = _Fetch(client, current.topic, partition_bytes, committed, epochs)
    nodes = by_leader(current.topic, offsets)
    wants = [(node, {partition: offsets[partition] for partition in mine}) for node, mine in nodes.items()]
    at_once = wait_ms == 0 or len(wants) > 1
    found, failed = await _answers(one, wants, 0 if at_once else wait_ms)
    others = [want for want in wants if want[0] not in failed]
    if at_once and wait_ms and not found and others and (committed or not failed):
        found, failed_later = await _answers(one, others, wait_ms)
        failed |= failed_later
    if failed:
        current.refresh_soon()
        if not found and not (committed and len(failed) < len(wants)):
            raise next(iter(failed.values()))
    return found


async def _answers(
    one: _Fetch, wants: list[tuple[int, dict[int, int]]], wait_ms: int
) -> tuple[dict[int, Part], dict[int, BaseException]]:
    """Of the brokers that have answered when the first of them has something, and the errors of those that could not;
    the others' answers are let go."""
    asked = {asyncio.ensure_future(_from_one(one, node, mine, wait_ms)): node for node, mine in wants}
    pending = set(asked)
    found: dict[int, Part] = {}
    failed: dict[int, BaseException] = {}
    while pending and not (found and wait_ms):
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                found.update(task.result())
            elif isinstance(error, CAUGHT):
                failed[asked[task]] = error
            else:
                raise error
    for task in pending:
        task.add_done_callback(_let_go)
    return found, failed


def _let_go(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def _from_one(one: _Fetch, node: int, offsets: dict[int, int], wait_ms: int) -> dict[int, Part]:
    found: dict[int, Part] = {}
    async with one.client.lane() as lane:
        asked = [(offsets, wait_ms)]
        while asked:
            some, wait = asked.pop()
            request = FetchById(one.topic.id, some, one.partition_bytes, wait, one.committed, one.epochs)
            answer = await one.client.send(node, request, lane)
            check_code(answer.error_code)
            for _, rows, _ in answer.topics:
                for partition, code, high, stable, _, aborted, _, records, tags in rows:
                    end, other = stable if one.committed else high, diverged(tags)
                    if code or records or other:
                        gone = [(producer, first) for producer, first, _ in aborted or ()]
                        found[partition] = Part(code, end, records or b"", gone, other)
                    elif end > some[partition] and len(some) > 1:  # its first batch is too large to come in company
                        asked.append(({partition: some[partition]}, 0))
                    elif end > some[partition] and one.committed:
                        # where a batch's length is damaged, a broker finds no batch, and says nothing of it
                        found[partition] = Part(CORRUPT_MESSAGE, end, b"")
    return found


def without_errors(found: Mapping[int, Part], named: Named) -> dict[int, Part]:
    """The parts that have no error code.

    Raises:
        Unavailable: all of them have one.
    """
    good = {partition: part for partition, part in found.items() if not part.code}
    if found and not good:
        codes = {part.code for part in found.values()}
        raise Unavailable(f"{named.what}: a partition changes its leader (error codes {codes}); try again")
    return good
