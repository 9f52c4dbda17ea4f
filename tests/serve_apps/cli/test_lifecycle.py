"""What `up` and `demo` say to a person, without starting anything."""

from __future__ import annotations

import fcntl
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import config
from cluster.errors import Corrupt, Rejected
from serve_apps.cli import lifecycle, node_process
from serve_apps.cli.session import Session
from serve_apps.node_state import NodeState


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "a folder" / "intelgraph"
    path.parent.mkdir()
    path.touch(mode=0o755)
    return path


def test_commands_to_try_can_be_typed_as_they_are_printed(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lifecycle._typed(str(program)) == f"'{program}'"
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert lifecycle._typed(str(program)) == "intelgraph"


def test_a_program_of_the_same_name_elsewhere_is_not_meant(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert lifecycle._typed(".venv/bin/intelgraph") == ".venv/bin/intelgraph"


def test_who_interrupts_is_told_what_goes_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    session = Session(tmp_path)
    with pytest.raises(KeyboardInterrupt), lifecycle.going_on(session):
        raise KeyboardInterrupt
    assert "intelgraph down" in capsys.readouterr().err


def test_a_node_which_works_elsewhere_is_told_files_as_they_are_meant_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here: #1"
    here.mkdir()
    written = "shards: {neo4j_password_file: secret}\nlog: {kafka: {ca_file: sub/ca.pem}}"
    (here / "a.yaml").write_text(written)
    monkeypatch.chdir(here)
    environment = Session(tmp_path / "state", Path("a.yaml")).environment
    monkeypatch.chdir(tmp_path)
    told = config.load(environment=environment)
    assert told.shards.neo4j_password_file == here / "secret"
    assert told.log.kafka.ca_file == here / "sub" / "ca.pem"
    assert (told.state_dir, told.shards.neo4j_ca_file) == (tmp_path / "state", None)


def test_a_state_directory_that_cannot_be_made_is_refused_with_a_way_out() -> None:
    with pytest.raises(Rejected, match=r"/proc/intelgraph cannot be written .* --state-dir"):
        lifecycle.start_node(Session(Path("/proc/intelgraph")))


def test_a_full_disk_is_said_before_a_node_is_started(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(Rejected, match="free space"):
            lifecycle.start_node(Session(tmp_path / "state"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "state").iterdir()) == []


@contextmanager
def _node_is_up(state_dir: Path, state: NodeState) -> Iterator[None]:
    with (state_dir / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (state_dir / "node.json").write_text(json.dumps(asdict(state)))
        yield


@pytest.mark.parametrize("winner", [2, 1])
def test_who_starts_at_the_same_moment_as_another_waits_for_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, winner: int
) -> None:
    """Ours is process 1; where it has said that it is ready and then ended, that is a failure."""
    with _node_is_up(tmp_path, NodeState(winner, "ready")):
        held = (tmp_path / "node.json").rename(tmp_path / "aside")

        def wait_ready(*_: object) -> NodeState:
            held.rename(tmp_path / "node.json")
            raise Corrupt("it ended")

        monkeypatch.setattr(node_process, "spawn", lambda *_: SimpleNamespace(pid=1))
        monkeypatch.setattr(node_process, "wait_ready", wait_ready)
        node, fresh = lifecycle.start_node(Session(tmp_path))
    assert (node.pid if node else None, fresh) == ((2, False) if winner == 2 else (None, True))
