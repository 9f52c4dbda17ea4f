"""libgomp for FalkorDB where the system has none: the copy that another wheel brings along.

The module is linked against `libgomp.so.1`, which a minimal Debian lacks, and does not load without it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from cluster.embedded.paths import private_folder
from cluster.errors import Rejected

_NAME = "libgomp.so.1"
_TRIAL = f"import ctypes; ctypes.CDLL({_NAME!r})"
_TRIAL_S = 30.0


def library_folder(folder: Path, force: bool = False) -> Path | None:
    """A folder for LD_LIBRARY_PATH in which `libgomp.so.1` is found, or None where the system has its own.

    Idempotent. Takes some 30 ms.

    Args:
        folder: where the link is put if one is needed.
        force: do not ask the system.

    Raises:
        Rejected: neither the system nor a wheel has it.
    """
    if not force and _system_has_it():
        return None
    link = private_folder(folder) / _NAME
    target = bundled()
    if not link.is_symlink() or link.readlink() != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return folder


def bundled() -> Path:
    """The libgomp inside the networkit wheel.

    Raises:
        Rejected: it is not there; the message says what to install.
    """
    try:
        listed = files("networkit") or []
    except PackageNotFoundError:
        listed = []
    for entry in listed:
        if entry.parent.name == "networkit.libs" and entry.name.startswith("libgomp"):
            path = Path(str(entry.locate())).resolve()
            if path.is_file():
                return path
    raise Rejected("FalkorDB needs libgomp.so.1: install your system's libgomp package (Debian: apt install libgomp1)")


def _system_has_it() -> bool:
    """Asks the dynamic loader itself, in a process of its own: ldconfig may be missing, and its cache may lie."""
    trial = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _TRIAL], capture_output=True, timeout=_TRIAL_S, check=False, env={}
    )
    return trial.returncode == 0
