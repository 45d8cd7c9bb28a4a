"""Opening one WebSocket."""

from __future__ import annotations

import asyncio

import aiohttp

from factorychain.client.connecting import away

SUBPROTOCOL = "factorychain.v1.json"
FRAME_MAX_BYTES = 16 * 1024 * 1024
HEARTBEAT_S = 10.0
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0


class Unreachable(Exception):
    """It did not work now; it may later. The text says why."""


async def dial(http: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    """A new connection.

    Raises:
        Unreachable: It did not work now.
        ChainDegraded: It never will: what answers there is no edge, or does not let this client in.
    """
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            return await http.ws_connect(
                url,
                protocols=(SUBPROTOCOL,),
                heartbeat=HEARTBEAT_S,
                max_msg_size=FRAME_MAX_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
    except aiohttp.WSServerHandshakeError as error:
        cause = f"the server answers {error.status}"
        if error.status < 500 and error.status != 429:
            raise away(url, cause) from error
        raise Unreachable(cause) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
