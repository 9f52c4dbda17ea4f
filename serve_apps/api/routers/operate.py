"""The system itself: overlays, snapshots, shards, sources, dead letters, conservation. Only parts that are there."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from cluster.errors import Rejected
from cluster.query.validate import case_name, page_limit
from serve_apps.api.auth import Context, OperatorToken, ReaderToken
from serve_apps.api.bodies import read_body
from serve_apps.api.edge import Segment
from serve_apps.api.replies import done, reply
from serve_apps.api.routers.reads import limits_of
from serve_apps.api.services import (
    Conservation,
    DeadLetters,
    OverlayReader,
    Services,
    ShardCatalog,
    SnapshotCatalog,
    SourceCatalog,
)

REPLAY_BODY_BYTES = 256 << 10
REPLAY_MAX = 10_000
ID_CHARS_MAX = 200


class Replay(msgspec.Struct, forbid_unknown_fields=True):
    """What to replay: these dead letters, or with `ids` absent all, up to `limit`."""

    ids: list[str] | None = None
    dry_run: bool = False
    limit: int = 1_000


def routes(services: Services) -> APIRouter:
    """The routes of the parts that these services have."""
    router = APIRouter()
    if services.overlays is not None:
        _overlays(router, services.overlays)
    if services.snapshots is not None:
        _snapshots(router, services.snapshots)
    if services.shards is not None:
        _shards(router, services.shards)
    if services.sources is not None:
        _sources(router, services.sources)
    if services.dead_letters is not None:
        _dead_letters(router, services.dead_letters)
    if services.conservation is not None:
        _conservation(router, services.conservation)
    return router


def _overlays(router: APIRouter, overlays: OverlayReader) -> None:
    @router.get("/overlays/{name}/top")
    async def top(
        request: Request,
        services: Context,
        caller: ReaderToken,
        name: Segment,
        case: Annotated[str | None, Query(description="best of one case; of the tenant without it")] = None,
        limit: int | None = None,
    ) -> Response:
        """The best entities of an overlay, with `asOf`."""
        limits = limits_of(services)
        if not 1 <= len(name) <= 64 or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise Rejected("overlay: 1 to 64 letters, digits, '-' or '_'")
        checked = None if case is None else case_name(limits, case)
        most = page_limit(limits, limit)
        return reply(request, await asyncio.to_thread(overlays.top, caller.tenant, name, checked, most))


def _snapshots(router: APIRouter, catalog: SnapshotCatalog) -> None:
    @router.get("/snapshots")
    async def snapshots(request: Request, caller: ReaderToken) -> Response:
        """Snapshots, newest first."""
        return reply(request, {"items": await asyncio.to_thread(catalog.snapshots, caller.tenant)})


def _shards(router: APIRouter, catalog: ShardCatalog) -> None:
    @router.get("/shards")
    async def shards(request: Request, caller: OperatorToken) -> Response:
        """The shards: kind, address, state, how many buckets each owns, and how far it is behind the log."""
        return reply(request, {"items": await asyncio.to_thread(catalog.shards)})


def _sources(router: APIRouter, catalog: SourceCatalog) -> None:
    @router.get("/sources")
    async def sources(request: Request, caller: ReaderToken) -> Response:
        """The tenant's sources."""
        return reply(request, {"items": await asyncio.to_thread(catalog.sources, caller.tenant)})


def _dead_letters(router: APIRouter, letters: DeadLetters) -> None:
    @router.get("/dlq")
    async def page(
        request: Request,
        services: Context,
        caller: OperatorToken,
        limit: int | None = None,
        after: Annotated[str | None, Query(max_length=ID_CHARS_MAX)] = None,
    ) -> Response:
        """The tenant's dead letters, oldest first."""
        most = page_limit(limits_of(services), limit)
        items, following = await asyncio.to_thread(letters.page, caller.tenant, most, after)
        return reply(request, {"items": items, "next": following})

    @router.get("/dlq/{letter}")
    async def one(request: Request, caller: OperatorToken, letter: Segment) -> Response:
        """One dead letter, and what of it breaks which part of its schema, or which rule."""
        if len(letter) > ID_CHARS_MAX:
            raise Rejected(f"letter: at most {ID_CHARS_MAX} characters")
        return reply(request, await asyncio.to_thread(letters.letter, caller.tenant, letter))

    @router.post("/dlq/replay")
    async def replay(request: Request, caller: OperatorToken) -> Response:
        """Send dead letters through the stages again; safe to repeat."""
        asked = _replay(await read_body(request, REPLAY_BODY_BYTES))
        who = (caller.tenant, caller.subject)
        return done(await asyncio.to_thread(letters.replay, *who, asked.ids, asked.dry_run, asked.limit))


def _replay(body: bytes) -> Replay:
    try:
        asked = msgspec.json.decode(body, type=Replay)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Rejected(f'replay: send {{"ids": [...], "dry_run": true, "limit": 100}}: {error}') from error
    ids = asked.ids or []
    if not 1 <= asked.limit <= REPLAY_MAX or len(ids) > REPLAY_MAX or any(len(id) > ID_CHARS_MAX for id in ids):
        raise Rejected(f"replay: at most {REPLAY_MAX} at a time")
    return asked


def _conservation(router: APIRouter, conservation: Conservation) -> None:
    @router.get("/audit")
    async def audit(request: Request, caller: OperatorToken) -> Response:
        """Whether every accepted record of the tenant has exactly one outcome."""
        return reply(request, await asyncio.to_thread(conservation.audit, caller.tenant))
