"""A proxy between a client and a server that fails on demand: delay, drop, half-open, reset, throttle, cut.

    with FaultProxy.unix(server_socket, folder / "proxy.sock") as proxy:
        client = Redis(unix_socket_path=proxy.address)
        proxy.set(Faults(to_client=Direction(cut_after_bytes=0)))    # requests arrive, answers never do

It runs on an event loop in a thread of its own; `set` holds for open connections too, from their next bytes on. Byte
counts of `cut_after_bytes` begin at `set`. Every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK_BYTES = 64 << 10
_CALL_S = 10.0
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Direction:
    """What happens to bytes on their way.

    Args:
        delay_s: each chunk arrives so much later.
        bytes_per_s: no faster than this; None is unbounded.
        drop: chunks are read and thrown away, the connection stays open: with one direction of two, half-open.
        cut_after_bytes: so many bytes go through in all, then the connection ends; None never.
    """

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    drop: bool = False
    cut_after_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Faults:
    """What the proxy does wrong; the default is nothing.

    Args:
        refuse: new connections are reset at once.
        reset: what is cut ends with RST instead of FIN (TCP; a unix socket just closes).
        lose_answer_to: the answer to a request that holds these bytes never arrives: its connection ends instead.
    """

    to_server: Direction = field(default_factory=Direction)
    to_client: Direction = field(default_factory=Direction)
    refuse: bool = False
    reset: bool = False
    lose_answer_to: bytes = b""

    @property
    def said(self) -> str:
        """What is wrong, for people."""
        wrong = [name for name in ("refuse", "reset", "lose_answer_to") if getattr(self, name)]
        ways = (("to server", self.to_server), ("to client", self.to_client))
        wrong += [f"{name} at fault" for name, way in ways if way != Direction()]
        return ", ".join(wrong).replace("_", " ") or "healed"


ANSWER_LOST = Faults(to_client=Direction(cut_after_bytes=0))
"""The request is carried out and its answer never arrives: the connection ends when the answer comes."""

HALF_OPEN = Faults(to_client=Direction(drop=True))
"""Requests go out, nothing comes back, the connection stays."""

BLACK_HOLE = Faults(to_server=Direction(drop=True), to_client=Direction(drop=True))


class _Pass:
    """The bytes that may still go in one direction before the cut; renewed by each `set`."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.left = direction.cut_after_bytes


class _Line:
    """One connection: the end of its last request, and whether the answer to it will be lost."""

    def __init__(self) -> None:
        self.tail, self.lose = b"", False

    def saw(self, chunk: bytes, wanted: bytes) -> None:
        """Looks for `wanted`, which may lie across two chunks."""
        if wanted:
            self.lose = self.lose or wanted in self.tail + chunk
            self.tail = (self.tail + chunk)[-len(wanted) + 1 :] if len(wanted) > 1 else b""


class FaultProxy:
    """See the module. `address` is what clients connect to: a socket path, or `(host, port)`."""

    def __init__(self, upstream: str | tuple[str, int], listen: str | tuple[str, int]) -> None:
        self.address: str | tuple[str, int] = listen
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._faults = Faults()
        self._passes = (_Pass(Direction()), _Pass(Direction()))
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._bytes = [0, 0]
        self.told: Callable[[Faults], None] = lambda faults: None
        """Called with each `set`."""
        self.answers_lost = 0
        """Answers that `lose_answer_to` has lost since the start."""

    @classmethod
    def unix(cls, upstream: Path | str, listen: Path | str) -> FaultProxy:
        """Between unix sockets."""
        return cls(str(upstream), str(listen))

    @classmethod
    def tcp(cls, upstream: tuple[str, int], port: int = 0) -> FaultProxy:
        """In front of a TCP server; port 0 takes a free one."""
        return cls(upstream, ("127.0.0.1", port))

    @property
    def bytes_to_server(self) -> int:
        """Bytes that have been passed on to the server since the start."""
        return self._bytes[0]

    @property
    def bytes_to_client(self) -> int:
        """Bytes that have been passed on to clients since the start."""
        return self._bytes[1]

    @property
    def connections(self) -> int:
        """Client connections that are open now."""
        return len(self._writers) // 2

    def set(self, faults: Faults) -> None:
        """From now on do this wrong; returns when it holds."""
        self.told(faults)
        self._call(self._set(faults))

    def heal(self) -> None:
        """From now on do nothing wrong. Connections that were cut stay cut; dropped bytes stay lost."""
        self.set(Faults())

    def cut(self) -> None:
        """Ends all open connections now, with RST if `Faults.reset` is set."""
        self._call(self._cut())

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()
        if isinstance(self.address, str):
            Path(self.address).unlink(missing_ok=True)

    def _call(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(_CALL_S)

    async def _listen(self) -> None:
        if isinstance(self.address, str):
            self._server = await asyncio.start_unix_server(self._accept, self.address)
        else:
            self._server = await asyncio.start_server(self._accept, *self.address)
            self.address = ("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def _set(self, faults: Faults) -> None:
        self._faults = faults
        self._passes = (_Pass(faults.to_server), _Pass(faults.to_client))

    async def _cut(self) -> None:
        for writer in list(self._writers):
            self._end(writer)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        if self._faults.reset and (sock := writer.get_extra_info("socket")) and sock.family != socket.AF_UNIX:
            with suppress(OSError):  # it has gone already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort() if self._faults.reset else writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connection(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._faults.refuse:
            return self._end(writer)
        try:
            far_reader, far_writer = await _connect(self._upstream)
        except OSError:
            return self._end(writer)
        both = {writer, far_writer}
        self._writers |= both
        line = _Line()
        pumps = [
            asyncio.ensure_future(self._pump(0, line, reader, far_writer)),
            asyncio.ensure_future(self._pump(1, line, far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers -= both
            for end in both:
                self._end(end)
        return None

    async def _pump(self, way: int, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one direction until it ends or is cut."""
        while chunk := await reader.read(_CHUNK_BYTES):
            if way == 0:
                line.saw(chunk, self._faults.lose_answer_to)
            elif line.lose:
                self.answers_lost += 1
                return
            if not await self._carry(way, chunk, writer):
                return

    async def _carry(self, way: int, chunk: bytes, writer: asyncio.StreamWriter) -> bool:
        """Passes a chunk on as the faults say; false when the connection is to end."""
        allowed = self._passes[way]
        direction = allowed.direction
        if direction.delay_s:
            await asyncio.sleep(direction.delay_s)
        if direction.drop:
            return True
        cut = allowed.left is not None and len(chunk) >= allowed.left
        if allowed.left is not None:
            chunk = chunk[: allowed.left]
            allowed.left -= len(chunk)
        await self._write(way, chunk, direction.bytes_per_s, writer)
        return not cut

    async def _write(self, way: int, chunk: bytes, bytes_per_s: float | None, writer: asyncio.StreamWriter) -> None:
        step = len(chunk) if bytes_per_s is None else max(1, int(bytes_per_s / 20))
        for start in range(0, len(chunk), step or 1):
            part = chunk[start : start + step]
            self._bytes[way] += len(part)
            writer.write(part)
            await writer.drain()
            if bytes_per_s is not None:
                await asyncio.sleep(len(part) / bytes_per_s)


async def _connect(upstream: str | tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(upstream, str):
        return await asyncio.open_unix_connection(upstream)
    return await asyncio.open_connection(*upstream)
