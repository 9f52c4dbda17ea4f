"""Health and metrics: no token, nothing of any tenant."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from serve_apps.api.auth import Context
from serve_apps.api.replies import done

router = APIRouter()


@router.get("/healthz")
async def healthz() -> Response:
    """This process runs."""
    return done({"status": "ok"})


@router.get("/readyz")
async def readyz(services: Context) -> Response:
    """What this process depends on works: 200, or 503 and what does not."""
    parts = await asyncio.to_thread(services.health.ready)
    ready = all(state == "ok" for state in parts.values())
    body = {"status": "ok" if ready else "not ready", "parts": parts}
    return done(body, 200 if ready else 503, {} if ready else {"retry-after": "1"})


@router.get("/metrics")
async def metrics(services: Context) -> Response:
    """Metrics of the installation in Prometheus's text format."""
    body = await asyncio.to_thread(services.exposition.exposition)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
