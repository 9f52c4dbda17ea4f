"""The registry's client against a real one, and against what is none."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from cluster.config_registry import RegistrySettings
from cluster.errors import NotFound, Rejected, Unavailable
from cluster.stores.schema_registry import SchemaRegistry
from cluster.streams.schemas import Reference
from services import certificates
from services.spec import Running as Service
from tests.registered import Registered, avro_event, json_event, opened, with_field, without_field


@pytest.fixture
def registered(service: Callable[[str], Service]) -> Iterator[Registered]:
    """The run's registry."""
    yield from opened(service("registry"))


@pytest.mark.services
@pytest.mark.production
class TestRegistry:
    """Against the run's registry."""

    def test_a_schema_is_found_by_its_number_its_subject_and_its_version(
        self, registered: Registered, unique: str
    ) -> None:
        registry, more = registered.registry, with_field(avro_event(), unique, ["null", "string"], default=None)
        first, second = registered.add(unique, avro_event()), registered.add(unique, more)
        assert registered.add(unique, more) == second != first
        assert registry.schema(second).name == "org.intelgraph.Event"
        assert json.loads(registry.schema(second).text) == more
        assert registry.version(unique).schema == registry.schema(second)
        assert registry.version(unique, 1).schema.id == first
        assert registry.versions(unique) == [1, 2]
        assert (unique, 2) in registry.places(second)
        assert unique in registry.subjects()
        assert registry.knows(second)

    def test_what_is_not_there_is_not_found(self, registered: Registered, unique: str) -> None:
        registry, nowhere = registered.registry, 2**31 - 5
        for ask in (
            lambda: registry.schema(nowhere), lambda: registry.version(unique), lambda: registry.versions(unique),
            lambda: registry.places(nowhere), lambda: registry.against(unique, "AVRO", '"string"', 7),
        ):  # fmt: skip
            with pytest.raises(NotFound):
                ask()
        assert not registry.knows(nowhere)

    def test_what_may_not_follow_is_refused_and_said_why(self, registered: Registered, unique: str) -> None:
        registry = registered.registry
        registered.rule(unique, "BACKWARD")
        registered.add(unique, avro_event())
        bad = json.dumps(with_field(avro_event(), "needed", "string"))
        assert registry.against(unique, "AVRO", bad)
        assert registry.against(unique, "AVRO", json.dumps(without_field(avro_event(), "id"))) == []
        with pytest.raises(Rejected):
            registry.register(unique, "AVRO", bad)
        with pytest.raises(Rejected):
            registry.register(unique, "AVRO", '{"type": "nothing"}')
        assert registry.versions(unique) == [1]

    def test_schemas_that_refer_to_others_come_with_them(self, registered: Registered, unique: str) -> None:
        registry, space = registered.registry, f"n{unique}"
        inner = {"type": "record", "name": "Inner", "namespace": space, "fields": [{"name": "a", "type": "string"}]}
        middle = {"type": "record", "name": "Middle", "namespace": space, "fields": [{"name": "i", "type": "Inner"}]}
        outer = {"type": "record", "name": "Outer", "namespace": space, "fields": [{"name": "m", "type": "Middle"}]}
        registered.add(f"{unique}-inner", inner)
        said = Reference(f"{space}.Inner", f"{unique}-inner", 1)
        registry.register(f"{unique}-middle", "AVRO", json.dumps(middle), [said])
        next_one = Reference(f"{space}.Middle", f"{unique}-middle", 1)
        number = registry.register(unique, "AVRO", json.dumps(outer), [next_one, said])
        found = registry.schema(number)
        assert [name for name, _ in found.parts] == [f"{space}.Inner", f"{space}.Middle"]
        assert set(found.references) == {said, next_one}

    def test_json_schemas_are_kept_as_such(self, registered: Registered, unique: str) -> None:
        number = registered.add(unique, json_event(), "JSON")
        assert registered.registry.schema(number).kind == "JSON"
        assert registered.registry.version(unique).schema.kind == "JSON"


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers as it is told; counts what it is asked."""

    status, body, asked = 200, b"", list[str]()

    def do_GET(self) -> None:
        type(self).asked.append(f"{self.path} {self.headers.get('authorization', '')}")
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    """Of something that speaks HTTP and is no registry."""
    Answering.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


def answer(status: int, body: bytes) -> None:
    Answering.status, Answering.body = status, body


@pytest.mark.parametrize(("status", "body", "error", "told"), [
    (404, b"<html>not here</html>", Unavailable, "404"),
    (404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}', Unavailable, "404"),
    (404, b'{"error_code": 40403, "message": "Schema not found"}', NotFound, "Schema not found"),
    (200, b"<html>welcome</html>", Unavailable, "url right"),
    (200, b"[" * 4_000, Unavailable, "url right"),
    (200, b'"' + b"x" * 10_000 + b'"', Rejected, "schema_bytes"),
    (302, b"", Unavailable, "302"),
    (401, b"", Unavailable, "PASSWORD"),
    (429, b"", Unavailable, "429"),
    (503, b'{"error_code": 50003, "message": "leader unknown"}', Unavailable, "leader unknown"),
])  # fmt: skip
def test_only_what_a_registry_says_is_believed(
    address: str, status: int, body: bytes, error: type[Exception], told: str
) -> None:
    answer(status, body)
    registry = SchemaRegistry(RegistrySettings(url=address, schema_bytes=5_000))
    with pytest.raises(error, match=told) as raised:
        registry.schema(5)
    assert type(raised.value) is error
    registry.close()


def test_what_was_fetched_is_kept_up_to_a_bound(address: str) -> None:
    answer(200, b'{"schema": "\\"string\\""}')
    registry = SchemaRegistry(RegistrySettings(url=address, cached_schemas=2, user="me", password=SecretStr("x1y2")))
    for number in (1, 2, 1, 2, 3, 2, 1):
        assert registry.schema(number).id == number
    assert [one.split()[0] for one in Answering.asked] == [f"/api/schemas/ids/{n}" for n in (1, 2, 3, 1)]
    assert all("Basic" in one for one in Answering.asked)
    registry.close()


def test_one_that_is_away_or_says_nothing_is_unavailable_and_no_secret_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = RegistrySettings(url=url, timeout_s=0.2, user="me", password=SecretStr("x1y2"))
        registry = SchemaRegistry(settings)
        with pytest.raises(Unavailable) as raised:
            registry.schema(1)
        registry.close()
    assert "x1y2" not in f"{raised.value!r} {settings!r} {settings.model_dump_json()}"
    registry = SchemaRegistry(RegistrySettings(url=url))
    with pytest.raises(Unavailable, match="does not answer"):
        registry.schema(1)
    registry.close()


def test_over_tls_only_whom_the_ca_file_vouches_for_is_asked(tmp_path: Path) -> None:
    authority = certificates.make(tmp_path, "registry", "key.pem", "cert.pem")
    other = certificates.make(tmp_path / "other", "registry", "key.pem", "cert.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "registry" / "cert.pem", tmp_path / "registry" / "key.pem")
    answer(200, b'{"schema": "\\"string\\""}')
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url, asked = f"https://127.0.0.1:{server.server_port}", dict[Path | None, str]()
        for ca_file in (authority, other, None):
            registry = SchemaRegistry(RegistrySettings(url=url, ca_file=ca_file))
            try:
                asked[ca_file] = registry.schema(1).text
            except Unavailable as error:
                asked[ca_file] = str(error)
            registry.close()
        server.shutdown()
        thread.join()
    assert asked[authority] == '"string"'
    assert all("certificate verify failed" in asked[ca_file] for ca_file in (other, None))


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"streams\.registry\.url"):
        SchemaRegistry(RegistrySettings())
    with pytest.raises(Rejected, match="ca_file"):
        SchemaRegistry(RegistrySettings(url="https://x", ca_file=tmp_path / "absent.pem"))
    for named in ({"url": "ftp://x"}, {"url": "https://me:secret@x"}, {"user": "me"}):
        with pytest.raises(ValidationError):
            RegistrySettings(**named)
