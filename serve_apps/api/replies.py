"""Answers: JSON with an ETag over its bytes, 304 where the caller has them already."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

_encoder = msgspec.json.Encoder()


def etag_of(body: bytes) -> str:
    """A strong ETag: equal bytes, equal tag."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def reply(request: Request, answer: Any, status: int = 200) -> Response:
    """The answer to a read; never stored by shared caches."""
    body = _encoder.encode(answer)
    tag = etag_of(body)
    headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "authorization"}
    if _matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, "application/json")


def done(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """The answer to a change."""
    merged = {"cache-control": "no-store", **(headers or {})}
    return Response(_encoder.encode(answer), status, merged, "application/json")


def _matches(given: str | None, tag: str) -> bool:
    if given is None:
        return False
    return given.strip() == "*" or any(one.strip().removeprefix("W/") == tag for one in given.split(","))
