"""The fault proxy does what it says: each fault, over a unix socket and over TCP, and against a real server."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.fault_proxy import ANSWER_LOST, BLACK_HOLE, HALF_OPEN, Direction, FaultProxy, Faults


class Echo(socketserver.BaseRequestHandler):
    seen: list[bytes]

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.seen.append(data)
                self.request.sendall(data)


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class Wire:
    """A proxy in front of an echo server."""

    def __init__(self, proxy: FaultProxy, seen: list[bytes]) -> None:
        self.proxy = proxy
        self.seen = seen

    @contextlib.contextmanager
    def client(self, timeout_s: float = 5.0) -> Iterator[socket.socket]:
        family = socket.AF_UNIX if isinstance(self.proxy.address, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(self.proxy.address)
            yield sock


def ask(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return receive(sock, len(data))


def receive(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (part := sock.recv(size - len(got))):
        got += part
    return got


@pytest.fixture(params=["unix", "tcp"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    seen: list[bytes] = []
    handler = type("Handler", (Echo,), {"seen": seen})
    with tempfile.TemporaryDirectory(prefix="fp", dir="/tmp") as folder:
        server: Any
        if request.param == "unix":
            server = UnixServer(f"{folder}/echo", handler)
            proxy = FaultProxy.unix(f"{folder}/echo", f"{folder}/proxy")
        else:
            server = TcpServer(("127.0.0.1", 0), handler)
            proxy = FaultProxy.tcp(server.server_address)
        with server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            with proxy:
                yield Wire(proxy, seen)
            server.shutdown()
            thread.join()


def test_without_faults_everything_goes_through(wire: Wire) -> None:
    data = bytes(range(256)) * 4096
    with wire.client() as one, wire.client() as two:
        sender = threading.Thread(target=one.sendall, args=(data,))
        sender.start()
        assert receive(one, len(data)) == data
        sender.join()
        assert ask(two, b"hello") == b"hello"
        assert wire.proxy.connections == 2
    assert wire.proxy.bytes_to_client == len(data) + 5


def test_delay(wire: Wire) -> None:
    with wire.client() as sock:
        assert ask(sock, b"a") == b"a"
        wire.proxy.set(Faults(to_client=Direction(delay_s=0.2)))
        began = time.monotonic()
        assert ask(sock, b"b") == b"b"
        assert time.monotonic() - began >= 0.2


def test_throttle(wire: Wire) -> None:
    wire.proxy.set(Faults(to_server=Direction(bytes_per_s=10_000)))
    with wire.client() as sock:
        began = time.monotonic()
        assert ask(sock, b"x" * 3_000) == b"x" * 3_000
        assert time.monotonic() - began >= 0.25


def test_half_open_the_request_arrives_and_the_connection_stays(wire: Wire) -> None:
    wire.proxy.set(HALF_OPEN)
    with wire.client(timeout_s=0.2) as sock:
        sock.sendall(b"request")
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert b"".join(wire.seen) == b"request"
        wire.proxy.heal()
        assert ask(sock, b"later") == b"later"


def test_black_hole_nothing_arrives(wire: Wire) -> None:
    wire.proxy.set(BLACK_HOLE)
    with wire.client(timeout_s=0.2) as sock:
        sock.sendall(b"request")
        with pytest.raises(TimeoutError):
            sock.recv(1)
    assert wire.seen == []


def test_answer_lost_after_the_request_was_carried_out(wire: Wire) -> None:
    with wire.client() as sock:
        assert ask(sock, b"one") == b"one"
        wire.proxy.set(ANSWER_LOST)
        assert ask(sock, b"two") == b""
    assert wire.seen == [b"one", b"two"]
    wire.proxy.heal()
    with wire.client() as sock:
        assert ask(sock, b"three") == b"three"


def test_only_the_answer_to_one_kind_of_request_is_lost(wire: Wire) -> None:
    wire.proxy.set(Faults(lose_answer_to=b"commit"))
    with wire.client() as sock, wire.client() as other:
        assert ask(sock, b"write") == b"write"
        sock.sendall(b"com")
        assert receive(sock, 3) == b"com"
        sock.sendall(b"mit")
        assert receive(sock, 3) == b""
        assert ask(other, b"read") == b"read"
    assert b"".join(wire.seen).startswith(b"writecommit")
    assert wire.proxy.answers_lost == 1


@pytest.mark.parametrize("limit", [1, 7, 10])
def test_cut_within_an_answer(wire: Wire, limit: int) -> None:
    wire.proxy.set(Faults(to_client=Direction(cut_after_bytes=limit)))
    with wire.client() as sock:
        assert ask(sock, b"0123456789") == b"0123456789"[:limit]
        assert sock.recv(1) == b""


def test_cut_within_a_request(wire: Wire) -> None:
    wire.proxy.set(Faults(to_server=Direction(cut_after_bytes=4)))
    with wire.client() as sock:
        sock.sendall(b"0123456789")
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 10) in (b"", b"0123")
    end = time.monotonic() + 5.0
    while not wire.seen and time.monotonic() < end:
        time.sleep(0.01)
    assert b"".join(wire.seen) == b"0123"


def test_refuse(wire: Wire) -> None:
    wire.proxy.set(Faults(refuse=True))
    with wire.client() as sock, contextlib.suppress(ConnectionError):
        assert sock.recv(1) == b""
    assert wire.seen == []


def test_cut_now(wire: Wire) -> None:
    with wire.client() as sock:
        assert ask(sock, b"a") == b"a"
        wire.proxy.cut()
        assert sock.recv(1) == b""


def test_reset_is_a_reset_on_tcp(wire: Wire) -> None:
    if isinstance(wire.proxy.address, str):
        pytest.skip("unix sockets have no RST")
    with wire.client() as sock:
        assert ask(sock, b"a") == b"a"
        wire.proxy.set(Faults(reset=True))
        wire.proxy.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_server_that_is_not_there_closes_the_client(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fp", dir="/tmp") as folder:
        with FaultProxy.unix(f"{folder}/nothing", f"{folder}/proxy") as proxy, Wire(proxy, []).client() as sock:
            assert sock.recv(1) == b""
        assert not Path(f"{folder}/proxy").exists()


@pytest.mark.services
def test_a_lost_answer_of_a_real_server_was_carried_out(log_server, connect, unique) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="fp", dir="/tmp") as folder,
        FaultProxy.unix(log_server.socket, f"{folder}/proxy") as proxy,
    ):
        client = connect(log_server, unix_socket_path=proxy.address)
        client.xadd(unique, {"n": 1})
        proxy.set(ANSWER_LOST)
        with pytest.raises(redis.ConnectionError):
            client.xadd(unique, {"n": 2})
        proxy.heal()
        assert client.xlen(unique) == 2
        client.close()
