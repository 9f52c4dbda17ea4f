"""PostgreSQL with logical decoding: Debian's, a cluster of its own."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cluster.embedded.passwords import write_private
from services import certificates
from services.launching import LOOPBACK, listens, put
from services.machine import apt_install
from services.ports import host_for, port_for
from services.spec import Launch, NotInstallable, Running, Service

PACKAGE = "postgresql"
USER = "postgres"
DATABASE = "postgres"
_CONF = """
unix_socket_directories = ''
wal_level = logical
max_replication_slots = 8
max_wal_senders = 8
shared_buffers = 64MB
"""
_LET_IN = """
host all,replication all 127.0.0.1/32 scram-sha-256
"""
_LET_NETWORK_IN = "hostssl all all samenet scram-sha-256\n"


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        apt_install(PACKAGE)
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise NotInstallable("PostgreSQL is not under /usr/lib/postgresql; install it (Debian: apt install postgresql)")
    return found[-1].parent


def install(_: Path) -> None:
    """See that its programs are there; Debian's package is installed where they are not and the caller is root."""
    _programs()


def launch(own: Path, _: Path, __: Mapping[str, Running]) -> Launch:
    """A cluster on this folder; it is made at the first start. On another address than loopback it wants TLS."""
    programs, host, port = _programs(), host_for(own), port_for(own, 5432)
    authority = certificates.make(own, "tls", "server.key", "server.crt", host)
    password = put(own / "password", secrets.token_urlsafe(24))
    data, made = own / "data", own / "data" / "PG_VERSION"
    script = own / "run.sh"
    first = (
        f"'{programs}/initdb' -D '{data}' -U {USER} --auth=scram-sha-256 --pwfile='{own}/password' -E UTF8 "
        f"--locale=C.UTF-8 && cat '{own}/own.conf' >> '{data}/postgresql.conf'"
    )
    write_private(own / "own.conf", _CONF)
    write_private(own / "hba.conf", _LET_IN + ("" if host == LOOPBACK else _LET_NETWORK_IN))
    options = {
        "port": port, "listen_addresses": ",".join({LOOPBACK, host}), "hba_file": own / "hba.conf",
        "ssl": "on", "ssl_cert_file": own / "tls" / "server.crt", "ssl_key_file": own / "tls" / "server.key",
    }  # fmt: skip
    start = shlex.join(["exec", f"{programs}/postgres", "-D", str(data), *(f"--{k}={v}" for k, v in options.items())])
    write_private(script, "\n".join(["set -eu", f"[ -f '{made}' ] || {{ {first}; }}", start, ""]))
    return Launch(
        command=["sh", str(script)],
        address=f"postgresql://{host}:{port}/{DATABASE}",
        details={
            "host": host,
            "port": str(port),
            "user": USER,
            "password": password,
            "database": DATABASE,
            "ca": str(authority),
        },
        answers=lambda: made.is_file() and listens(port, host) and _accepts(programs, port),
        user=USER,
        environment={"LC_ALL": "C.UTF-8"},
        stop_signal=signal.SIGINT,
    )


def _accepts(programs: Path, port: int) -> bool:
    command = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, check=False, env={"PATH": os.environ.get("PATH", "")}).returncode == 0


SERVICES = (Service("postgres", "PostgreSQL with logical decoding", install, launch),)
