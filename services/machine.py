"""What this machine has: a Java of some version, programs, packages of Debian."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from services.spec import NotInstallable

JAVA_LEAST = 21
_VERSION = re.compile(r'version "(\d+)')


def _candidates() -> list[Path]:
    homes = [Path(home) for name in ("JAVA_HOME", "JDK_HOME") if (home := os.environ.get(name))]
    homes += sorted(Path("/usr/lib/jvm").glob("*"), reverse=True) if Path("/usr/lib/jvm").is_dir() else []
    found = [home / "bin" / "java" for home in homes]
    on_path = shutil.which("java")
    return [*found, *([Path(on_path)] if on_path else [])]


@cache
def java() -> str:
    """A JDK's `java` of version 21 or newer: Neo4j and the registry want it, and a source file is run with it.

    Raises:
        NotInstallable: there is none.
    """
    for program in _candidates():
        if not program.is_file() or not program.with_name("javac").exists():
            continue
        said = subprocess.run([str(program), "-version"], capture_output=True, text=True, check=False).stderr
        version = _VERSION.search(said)
        if version and int(version[1]) >= JAVA_LEAST:
            return str(program)
    raise NotInstallable(f"no JDK of version {JAVA_LEAST} or newer; install one and name its folder in JAVA_HOME")


def program(name: str, package: str = "") -> str:
    """The path of a program; its Debian package is installed where it is missing and the caller is root.

    Raises:
        NotInstallable: it is not there and cannot be installed.
    """
    found = shutil.which(name)
    if found is None and package:
        apt_install(package)
        found = shutil.which(name)
    if found is None:
        hint = f"; install {package} (Debian: apt install {package})" if package else ""
        raise NotInstallable(f"the program {name} is not on this machine{hint}")
    return found


def apt_install(package: str) -> None:
    """Install a package of Debian.

    Raises:
        NotInstallable: the caller is not root, or this is no Debian, or the package cannot be had.
    """
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise NotInstallable(f"{package} is not installed; install it first (Debian: apt install {package})")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        done = subprocess.run([apt, *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotInstallable(f"apt-get {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
