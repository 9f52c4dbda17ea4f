"""What never reaches a log: values of fields that name a secret, and passwords inside addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretBytes, SecretStr

HIDDEN = "[hidden]"
_DEPTH_MAX = 6

_SECRET_NAME = re.compile(
    r"passw|pwd$|secret|(?:^|_)token$|bearer|authori[sz]ation|cookie|api_?key|private_?key|credential|signature",
    re.IGNORECASE,
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]+(?=@)")
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")


def redact(value: Any, name: str = "", depth: int = 0) -> Any:
    """`value` as something that JSON has, without secrets; `name` is the field that holds it.

    Never raises: what is of no known type becomes its text.
    """
    if name and _SECRET_NAME.search(name.replace("-", "_")) and value is not None:
        return HIDDEN
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return HIDDEN
    if depth >= _DEPTH_MAX:
        return "[too deep]"
    if isinstance(value, Mapping):
        return {str(key): redact(item, str(key), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, "", depth + 1) for item in value]
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """`text` without passwords of addresses and without signed tokens."""
    return _JWT.sub(HIDDEN, _IN_ADDRESS.sub(HIDDEN, text))
