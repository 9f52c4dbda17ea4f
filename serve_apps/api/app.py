"""The application factory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serve_apps.api import problems
from serve_apps.api.edge import Edge
from serve_apps.api.routers import events, operate, reads, status
from serve_apps.api.services import Services

VERSION = "1"


def build(services: Services) -> FastAPI:
    """The ASGI application over these services; it closes the fan-out when it ends."""
    app = FastAPI(
        title="IntelGraph",
        version=VERSION,
        description="Questions to the investigation graph, and events into it.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    problems.install(app)
    app.include_router(reads.router, prefix="/v1", tags=["graph"])
    app.include_router(operate.routes(services), prefix="/v1", tags=["system"])
    if services.push is not None:
        app.include_router(events.routes(services.push), prefix="/v1", tags=["events"])
    app.include_router(status.router, tags=["status"])
    app.add_middleware(Edge)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    services: Services = app.state.services
    services.fanout.close()
