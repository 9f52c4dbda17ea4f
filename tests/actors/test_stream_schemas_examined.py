"""Records held against their schemas while the registry cannot be asked."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from actors.stream_schemas import StreamSchemas
from cluster.config_registry import RegistrySettings
from cluster.errors import Unavailable
from cluster.stores.control import ControlStore
from cluster.stores.kafka_stream_records import StreamRecord
from cluster.streams.model import Stream, StreamSpec

BLOCKED_S = 0.5


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def schemas(control: ControlStore, silent: str) -> Iterator[StreamSchemas]:
    made = StreamSchemas(control, RegistrySettings(url=silent, timeout_s=BLOCKED_S))
    yield made
    made.close()


@pytest.fixture
def stream(control: ControlStore) -> Stream:
    control.sources.register("acme", "feed", 0.0)
    return control.streams.add(StreamSpec("feed", ("acme",), "t", schema="registry", subject="t-value"), 0.0)


def record(value: bytes, bad: str = "") -> StreamRecord:
    return StreamRecord(0, 0, None, value, [], bad)


@pytest.mark.parametrize("value", [b"\0\0\0\0\7 bytes of a whole record", b"no head"])
def test_what_is_no_record_is_held_against_no_schema(
    schemas: StreamSchemas, stream: Stream, control: ControlStore, value: bytes
) -> None:
    examined = schemas.examine(stream, 0, [record(value, "the record is malformed")], 1)
    assert (examined.upto, examined.drift) == (1, None)
    assert not control.stream_schemas.list("feed")


def test_a_registry_that_is_silent_holds_the_partitions_of_a_worker_up_once(
    schemas: StreamSchemas, stream: Stream
) -> None:
    def took_s(ask: Callable[[], object]) -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            ask()
        return time.monotonic() - began

    took = [took_s(lambda n=n: schemas.examine(stream, n, [record(b"\0\0\0\0\7x")], 1)) for n in range(3)]
    assert took[0] >= BLOCKED_S > sum(took[1:])
