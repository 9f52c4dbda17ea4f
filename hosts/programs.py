"""The programs that hosts are made with: this machine's, or Debian's, unpacked beside and never installed.

A package of sshd that is installed would start a server on this machine, too.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from services.spec import NotInstallable

_PRESENT = {
    "ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "mount": "mount", "ssh": "openssh-client",
    "ssh-keygen": "openssh-client", "make": "make", "bash": "bash",
}  # fmt: skip
_UNPACKED = {"sshd": "usr/sbin/sshd", "rsync": "usr/bin/rsync"}
_PACKAGES = ("openssh-server", "libwrap0", "libnsl2", "rsync", "libpopt0")
_FETCH_S = 300
_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def require() -> None:
    """Nothing, if this machine can have hosts.

    Raises:
        NotInstallable: the caller is not root, or programs are missing; the message names all of them.
    """
    missing = sorted({package for name, package in _PRESENT.items() if shutil.which(name, path=_SEARCHED) is None})
    if missing:
        raise NotInstallable(f"install {', '.join(missing)} first (Debian: apt install {' '.join(missing)})")
    if os.geteuid() != 0:
        raise NotInstallable("hosts are network namespaces, which only root can make")
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        raise NotInstallable("namespaces cannot be made here: this seems to be a container without that right")


def install(folder: Path) -> Path:
    """A folder with `sshd` and `rsync`, each this machine's own or one that was unpacked. Safe to call again.

    Raises:
        NotInstallable: they are neither here nor can be fetched.
    """
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    for name, inside in _UNPACKED.items():
        if (programs / name).exists():
            continue
        found = shutil.which(name, path=_SEARCHED)
        script = f'exec {shlex.quote(found)} "$@"' if found else _unpacked(folder, inside)
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return programs


def _unpacked(folder: Path, inside: str) -> str:
    """The line that runs a program of the packages with the libraries that came with it."""
    root = folder / "root"
    if not (root / inside).is_file():
        _fetch(folder / "packages")
        for package in sorted((folder / "packages").glob("*.deb")):
            _run(folder, ["dpkg-deb", "-x", str(package), str(root)])
    libraries = ":".join(sorted({str(path.parent) for path in root.rglob("*.so.*")}))
    return f'LD_LIBRARY_PATH={shlex.quote(libraries)} exec {shlex.quote(str(root / inside))} "$@"'


def _fetch(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotInstallable("install sshd and rsync first: this is no Debian, so they cannot be fetched")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _run(folder, ["apt-get", "-qq", "download", *_PACKAGES])
    except NotInstallable:  # its lists are missing, or older than what the mirror has
        _run(folder, ["apt-get", "-qq", "update"])
        _run(folder, ["apt-get", "-qq", "download", *_PACKAGES])


def _run(folder: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_FETCH_S)
    if done.returncode != 0:
        raise NotInstallable(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-500:]}")
