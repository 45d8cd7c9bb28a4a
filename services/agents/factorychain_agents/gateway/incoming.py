"""Reading what clients in runs send."""

from __future__ import annotations

from aiohttp import web

from factorychain_agents.gateway.refusals import Refusal


async def read_body(request: web.BaseRequest, most_bytes: int) -> bytes:
    """The whole body.

    Raises:
        Refusal: it is larger than it may be.
    """
    too_large = Refusal(
        413, "MODEL_REQUEST_INVALID", f"The request has more than {most_bytes} bytes"
    )
    if (request.content_length or 0) > most_bytes:
        raise too_large
    parts, length = [], 0
    async for data in request.content.iter_any():
        parts.append(data)
        length += len(data)
        if length > most_bytes:
            raise too_large
    return b"".join(parts)


def key_of(request: web.BaseRequest) -> str:
    """The key that the request came with, as any vendor's client sends it; empty if there is none."""
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and key:
        return key.strip()
    return request.headers.get("x-api-key", "")
