"""The node's servers and control store, without Ray: an older copy of the store, and a log server that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cluster.config import Settings, ShardSettings
from cluster.embedded import Role, server_spec
from cluster.embedded.process import is_locked
from cluster.errors import Rejected, Retryable, Unavailable
from serve_apps.cli.node_process import stop_left_over
from serve_apps.node import Node
from tests.left_over import left_over

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

T, S = "tenant-1", "feed"


Up = Callable[..., Node]


@pytest.fixture
def new_folder() -> Iterator[Callable[[], Path]]:
    """Makes state directories with short paths, for their sockets."""
    with ExitStack() as made:
        yield lambda: Path(made.enter_context(tempfile.TemporaryDirectory(prefix="ig")))


@pytest.fixture
def folder(new_folder: Callable[[], Path]) -> Path:
    return new_folder()


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    """Starts servers on a state directory; they are surely gone afterwards."""
    nodes: list[Node] = []

    def start(at: Path = folder, shards: int = 1) -> Node:
        nodes.append(Node(Settings(state_dir=at, shards=ShardSettings(embedded=shards))))
        nodes[-1]._start_servers()
        return nodes[-1]

    yield start
    for node in nodes:
        down(node)


def down(node: Node) -> None:
    node._stop()
    node._opened.control.close()


def given(node: Node, count: int) -> int:
    """The first of so many positions that the store gives."""
    return node._opened.control.acceptance.accept(T, S, None, "hash", count, 1.0).first_position


def test_an_older_control_store_is_made_whole_before_anything_is_served(folder: Path, up: Up) -> None:
    node = up()
    node._opened.control.sources.register(T, S, 1.0)
    assert given(node, 10) == 1
    node._stop()
    shutil.copy(folder / "control.db", folder / "older.db")
    node._opened.control.close()
    node = up()
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
    down(node)
    shutil.copy(folder / "older.db", folder / "control.db")
    for name in ("control.db-wal", "control.db-shm"):
        (folder / name).unlink(missing_ok=True)
    node = up()
    assert "older than the log" in " ".join(node._state.notes)
    assert [shard.epoch for shard in node._opened.control.shards.list()] == [epoch + 1]
    assert [source.name for source in node._opened.control.sources.list(T)] == ["another", S]
    assert given(node, 1) == 21


def test_log_and_shard_that_die_together_come_back(up: Up) -> None:
    """The log is let in without a shard that does not answer, and that is noted before the log takes anything."""
    node = up()
    node._opened.control.sources.register(T, S, 1.0)
    before = {name: server.running.pid for name, server in node._servers.items() if server.running}
    for name in ("shard-0", "log"):
        os.kill(before[name], signal.SIGKILL)
    until = time.monotonic() + 60
    while not all(came_back(node, name, before[name]) for name in ("log", "shard-0")):
        assert time.monotonic() < until, "they wait for each other"
        time.sleep(0.05)
    assert given(node, 1) == 1


def came_back(node: Node, name: str, pid: int) -> bool:
    running = node._servers[name].running
    return running is not None and running.pid != pid


@pytest.fixture
def another(folder: Path, new_folder: Callable[[], Path], up: Up) -> Path:
    """The state directory of another installation that was up once, as that of `folder` was; two shards each."""
    made = new_folder()
    for each in (folder, made):
        down(up(each, 2))
    return made


def dump_of(folder: Path, shard: str) -> Path:
    return server_spec(folder, Role.SHARD, shard, 0).dump_file


@pytest.mark.parametrize(("whose", "shard"), [("another", "shard-0"), ("this", "shard-1")])
def test_a_checkpoint_of_another_shard_is_refused(folder: Path, another: Path, up: Up, whose: str, shard: str) -> None:
    """Put in the place of a shard's own, it would show the facts of another installation, or miss those of its own."""
    dump = dump_of(folder, "shard-0")
    own = dump.read_bytes()
    shutil.copy(dump_of({"another": another, "this": folder}[whose], shard), dump)
    for _ in range(2):  # a start that was refused changes nothing
        with pytest.raises(Rejected, match=rf"{dump} is shard {shard} of {whose} installation.*put one of shard-0"):
            up(folder, 2)
    dump.write_bytes(own)
    down(up(folder, 2))
    dump.unlink()
    up(folder, 2)


