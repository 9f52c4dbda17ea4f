"""An S3-compatible object store over a local folder: Versity's gateway, built from the Go module."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from services import certificates
from services.launching import listens, put
from services.machine import program
from services.ports import host_for, port_for
from services.spec import Launch, NotInstallable, Running, Service

MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
_BUILD_S = 600


def install(artifacts: Path) -> None:
    """Build it, where it is not there; Go checks the module against its checksum database."""
    folder = artifacts / "bin"
    if (folder / "versitygw").is_file():
        return
    go = program("go")
    environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-buildvcs=false"}
    try:
        done = subprocess.run(
            [go, "install", MODULE], env=environment, capture_output=True, text=True, check=False, timeout=_BUILD_S
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstallable(f"building {MODULE} has not finished in {_BUILD_S} s; try again") from error
    if done.returncode != 0:
        raise NotInstallable(f"Go could not build {MODULE}: {done.stderr.strip()[-500:]}")


def launch(own: Path, artifacts: Path, _: Mapping[str, Running]) -> Launch:
    """A gateway whose buckets are folders of `own/data`; it speaks TLS."""
    host, port = host_for(own), port_for(own, 7070)
    user, password = put(own / "user", "intelgraph"), put(own / "password", secrets.token_urlsafe(24))
    (own / "data").mkdir(exist_ok=True)
    authority = certificates.make(own, "tls", "server.key", "server.crt", host)
    secured = ["--key", str(own / "tls" / "server.key"), "--cert", str(own / "tls" / "server.crt")]
    gateway = [str(artifacts / "bin" / "versitygw"), "--port", f"{host}:{port}", *secured]
    return Launch(
        command=[*gateway, "posix", str(own / "data")],
        address=f"https://{host}:{port}",
        details={"user": user, "password": password, "region": "us-east-1", "ca": str(authority)},
        environment={"ROOT_ACCESS_KEY": user, "ROOT_SECRET_KEY": password},
        answers=lambda: listens(port, host),
    )


SERVICES = (Service("s3", "Versity's gateway: S3 over a local folder", install, launch),)
