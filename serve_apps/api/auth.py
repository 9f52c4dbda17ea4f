"""The caller of a request: `Authorization: Bearer …` → Principal with the scope that the route needs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from cluster.errors import Forbidden, Unauthenticated
from serve_apps.api.services import Services
from serve_apps.tokens import Principal


async def services_of(request: Request) -> Services:
    """What the application was built with. A coroutine: FastAPI would run a function on another thread."""
    return _services(request)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _principal(request: Request) -> Principal:
    given = request.headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("send one header `Authorization: Bearer TOKEN`; `intelgraph token` makes one")
    return _services(request).tokens.verify(token.strip(" "))


def _needs(principal: Principal, scope: str) -> Principal:
    if scope not in principal.scopes:
        raise Forbidden(f"the token lacks the scope `{scope}`")
    return principal


async def _reader(request: Request) -> Principal:
    return _needs(_principal(request), "read")


async def _writer(request: Request) -> Principal:
    return _needs(_principal(request), "ingest")


async def _operator(request: Request) -> Principal:
    return _needs(_principal(request), "operate")


Context = Annotated[Services, Depends(services_of)]
ReaderToken = Annotated[Principal, Depends(_reader)]
WriterToken = Annotated[Principal, Depends(_writer)]
OperatorToken = Annotated[Principal, Depends(_operator)]
