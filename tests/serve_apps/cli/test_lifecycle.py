"""What `up` and `demo` say to a person, without starting anything."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from cluster.errors import Rejected
from serve_apps.cli import lifecycle
from serve_apps.cli.session import Session


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
