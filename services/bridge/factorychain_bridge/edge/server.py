"""The edge as a component: listens, serves sockets and HTTP, and drains.

Invariant: a drain tells every socket when to come back, spread out, before it closes them one after
the other with 1012; new connections are refused from its beginning.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from factorychain._core.component import TaskSet
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.settings import BridgeSettings
from factorychain._core.telemetry import up_down_counter
from factorychain.errors import ChainDegraded
from factorychain_bridge.edge.engine import Engine
from factorychain_bridge.edge.feeds import Hub
from factorychain_bridge.edge.http import Readiness, Routes
from factorychain_bridge.edge.limits import ConnectionCounts
from factorychain_bridge.edge.operations import Operations
from factorychain_bridge.edge.origins import Origins
from factorychain_bridge.edge.outputs import SessionLimits
from factorychain_bridge.edge.parts import Connection, Shared, Verifier
from factorychain_bridge.edge.session import Session
from factorychain_bridge.edge.socket import EdgeSocket
from factorychain_bridge.edge.transport import Transport

log = get_logger(__name__)

DRAIN_S_PER_SOCKET = 0.005
RECONNECT_MS_PER_SOCKET = 10
RECONNECT_MIN_MS, RECONNECT_MAX_MS = 200, 30_000

_sockets = up_down_counter("factorychain.edge.sockets", "WebSockets that are open now")


class EdgeServer:
    """HTTP and WebSockets for clients. A component."""

    name = "edge"

    def __init__(
        self,
        settings: BridgeSettings,
        *,
        verifier: Verifier,
        hub: Hub,
        connect: Callable[[Principal], Awaitable[Connection]],
        engine: Engine,
        readiness: Callable[[], Awaitable[Readiness]],
        mint: Callable[[Principal, float], str] | None = None,
        limits: SessionLimits | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`mint` makes development tokens; give it in development mode only."""
        self._settings = settings
        self._limits = limits or limits_of(settings)
        self._jitter = jitter
        self._tasks = TaskSet(self.name)
        self._open: set[EdgeSocket] = set()
        self._runner: web.AppRunner | None = None
        self._draining = False
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._address = ""
        counts = ConnectionCounts(self._limits.sockets_per_user)
        self._shared = Shared(verifier, hub, connect, Operations(engine), counts, self._tasks)
        development = settings.mode == "development"
        self._routes = Routes(
            origins=Origins(settings.allowed_origins, loopback=development),
            readiness=readiness,
            serve_socket=self._serve,
            mint=mint if development else None,
        )

    # --- component -----------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        return self._runner is not None and self._tasks.healthy

    @property
    def address(self) -> str:
        """Where it listens, as a URL, with the real port; empty before `start`."""
        return self._address

    @property
    def sockets(self) -> int:
        """How many are open."""
        return len(self._open)

    async def start(self) -> None:
        self._runner = web.AppRunner(
            self._routes.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        await self._runner.setup()
        listen = self._settings.edge_listen
        if listen.startswith("unix:"):
            path = listen.removeprefix("unix:").removeprefix("//")
            await web.UnixSite(self._runner, path).start()
            self._address = listen
        else:
            host, _, port = listen.rpartition(":")
            await web.TCPSite(self._runner, host.strip("[]"), int(port), backlog=1024).start()
            real = self._runner.addresses[0]
            self._address = f"http://{host}:{real[1]}"
        log.info("the edge is listening", address=self._address)

    async def stop(self) -> None:
        """Drain, then let go of everything. May be called twice."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        await self._drain()
        await self._tasks.close()
        await runner.cleanup()

    async def _drain(self) -> None:
        self._draining = True
        sockets = list(self._open)
        spread_ms = min(RECONNECT_MAX_MS, RECONNECT_MIN_MS + RECONNECT_MS_PER_SOCKET * len(sockets))
        for each in sockets:
            each.notify_drain(round(RECONNECT_MIN_MS + self._jitter() * spread_ms))
        pause_s = min(DRAIN_S_PER_SOCKET, self._settings.drain_timeout_s / 2 / max(1, len(sockets)))
        for each in sockets:
            each.drain()
            await asyncio.sleep(pause_s)
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s / 4):
                await self._all_closed.wait()
        except TimeoutError:
            log.warning("sockets were cut at the end of the drain", sockets=len(self._open))

    # --- sockets -------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._draining:
            raise ChainDegraded("bridge", message="this replica is stopping; connect again")
        transport = Transport(self._limits)
        await transport.prepare(request)
        await self.serve(transport)
        return transport

    async def serve(self, transport: Transport) -> None:
        """One socket, from the end of its handshake to its own end."""
        socket = EdgeSocket(
            transport, Session(self._limits, time.time, time.monotonic), self._shared
        )
        self._open.add(socket)
        self._all_closed.clear()
        _sockets.add(1)
        try:
            await socket.run()
        finally:
            self._open.discard(socket)
            if not self._open:
                self._all_closed.set()
            _sockets.add(-1)


def limits_of(settings: BridgeSettings) -> SessionLimits:
    """The limits of a socket as they are configured."""
    return SessionLimits(
        frame_max_bytes=settings.frame_max_bytes,
        frame_max_bytes_unauthenticated=settings.frame_max_bytes_unauthenticated,
        frames_per_s=settings.frames_per_s,
        frames_burst=settings.frames_burst,
        subscriptions=settings.subscriptions_per_socket,
        sockets_per_user=settings.sockets_per_user,
        queue_bytes=settings.socket_queue_bytes,
        auth_timeout_s=settings.auth_timeout_s,
        heartbeat_s=settings.heartbeat_s,
    )
