"""Passwords of the embedded servers: generated once for a state directory, kept in a file that only the user reads."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from cluster.embedded.paths import private_folder
from cluster.errors import Corrupt

_APPLICATION = "redis_application"
_OPERATOR = "redis_operator"


@dataclass(frozen=True, slots=True)
class Passwords:
    """One pair for all servers of a state directory.

    Args:
        application: Redis's `default` user: data commands, nothing that empties, configures or stops a server.
        operator: the user `operator`: everything; for the supervisor alone.
    """

    application: SecretStr
    operator: SecretStr


def load_passwords(secrets_file: Path) -> Passwords:
    """Reads the passwords, after it has generated them where they are missing. Other entries of the file stay.

    Safe to call from several processes at once.

    Raises:
        Corrupt: the file is not a JSON object of strings.
    """
    private_folder(secrets_file.parent)
    lock = os.open(secrets_file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _read(secrets_file)
        missing = [name for name in (_APPLICATION, _OPERATOR) if name not in known]
        if missing:
            known |= {name: secrets.token_urlsafe(32) for name in missing}
            write_private(secrets_file, json.dumps(known, indent=2, sort_keys=True) + "\n")
    finally:
        os.close(lock)
    return Passwords(SecretStr(known[_APPLICATION]), SecretStr(known[_OPERATOR]))


def write_private(path: Path, text: str) -> None:
    """Replaces `path` as a whole, mode 0600 from its first byte on, and durable when it returns."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Corrupt(f"{path} is not JSON; restore it: the servers' passwords are in it") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Corrupt(f"{path} has to be a JSON object of strings; restore it: the servers' passwords are in it")
    return found
