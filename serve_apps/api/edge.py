"""The outermost layer: paths keep their percent-encoding until they are split, and every answer carries safe headers.

A case, type or id is one path segment, percent-encoded by the caller; it may hold `/` (`%2F`) and anything else. ASGI's
`path` is decoded already, so that `a%2Fb` would become two segments: the path is built anew from `raw_path`, each
segment encoded in one way, and `Segment` parameters decode it. `.` and `..` are removed by most clients, encoded or
not: /v1/entity and /v1/neighbors take the same names as query parameters.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, unquote, unquote_to_bytes

from pydantic import AfterValidator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_UNRESERVED = "-._~"
SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
"""Nothing of an answer is a page or loads anything, whatever names it holds."""
_HEADERS = tuple((name.encode(), value.encode()) for name, value in SAFE_HEADERS.items())


def encoded_path(raw: bytes) -> str:
    """The path with every segment percent-encoded in the same way, whatever way the caller chose."""
    return "/".join(quote(unquote_to_bytes(segment), safe=_UNRESERVED) for segment in raw.split(b"/"))


def _decoded(segment: str) -> str:
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8; percent-encode the UTF-8 bytes") from error


Segment = Annotated[str, AfterValidator(_decoded)]
"""A path parameter that may hold any character."""


class Edge:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw = scope.get("raw_path") or quote(scope["path"], safe="/").encode()
        scope = {**scope, "path": scope.get("root_path", "") + encoded_path(_below(raw, scope.get("root_path", "")))}

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, send_safely)


def _below(raw: bytes, root: str) -> bytes:
    path = raw.split(b"?", 1)[0]
    prefix = root.encode()
    return path.removeprefix(prefix) if prefix and path.startswith(prefix + b"/") else path
