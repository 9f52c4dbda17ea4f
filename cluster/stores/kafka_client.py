"""What log and streams ask of a Kafka cluster, one coroutine a question, on one event loop.

A broker answers the requests of one connection one after the other, and a fetch may wait for entries. So what may take
long runs on a connection that nobody else uses meanwhile, a `lane`; lanes are kept and used again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
)
from aiokafka.protocol.admin import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DescribeConfigsRequest,
)
from aiokafka.protocol.api import Request
from aiokafka.protocol.offset import OffsetRequest

from cluster.config_kafka import KafkaConnection
from cluster.errors import Rejected
from cluster.stores.kafka_errors import CAUGHT, LOG, OTHER_TOPIC, Named, check_code
from cluster.stores.kafka_topic import Topic, by_leader
from cluster.stores.kafka_wire_topics import NO_ID, AlterConfigs, LogDirs, TopicMetadata

FIRST, NEXT = -2, -1
"""Of `offsets`: the first offset that can be read; the one that the next entry will have."""

_DEFAULT = 0
_SETTLE_S, _SETTLE_LOOKS = 0.5, 20
_TOPIC_RESOURCE = 2
_ALREADY_EXISTS = 36


def connection_options(settings: KafkaConnection, timeout_s: float, named: Named = LOG) -> dict[str, Any]:
    """How the client connects.

    Args:
        timeout_s: of one request.
        named: the cluster.

    Raises:
        Rejected: `ca_file` is not readable.
    """
    context = None
    if settings.security.endswith("SSL"):
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise Rejected(f"{named.settings}.ca_file {settings.ca_file}: {error}") from error
    return {
        "request_timeout_ms": max(1, int(timeout_s * 1000)),
        "security_protocol": settings.security,
        "ssl_context": context,
        "sasl_mechanism": settings.mechanism,
        "sasl_plain_username": settings.user,
        "sasl_plain_password": settings.password.get_secret_value(),
    }


class _Client(AIOKafkaClient):
    """With connections that can be given up."""

    def drop(self, lane: int) -> None:
        """Closes the connections of a lane, whatever is still asked on them."""
        for key in [key for key in self._conns if key[1] == lane]:
            self._conns.pop(key).close()


class KafkaClient:
    """Questions to the brokers. Raises the client's errors (`kafka_errors.CAUGHT`); made and used on one event loop."""

    def __init__(self, bootstrap: str, options: Mapping[str, Any]) -> None:
        self._hosts, self._options = [host for host in bootstrap.replace(" ", "").split(",") if host], dict(options)
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a line at each try; what it says is raised
        self._client = _Client(bootstrap_servers=self._hosts, client_id="intelgraph", **self._options)
        self._lanes, self._free = itertools.count(_DEFAULT + 1), list[int]()

    @property
    def timeout_ms(self) -> int:
        """Of one request."""
        return int(self._options["request_timeout_ms"])

    async def start(self) -> None:
        """Connects. Raises why the last of the brokers named could not be reached."""
        failed: BaseException = KafkaConnectionError("no broker is named")
        for host, port, _ in collect_hosts(self._hosts):
            try:
                connection = await create_conn(host, port, client_id="intelgraph", **self._options)
            except CAUGHT as error:  # the client's own start logs the reason, then raises another
                failed = error
                continue
            await connection.close()
            await self._client.bootstrap()
            return
        raise failed

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[int]:
        """A connection to each broker that is one's own until the end of the block."""
        lane = self._free.pop() if self._free else next(self._lanes)
        try:
            yield lane
        except asyncio.CancelledError:
            self._client.drop(lane)  # a request that nobody waits for would hold up the next one
            raise
        finally:
            self._free.append(lane)

    async def ready(self, node: int, lane: int) -> bool:
        """Whether a connection to that broker stands; makes one where there is none."""
        return bool(await self._client.ready(node, group=lane))

    async def send(self, node: int, request: Request, lane: int = _DEFAULT) -> Any:
        """A broker's answer."""
        try:
            return await self._client.send(node, request, group=lane)
        except NotImplementedError as error:  # so the client says that it and the broker share no version of a request
            raise IncompatibleBrokerVersion(str(error)) from error

    async def ask(self, request: Request) -> Any:
        """The answer of any broker that can be reached; the request may be sent to several."""
        brokers = [broker.nodeId for broker in self._client.cluster.brokers()]
        failed: KafkaError = NodeNotReadyError("no broker is known")
        for node in random.sample(brokers, len(brokers)):
            try:
                return await self.send(node, request)
            except (NodeNotReadyError, KafkaConnectionError, RequestTimedOutError) as error:
                failed = error
        raise failed

    async def topic(self, topic_id: bytes = NO_ID, name: str | None = None) -> Topic | None:
        """The topic of that id, or else of that name; None where the broker asked knows none."""
        answer = await self.ask(TopicMetadata(topic_id, name))
        code, found, found_id, _, partitions, *_ = answer.topics[0]
        if code in OTHER_TOPIC:
            return None
        check_code(code)
        leaders = {partition: leader for _, partition, leader, *_ in partitions}
        replicas = {partition: tuple(brokers) for _, partition, _, _, brokers, *_ in partitions}
        return Topic(found, found_id, leaders, replicas)

    async def refresh_brokers(self) -> bool:
        """Looks up again where the brokers are; whether one of those that are known has said so."""
        return bool(await asyncio.wait_for(self._client.force_metadata_update(), self.timeout_ms / 1000))

    async def create_topic(self, name: str, partitions: int, replicas: int, config: Mapping[str, str]) -> None:
        """Makes a topic; one of that name that is there already stays as it is."""
        wanted: Any = [(name, partitions, replicas, [], list(config.items()))]
        answer = await self.ask(CreateTopicsRequest(wanted, self.timeout_ms, False))
        for _, code, said in answer.topic_errors:
            if code != _ALREADY_EXISTS:
                check_code(code, said)

    async def add_partitions(self, name: str, count: int) -> None:
        """Gives a topic so many partitions in all; it has to have fewer."""
        wanted: Any = [(name, (count, None))]
        answer = await self.ask(CreatePartitionsRequest(wanted, self.timeout_ms, False))
        for _, code, said in answer.topic_errors:
            check_code(code, said)

    async def topic_config(self, name: str, node: int | None = None) -> dict[str, str]:
        """The topic's settings in force, as that broker knows them, or any."""
        asked = DescribeConfigsRequest([(_TOPIC_RESOURCE, name, None)])
        answer = await (self.ask(asked) if node is None else self.send(node, asked))
        code, said, _, _, entries = answer.resources[0]
        check_code(code, said)
        return {entry[0]: entry[1] for entry in entries}

    async def alter_topic(self, topic: Topic, config: Mapping[str, str | None]) -> None:
        """Changes some settings of a topic; None: as the brokers have it. Waits until each leader has them."""
        answer = await self.ask(AlterConfigs(topic.name, config))
        for code, said, *_ in answer.resources:
            check_code(code, said)
        wanted = {name: value for name, value in config.items() if value is not None}
        for node in by_leader(topic, topic.leaders):
            for _ in range(_SETTLE_LOOKS):
                if wanted.items() <= (await self.topic_config(topic.name, node)).items():
                    break
                await asyncio.sleep(_SETTLE_S)
            else:
                raise RequestTimedOutError(f"broker {node} does not take over the settings of {topic.name}")
        await asyncio.sleep(_SETTLE_S)  # what a broker says it has is in force a moment later

    async def offsets(
        self, topic: Topic, partitions: Iterable[int], which: int, committed: bool = False
    ) -> dict[int, int]:
        """`FIRST` or `NEXT` offset, by partition.

        Args:
            committed: the next one is the first that an open transaction holds back.
        """
        found: dict[int, int] = {}
        for node, mine in by_leader(topic, partitions).items():
            asked = [(topic.name, [(partition, which) for partition in mine])]
            answer = await self.send(node, OffsetRequest(-1, int(committed), asked))
            for _, rows in answer.topics:
                for partition, code, _, offset in rows:
                    check_code(code)
                    found[partition] = offset
        return found

    async def delete_before(self, topic: Topic, partition: int, offset: int) -> int:
        """Removes the entries before an offset; the partition's first offset then."""
        asked = [(topic.name, [(partition, offset)])]
        answer = await self.send(topic.leaders[partition], DeleteRecordsRequest(asked, self.timeout_ms))
        _, rows, *_ = answer.topics[0]
        _, first, code, *_ = rows[0]
        check_code(code)
        return int(first)

    async def disk_bytes(self, topic: Topic) -> int:
        """What the partitions take on the disks of their leaders. Those without one are left out, if not all are."""
        asked = [self._sizes(node, topic, mine) for node, mine in by_leader(topic, topic.leaders).items()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        sizes = [answer for answer in answers if isinstance(answer, int)]
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if failed and not sizes:
            raise failed[0]
        return sum(sizes)

    async def _sizes(self, node: int, topic: Topic, partitions: list[int]) -> int:
        answer = await self.send(node, LogDirs(topic.name, partitions))
        size_bytes = 0
        for code, _, topics in answer.dirs:
            check_code(code)
            size_bytes += sum(row[1] for _, rows in topics for row in rows)
        return size_bytes
