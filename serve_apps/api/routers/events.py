"""Push: batches of events, acknowledged once they are durable in the log."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from actors.push import PushAnswer
from cluster.errors import Forbidden, Overloaded, Rejected
from serve_apps.api.auth import Context, WriterToken
from serve_apps.api.bodies import read_body
from serve_apps.api.positions import newest, token_of
from serve_apps.api.problems import problem
from serve_apps.api.replies import done
from serve_apps.api.services import PushGateway

PUSHES_MAX = 8
"""Bodies held in memory at a time."""
KEY_CHARS_MAX = 255
CONTENT_TYPES = {
    "application/json": "application/json",
    "application/x-ndjson": "application/x-ndjson",
    "application/jsonl": "application/x-ndjson",
}


def routes(gateway: PushGateway) -> APIRouter:
    """The routes of a gateway."""
    router = APIRouter()
    room = asyncio.Semaphore(PUSHES_MAX)

    @router.post("/events")
    async def push(
        request: Request,
        services: Context,
        caller: WriterToken,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Take a batch: a JSON array or JSON lines. 207 names the records that were not taken; 400 if none was."""
        if not caller.sources:
            raise Forbidden("the token names no source that it may write")
        content_type = _content_type(request)
        key = _key(idempotency_key)
        if room.locked():
            raise Overloaded("as many pushes as are taken at a time are under way; try again", 1.0)
        async with room:
            body = await read_body(request, services.settings.ingest.http_body_bytes)
            answer = await asyncio.to_thread(gateway.push, caller.tenant, caller.sources, body, content_type, key)
        return _reply(answer, newest(services.generations))

    return router


def _content_type(request: Request) -> str:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in CONTENT_TYPES:
        raise Rejected("Content-Type: send application/json or application/x-ndjson")
    return CONTENT_TYPES[given]


def _key(key: str | None) -> str | None:
    if key is not None and not (1 <= len(key) <= KEY_CHARS_MAX and key.isascii() and key.isprintable()):
        raise Rejected(f"Idempotency-Key: 1 to {KEY_CHARS_MAX} printable ASCII characters")
    return key


def _reply(answer: PushAnswer, generation: int) -> Response:
    rejected = [{"index": r.index, "errorClass": r.error_class, "reason": r.reason} for r in answer.rejected]
    if rejected and not answer.accepted:
        return problem(400, "Bad request", "no record was taken; `rejected` says why", rejected=rejected)
    # an answer that is given again is of this generation too: one of before that promised what is lost was forgotten
    position = token_of(answer.positions, generation)
    body = {"accepted": answer.accepted, "rejected": rejected, "position": position}
    return done({**body, "replayed": answer.replayed}, 207 if rejected else 200)
