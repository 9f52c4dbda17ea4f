"""Errors as RFC 9457 problem documents. Each says what to do; none says more than the caller may know."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cluster.errors import (
    Conflict,
    Corrupt,
    Forbidden,
    IntelGraphError,
    KeyReused,
    LostPosition,
    NotFound,
    Overloaded,
    Rejected,
    Retryable,
    TooCostly,
    TooLarge,
    Unauthenticated,
)
from serve_apps.api.edge import SAFE_HEADERS

_LOG = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[IntelGraphError], int, str], ...] = (
    (NotFound, 404, "Not found"),
    (Unauthenticated, 401, "No valid token"),
    (Forbidden, 403, "Not allowed"),
    (LostPosition, 410, "Position lost"),
    (KeyReused, 422, "Idempotency-Key used before with another body"),
    (TooLarge, 413, "Too large"),
    (TooCostly, 422, "Question too costly"),
    (Rejected, 400, "Bad request"),
    (Overloaded, 429, "Too much at once"),
    (Conflict, 409, "Changed meanwhile"),
    (Retryable, 503, "Not available now"),
    (Corrupt, 500, "Stored data is damaged"),
)
_TITLES = {401: "No valid token", 404: "Not found", 405: "Method not allowed", 413: "Too large"}


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **extra: Any) -> Response:
    """A problem document."""
    kind = title.lower().replace(" ", "-").replace("'", "")
    body = {"type": f"urn:intelgraph:problem:{kind}", "title": title, "status": status, "detail": detail, **extra}
    return Response(
        msgspec.json.encode(body), status, {"cache-control": "no-store", **(headers or {})}, "application/problem+json"
    )


def of_error(error: IntelGraphError) -> Response:
    """The problem document of an error of ours."""
    status, title = next(((s, t) for kind, s, t in _STATUS if isinstance(error, kind)), (500, "Failed"))
    headers: dict[str, str] = {}
    if isinstance(error, Retryable):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="intelgraph", error="invalid_token"'
    if isinstance(error, Corrupt):
        _LOG.error("stored data is damaged", exc_info=error)
        return problem(status, title, "what a shard holds cannot be trusted; an operator has to look at the logs")
    return problem(status, title, str(error), headers)


def install(app: FastAPI) -> None:
    """Every error of the application becomes a problem document."""
    app.add_exception_handler(IntelGraphError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, IntelGraphError)  # noqa: S101 (what it is registered for)
    return of_error(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    found = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
    return problem(400, "Bad request", "; ".join(found)[:1000])


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    title = _TITLES.get(error.status_code, "Failed")
    return problem(error.status_code, title, "see /openapi.json for what there is", error.headers)


async def _defect(_: Request, error: Exception) -> Response:
    _LOG.error("request failed", exc_info=error)
    # this answer is made outside of the middleware that gives all others their headers
    return problem(500, "Failed", "this is a defect of ours; the logs have its details", SAFE_HEADERS)