def test_a_checkpoint_of_another_installation_is_refused_by_a_new_one(
    another: Path, new_folder: Callable[[], Path], up: Up
) -> None:
    new = new_folder()
    dump = dump_of(new, "shard-0")
    dump.parent.mkdir(parents=True, mode=0o700)
    shutil.copy(dump_of(another, "shard-0"), dump)
    with pytest.raises(Rejected, match="of another installation"):
        up(new)


def test_a_checkpoint_of_a_later_time_than_the_control_store_is_refused(folder: Path, up: Up, tmp_path: Path) -> None:
    """All was set back together: entries of the log have other facts now than when the checkpoint was made."""
    down(up())
    shutil.copytree(folder, tmp_path / "all")
    for _ in range(3):
        down(up())
    dump = dump_of(folder, "shard-0")
    later = dump.read_bytes()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "all", folder)
    own = dump.read_bytes()
    dump.write_bytes(later)
    for _ in range(4):  # each start raises an epoch: one that was refused does not
        with pytest.raises(Rejected, match=rf"{dump} is of a later time than the control store.*put one of shard-0"):
            up()
    dump.write_bytes(own)
    down(up())


def test_down_writes_nothing_of_a_server_that_nobody_was_let_into(
    folder: Path, another: Path, up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would put what it has loaded over the file that was put right meanwhile."""
    spec = server_spec(folder, Role.SHARD, "shard-0", 0)
    own = spec.dump_file.read_bytes()
    shutil.copy(dump_of(another, "shard-0"), spec.dump_file)
    left_over(spec, monkeypatch)
    spec.dump_file.write_bytes(own)
    assert stop_left_over(folder) == ["shard-0"]
    assert not is_locked(spec.lock_file)
    assert spec.dump_file.read_bytes() == own
    up(folder, 2)


def test_a_graph_that_is_no_shards_is_refused(folder: Path, up: Up) -> None:
    node = up()
    with closing(node._opened.open_client("shard-0", 1.0)) as client:
        client.write("MATCH (n) DETACH DELETE n", {})
        client.write("CREATE (:person {_k: 'x'})", {})
    down(node)
    with pytest.raises(Rejected, match="is no shard's"):
        up()


def test_a_checkpoint_of_before_there_were_owners_gets_one(up: Up) -> None:
    node = up()
    with closing(node._opened.open_client("shard-0", 1.0)) as client:
        client.write("MATCH (m:_Shard) SET m.of_log = null, m.of_shard = null", {})
    down(node)
    node = up()
    with closing(node._opened.open_client("shard-0", 1.0)) as client:
        assert client.read("MATCH (m:_Shard) RETURN m.of_shard", {})[0][0] == "shard-0"


def test_a_checkpoint_of_another_is_not_let_in_while_the_system_runs(
    folder: Path, another: Path, up: Up, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that was killed does not come back with a file that is not its own."""
    node = up(folder, 2)
    running = node._servers["shard-0"].running
    assert running is not None
    dump = dump_of(folder, "shard-0")
    own = dump.read_bytes()
    shutil.copy(dump_of(another, "shard-0"), dump)
    os.kill(running.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while "server_restart_failed" not in caplog.messages:
        assert time.monotonic() < until, "it is started again"
        time.sleep(0.05)
    with pytest.raises(Unavailable), closing(node._opened.open_client("shard-0", 1.0)) as client:
        client.read("RETURN 1", {})
    dump.write_bytes(own)
    until = time.monotonic() + 60
    while not came_back(node, "shard-0", running.pid):
        assert time.monotonic() < until
        time.sleep(0.1)
