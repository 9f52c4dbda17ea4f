from __future__ import annotations

import shutil
import socket
import stat
from pathlib import Path

import pytest

from cluster.config import Settings
from serve_apps import haproxy

SOCKET_PATH_BYTES = 107
RAY_NODE_ID = "0" * 56
HAPROXY_OWN = ".4194304.tmp"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / ("a b$" * 40))


def test_its_files_and_sockets_are_this_users_alone(settings: Settings) -> None:
    environment = haproxy.environment(settings)
    try:
        for name in ("CONFIG_FILE_LOC", "SERVER_STATE_FILE", "SOCKET_PATH", "METRICS_SOCKET_PATH"):
            folder = Path(environment[f"RAY_SERVE_HAPROXY_{name}"]).parent
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, name
            assert " " not in str(folder), "HAProxy's configuration does not quote it"
        for name in ("SOCKET_PATH", "METRICS_SOCKET_PATH"):
            path = Path(environment[f"RAY_SERVE_HAPROXY_{name}"])
            assert len(str(path.parent / RAY_NODE_ID / path.name) + HAPROXY_OWN) <= SOCKET_PATH_BYTES
    finally:
        haproxy.forget_files(settings.state_dir)
    assert not folder.exists()


def test_what_an_earlier_run_left_is_gone(settings: Settings) -> None:
    left = Path(haproxy.environment(settings)["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent / RAY_NODE_ID
    left.mkdir()
    haproxy.environment(settings)
    assert not left.exists()
    shutil.rmtree(left.parent)


def test_ports_that_are_taken_are_avoided(settings: Settings) -> None:
    names = ("FALLBACK_PROXY_HTTP_PORT", "HAPROXY_STATS_PORT", "HAPROXY_METRICS_PORT")
    first = [int(haproxy.environment(settings)[f"RAY_SERVE_{name}"]) for name in names]
    taken = [socket.create_server(("127.0.0.1", port)) for port in first]
    try:
        second = [int(haproxy.environment(settings)[f"RAY_SERVE_{name}"]) for name in names]
    finally:
        for one in taken:
            one.close()
        haproxy.forget_files(settings.state_dir)
    assert not set(first) & set(second)


def test_a_busy_machine_has_time_to_start_the_proxy(settings: Settings) -> None:
    environment = haproxy.environment(settings)
    haproxy.forget_files(settings.state_dir)
    assert float(environment["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"]) >= 30
    assert float(environment["RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S"]) >= 30
