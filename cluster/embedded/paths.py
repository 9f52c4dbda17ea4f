"""Private folders, and where sockets go when the state directory's path is too long for one."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from cluster.errors import Rejected

SOCKET_BYTES_MAX = 104
"""`sun_path` holds 108 bytes with its end mark on Linux; a few are left for names of sockets."""

_SOCKET_NAME_BYTES = 24


def private_folder(path: Path) -> Path:
    """Creates `path` with mode 0700 unless it is there, and makes sure that it is this user's alone.

    Raises:
        Rejected: it is a link, not a folder, or another user's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Rejected(f"{path} has to be a folder; move what is there out of the way")
    if found.st_uid != os.getuid():
        raise Rejected(f"{path} belongs to user id {found.st_uid}; choose another state directory")
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def socket_folder(state_dir: Path, short_root: Path = Path("/tmp")) -> Path:  # noqa: S108 the folder itself is private
    """The 0700 folder of a state directory's sockets; the same for every process that asks.

    It is `run` in the state directory, or, when that path is too long for a socket, a folder in /tmp whose name has the
    user id and a hash of the path. Not below XDG_RUNTIME_DIR: that goes away when its user logs out.

    Raises:
        Rejected: the folder is another user's, or even the short path is too long.
    """
    state_dir = state_dir.resolve()
    folder = state_dir / "run"
    if not _fits(folder):
        digest = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]
        folder = short_root / f"intelgraph-{os.getuid()}-{digest}"
    if not _fits(folder):
        raise Rejected(f"{folder} is too long for a unix socket; choose a shorter state directory")
    return private_folder(folder)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder)) + 1 + _SOCKET_NAME_BYTES <= SOCKET_BYTES_MAX
