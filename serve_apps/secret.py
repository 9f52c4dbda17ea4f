"""One secret of an installation, in a file of mode 0600 that every process of it reads."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cluster.embedded.passwords import write_private
from cluster.embedded.paths import private_folder
from cluster.errors import Corrupt

_BYTES = 32


def cursor_secret(state_dir: Path) -> bytes:
    """The secret that seals page cursors; made once. Safe to call from several processes at once.

    Raises:
        Corrupt: the file holds no secret; delete it, cursors that are out become void.
    """
    path = private_folder(state_dir) / "cursor.key"
    if not path.exists():
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        write_private(aside, secrets.token_hex(_BYTES))
        try:
            with suppress(FileExistsError):
                os.link(aside, path)
        finally:
            aside.unlink()
    try:
        secret = bytes.fromhex(path.read_text())
    except ValueError as error:
        raise Corrupt(f"{path} holds no secret; delete it and start again") from error
    if len(secret) != _BYTES:
        raise Corrupt(f"{path} holds no secret of {_BYTES} bytes; delete it and start again")
    return secret
