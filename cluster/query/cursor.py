"""Page cursors: opaque to the caller, and worth nothing to another tenant or for another question.

`<base64url of JSON values>.<base64url of 16 bytes of HMAC-SHA256 over tenant, question and values>`
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from cluster.errors import Rejected
from cluster.query.ir import CasesQuery, NeighboursQuery, SearchQuery

_MAC_BYTES = 16
CURSOR_CHARS_MAX = 12_000
Paged = NeighboursQuery | SearchQuery | CasesQuery
_CHANGES = frozenset({"after", "limit"})


def question_of(query: Paged) -> str:
    """What a cursor is for: every field of the question but its place and page size."""
    names = [n for n in query.__slots__ if n not in _CHANGES and n != "tenant"]
    return repr((type(query).__name__, [(n, getattr(query, n)) for n in names]))


class Cursors:
    """Seals and opens cursors with one secret, which all replicas share. Pure; safe for any thread."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("the cursor secret needs 32 bytes")
        self._secret = secret

    def _mac(self, tenant: str, question: str, body: bytes) -> bytes:
        parts = [tenant.encode(), question.encode("utf-8", "surrogatepass"), body]
        sized = b"".join(len(p).to_bytes(8, "big") + p for p in parts)
        return hmac.new(self._secret, sized, hashlib.sha256).digest()[:_MAC_BYTES]

    def seal(self, query: Paged, values: Sequence[Any]) -> str:
        """The text of a place in the answer of a question."""
        text = json.dumps(list(values), separators=(",", ":"), ensure_ascii=False)  # escapes would not fit a URL
        body = text.encode("utf-8", "surrogatepass")
        mac = self._mac(query.tenant, question_of(query), body)
        return f"{_encode(body)}.{_encode(mac)}"

    def open(self, query: Paged, text: str) -> list[Any]:
        """The values of a cursor of this very question and tenant.

        Raises:
            Rejected: it is not; whatever the reason, the message is the same.
        """
        try:
            if len(text) > CURSOR_CHARS_MAX:
                raise ValueError
            body, mac = (_decode(part) for part in text.split("."))
            if not hmac.compare_digest(mac, self._mac(query.tenant, question_of(query), body)):
                raise ValueError
            values: list[Any] = json.loads(body)
        except (ValueError, TypeError, binascii.Error) as error:
            raise Rejected("cursor: not one of this question; start again without it") from error
        return values


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(data) != text:
        raise ValueError("another way to write it")
    return data
