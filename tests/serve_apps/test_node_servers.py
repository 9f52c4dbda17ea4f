"""The node's servers and control store, without Ray: an older copy of the store, and a log server that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import Settings, ShardSettings
from cluster.embedded import Role, server_spec
from cluster.errors import Rejected, Retryable
from serve_apps.node import Node

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

T, S = "tenant-1", "feed"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A state directory with a short path, for its sockets."""
    made = Path(tempfile.mkdtemp(prefix="ig"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def up(folder: Path) -> Node:
    node = Node(Settings(state_dir=folder, shards=ShardSettings(embedded=1)))
    node._start_servers()
    return node


def given(node: Node, count: int) -> int:
    """The first of so many positions that the store gives."""
    return node._opened.control.acceptance.accept(T, S, None, "hash", count, 1.0).first_position


def test_an_older_control_store_is_made_whole_before_anything_is_served(folder: Path) -> None:
    node = up(folder)
    try:
        node._opened.control.sources.register(T, S, 1.0)
        assert given(node, 10) == 1
    finally:
        node._stop()
    shutil.copy(folder / "control.db", folder / "older.db")
    node._opened.control.close()
    node = up(folder)
    try:
        assert node._state.notes == ()
        assert given(node, 10) == 11
        log = node._servers["log"].running
        assert log is not None
        os.kill(log.pid, signal.SIGKILL)
        until = time.monotonic() + 60
        while True:
            try:
                node._opened.control.sources.register(T, "another", 1.0)
                break
            except Retryable:
                assert time.monotonic() < until
                time.sleep(0.05)
        (epoch,) = [shard.epoch for shard in node._opened.control.shards.list()]
    finally:
        node._stop()
    node._opened.control.close()
    shutil.copy(folder / "older.db", folder / "control.db")
    for name in ("control.db-wal", "control.db-shm"):
        (folder / name).unlink(missing_ok=True)
    node = up(folder)
    try:
        assert "older than the log" in " ".join(node._state.notes)
        assert [shard.epoch for shard in node._opened.control.shards.list()] == [epoch + 1]
        assert [source.name for source in node._opened.control.sources.list(T)] == ["another", S]
        assert given(node, 1) == 21
    finally:
        node._stop()
        node._opened.control.close()


def test_log_and_shard_that_die_together_come_back(folder: Path) -> None:
    """The log is let in without a shard that does not answer, and that is noted before the log takes anything."""
    node = up(folder)
    try:
        node._opened.control.sources.register(T, S, 1.0)
        before = {name: server.running.pid for name, server in node._servers.items() if server.running}
        for name in ("shard-0", "log"):
            os.kill(before[name], signal.SIGKILL)
        until = time.monotonic() + 60
        while not all(came_back(node, name, before[name]) for name in ("log", "shard-0")):
            assert time.monotonic() < until, "they wait for each other"
            time.sleep(0.05)
        assert given(node, 1) == 1
    finally:
        node._stop()
        node._opened.control.close()


def came_back(node: Node, name: str, pid: int) -> bool:
    running = node._servers[name].running
    return running is not None and running.pid != pid


def test_a_checkpoint_of_another_shard_is_refused(folder: Path) -> None:
    """Put in the place of a shard's own, it would show the facts of another installation, or miss those of its own."""
    other = Path(tempfile.mkdtemp(prefix="ig"))
    try:
        for each in (folder, other):
            up(each)._stop()
        dump, foreign = (server_spec(each, Role.SHARD, "shard-0", 0).dump_file for each in (folder, other))
        own = dump.read_bytes()
        shutil.copy(foreign, dump)
        for _ in range(2):
            with pytest.raises(Rejected, match=rf"{dump} is shard shard-0 of another installation.*put one of shard-0"):
                up(folder)
        dump.write_bytes(own)
        up(folder)._stop()
    finally:
        shutil.rmtree(other)
