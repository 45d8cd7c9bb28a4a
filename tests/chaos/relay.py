"""A TCP relay that can be cut: it stands between two parts of a chain and passes bytes on.

Invariant: while it is whole every byte that came in goes out, in order; while it is cut there is no
connection; while it is silent connections stay and nothing passes, as when a network loses packets.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast


class Relay:
    """Passes connections on to one target, from any number of ports."""

    def __init__(self, target: str) -> None:
        """`target`: `host:port` or `unix:/path`; nobody needs to listen there yet."""
        self._target = target
        self._servers: list[asyncio.Server] = []
        self._ends: set[_End] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self._is_cut = False

    @property
    def connections(self) -> int:
        """How many are open through it."""
        return sum(1 for each in self._ends if each.near)

    async def listen(self) -> str:
        """Take connections on one more port of the loopback interface; `host:port`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _End(self, near=True), "127.0.0.1", 0)
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def cut(self) -> int:
        """Break every connection and take no other; how many there were."""
        broken = self.connections
        self._is_cut = True
        for each in list(self._ends):
            each.transport.abort()
        return broken

    def silence(self) -> int:
        """Let nothing pass and break nothing; how many connections hang."""
        self._whole.clear()
        for each in self._ends:
            each.hold()
        return self.connections

    def heal(self) -> None:
        """Everything passes again, what came meanwhile first."""
        self._is_cut = False
        self._whole.set()
        for each in list(self._ends):
            each.let_go()

    async def stop(self) -> None:
        """End it with every connection."""
        for server in self._servers:
            server.close()
        self.cut()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    @property
    def passes(self) -> bool:
        """Whether bytes go through now."""
        return self._whole.is_set()

    def joined(self, end: _End) -> None:
        """An end is open; the caller's is given its other end."""
        if self._is_cut:
            end.transport.abort()
            return
        self._ends.add(end)
        if end.near:
            task = asyncio.get_running_loop().create_task(self._connect(end))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def left(self, end: _End) -> None:
        """An end is gone."""
        self._ends.discard(end)

    async def _connect(self, near: _End) -> None:
        await self._whole.wait()
        loop = asyncio.get_running_loop()
        far = _End(self, near=False)
        try:
            if self._target.startswith("unix:"):
                await loop.create_unix_connection(lambda: far, self._target.removeprefix("unix:"))
            else:
                host, _, port = self._target.rpartition(":")
                await loop.create_connection(lambda: far, host, int(port))
        except OSError:
            near.transport.abort()
            return
        near.join(far)


class _End(asyncio.Protocol):
    """One side of a connection; what comes here leaves at the other."""

    def __init__(self, relay: Relay, *, near: bool) -> None:
        self.near = near
        self.other: _End | None = None
        self.gone = False
        self._relay = relay
        self._full = False  # the other side takes no more for now
        self._early = bytearray()  # came before there was another side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.hold()  # until there are two
        self._relay.joined(self)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        elif not self.other.gone:
            self.other.transport.write(data)

    def join(self, other: _End) -> None:
        """From now on what comes here leaves there."""
        self.other, other.other = other, self
        if self.gone or other.gone:
            (other if self.gone else self).transport.abort()
            return
        for one, far in ((self, other), (other, self)):
            far.transport.write(one._early)
            one.let_go()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other._full = True
            self.other.hold()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other._full = False
            self.other.let_go()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._relay.left(self)
        if self.other is None or self.other.gone:
            return
        if exc is not None:
            self.other.transport.abort()
        else:  # what was said before a goodbye still leaves
            self.other.transport.close()

    def hold(self) -> None:
        """Read nothing more."""
        with contextlib.suppress(RuntimeError):
            self.transport.pause_reading()

    def let_go(self) -> None:
        """Read on, unless something else holds it."""
        if self.other is None or self._full or not self._relay.passes or self.gone:
            return
        with contextlib.suppress(RuntimeError):
            self.transport.resume_reading()
