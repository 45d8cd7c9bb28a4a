"""aiohttp's WebSocket, with this protocol's limits and close codes.

Invariant: whoever closes says why first; the close frame is never overtaken by a reset of ours
while the client is still sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from factorychain_bridge.edge.outputs import SessionLimits

SUBPROTOCOL = "factorychain.v1.json"


class Transport(web.WebSocketResponse):
    """aiohttp's, with the close codes of this protocol; closing is the socket's business."""

    def __init__(self, limits: SessionLimits) -> None:
        super().__init__(
            autoclose=False,
            autoping=False,
            heartbeat=limits.heartbeat_s,
            protocols=(SUBPROTOCOL,),
            compress=False,
            max_msg_size=limits.frame_max_bytes + 1,
            writer_limit=1,  # after each frame, wait if the client does not keep up
        )
        self.on_too_big: Callable[[], None] = lambda: None
        self._tcp: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._tcp = request.transport
        return await super().prepare(request)

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        if code == WSCloseCode.MESSAGE_TOO_BIG:
            # aiohttp would close with its own code, and before it has read the rest of the frame: the
            # reset that follows could overtake the close frame.
            self.on_too_big()
            return True
        return await super().close(code=code, message=message, drain=drain)

    async def say_close(self, code: int, reason: str) -> None:
        """Send the close frame, and wait until it is under way."""
        await self.send_frame(code.to_bytes(2, "big") + reason.encode(), WSMsgType.CLOSE)

    def abort(self) -> None:
        """Cut the connection, whatever has not been sent."""
        if self._tcp is not None:
            self._tcp.abort()
