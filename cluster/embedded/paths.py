"""Private folders, and where sockets go when the state directory's path is too long for one."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from cluster.errors import Rejected

SOCKET_BYTES_MAX = 107
"""`sun_path` holds 108 bytes with its end mark on Linux."""

_SOCKET_NAME_BYTES = 24
_RAY_BYTES = len("ray/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_TaskEventsHead")
"""What Ray appends for its longest socket, that of a part of its dashboard; the last number is a process id."""


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
    return _folder_with_room(state_dir, short_root, _SOCKET_NAME_BYTES)


def ray_folder(state_dir: Path, short_root: Path = Path("/tmp")) -> Path:  # noqa: S108 the folder around it is private
    """Where Ray keeps its sessions: `ray` in a folder as `socket_folder`'s, with room for Ray's longer names.

    Raises:
        Rejected: as `socket_folder`.
    """
    return _folder_with_room(state_dir, short_root, _RAY_BYTES) / "ray"


def _folder_with_room(state_dir: Path, short_root: Path, name_bytes: int) -> Path:
    state_dir = state_dir.resolve()
    folder = state_dir / "run"
    if not _fits(folder, name_bytes):
        digest = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:8]
        folder = short_root / f"ig-{os.getuid()}-{digest}"
    if not _fits(folder, name_bytes):
        raise Rejected(f"{folder} is too long for a unix socket; choose a shorter state directory")
    return private_folder(folder)


def _fits(folder: Path, name_bytes: int) -> bool:
    return len(os.fsencode(folder)) + 1 + name_bytes <= SOCKET_BYTES_MAX
