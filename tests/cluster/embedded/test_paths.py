"""Private folders and short socket paths."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import tempfile
from pathlib import Path

import pytest

from cluster.embedded.paths import SOCKET_BYTES_MAX, private_folder, ray_folder, socket_folder
from cluster.errors import Rejected


def test_a_short_state_directory_has_its_own_sockets(short_root):
    assert socket_folder(short_root) == short_root / "run"


@pytest.fixture
def short_root():
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as folder:
        yield Path(folder)


def test_a_long_one_gets_a_short_private_folder_and_always_the_same(tmp_path, short_root):
    state = tmp_path / ("long" * 40)
    folder = socket_folder(state, short_root)
    assert folder == socket_folder(state, short_root)
    assert folder != socket_folder(state.with_name("other" * 40), short_root)
    assert folder.name.startswith(f"ig-{os.getuid()}-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(str(folder / "shard-63.sock")) <= SOCKET_BYTES_MAX


def test_rays_folder_leaves_room_for_its_own_longer_names(short_root):
    nested = short_root / "projects" / "intelgraph" / ".intelgraph"
    assert socket_folder(nested, short_root) == nested / "run"
    assert ray_folder(short_root, short_root) == short_root / "run" / "ray"
    folder = ray_folder(nested, short_root)
    assert folder.parent.parent == short_root
    assert folder != ray_folder(nested.with_name("other"), short_root)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_every_socket_of_ray_fits_wherever_the_state_directory_is(short_root):
    session = "session_2026-11-23_09-18-58_153142_4194304/sockets"
    names = ["plasma_store", *(f"dash_{name}" for name in _parts_of_rays_dashboard())]
    for letters in range(1, 80):
        folder = ray_folder(short_root / ("a" * letters), short_root)
        for name in names:
            assert len(str(folder / session / name)) <= SOCKET_BYTES_MAX, (letters, name)


def _parts_of_rays_dashboard():
    """Classes that have a process and a socket of their own; read, not imported, as that takes seconds."""
    ray = importlib.util.find_spec("ray").submodule_search_locations[0]
    sources = (path.read_text() for path in Path(ray, "dashboard", "modules").rglob("*.py"))
    found = [name for text in sources for name in re.findall(r"^class (\w+)\(.*SubprocessModule", text, re.MULTILINE)]
    assert "MetricsHead" in found
    return found


def test_too_long_in_any_case_is_refused(tmp_path):
    with pytest.raises(Rejected, match="shorter"):
        socket_folder(tmp_path / ("a" * 90), short_root=tmp_path / ("b" * 90))


def test_modes_are_tightened(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    assert stat.S_IMODE(private_folder(folder).stat().st_mode) == 0o700


def test_a_link_is_refused_even_to_a_folder_of_ours(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(Rejected, match="has to be a folder"):
        private_folder(tmp_path / "link")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_is_refused(tmp_path):
    folder = private_folder(tmp_path / "theirs")
    os.chown(folder, 12345, 12345)
    with pytest.raises(Rejected, match="12345"):
        private_folder(folder)
