"""An edge with everything around it, and a client that sees every frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from factorychain._core.ids import Principal
from factorychain_bridge.edge.server import EdgeServer
from tests.integration.edge.engine import FakeEngine
from tests.integration.edge.hub import FakeHub
from tests.integration.edge.people import A, token


@dataclass
class Chain:
    """An edge with everything around it."""

    edge: EdgeServer
    hub: FakeHub
    engine: FakeEngine
    http: aiohttp.ClientSession
    ready: bool = True
    peers: list[Peer] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.edge.address

    async def connect(self, **options: Any) -> Peer:
        options.setdefault("protocols", ("factorychain.v1.json",))
        options.setdefault("max_msg_size", 0)
        ws = await self.http.ws_connect(f"{self.url}/v1/ws", **options)
        peer = Peer(ws)
        self.peers.append(peer)
        return peer

    async def login(self, principal: Principal = A, **options: Any) -> Peer:
        peer = await self.connect(**options)
        await peer.send(op="auth", token=token(principal))
        assert (await peer.next())["op"] == "ready"
        return peer


class Peer:
    """A client that sees every frame."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def send(self, **frame: Any) -> None:
        await self.ws.send_str(orjson.dumps(frame).decode())

    async def next(self) -> dict[str, Any]:
        message = await self.ws.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.TEXT, (message, self.ws.close_code)
        found: dict[str, Any] = orjson.loads(message.data)
        return found

    async def ask(self, **frame: Any) -> dict[str, Any]:
        await self.send(**frame)
        return await self.next()

    async def closed(self) -> tuple[int | None, str, list[dict[str, Any]]]:
        """Reads on until the close: its code, its reason, and the frames before it."""
        frames = []
        while True:
            message = await self.ws.receive(timeout=8)
            if message.type is aiohttp.WSMsgType.TEXT:
                frames.append(orjson.loads(message.data))
            else:
                return self.ws.close_code, str(message.extra or ""), frames
