"""Request bodies: their size is bounded while they arrive, whatever Content-Length says."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from cluster.errors import Rejected, TooLarge


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is larger, or says so. Rejected: it is compressed, or the caller went away.
    """
    too_large = TooLarge(f"the body is over {most_bytes} bytes; send several smaller batches")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Rejected("send the body as it is, without Content-Encoding")
    said = request.headers.get("content-length", "0")
    if not said.isascii() or not said.isdigit() or int(said[:20]) > most_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most_bytes:
                raise too_large
    except ClientDisconnect as error:
        raise Rejected("the body ended early") from error
    return bytes(body)
