"""Distance: what is sent arrives later, as over a slow line, for streams of sockets and for processes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 64 * 1024


class Delay:
    """Relays with a delay, any number of connections. `stop` ends them all."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._unjoined: set[socket.socket] = set()

    async def listen(self, path: Path, target: Path) -> str:
        """Listen at `path` for connections to `target`; the gRPC address."""

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_unix_connection(str(target))
                self._connect(reader, far_writer)
                self._connect(far_reader, writer)
                return
            writer.close()

        self._servers.append(await asyncio.start_unix_server(relay, str(path)))
        return f"unix:{path}"

    def away(self, end: socket.socket) -> socket.socket:
        """A socket that is `end`, but further away; `end` belongs to the relay from now on."""
        near, relayed = socket.socketpair()
        self._unjoined |= {relayed, end}
        _ = self._spawn(self._join(relayed, end))
        return near

    async def stop(self) -> None:
        """End everything."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._unjoined:
            each.close()

    async def _join(self, one: socket.socket, other: socket.socket) -> None:
        one_reader, one_writer = await self._opened(one)
        try:
            other_reader, other_writer = await self._opened(other)
        except BaseException:
            one_writer.close()
            raise
        self._connect(one_reader, other_writer)
        self._connect(other_reader, one_writer)

    async def _opened(
        self, end: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._unjoined.discard(end)  # its transport closes it from here on
        return await asyncio.open_unix_connection(sock=end)

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task that is cancelled before its first step runs no `finally`.
        self._spawn(self._pump(reader, writer)).add_done_callback(lambda _: writer.close())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each piece leaves so long after it came; the end too."""
        now = asyncio.get_running_loop().time
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        reading = asyncio.create_task(self._receive(reader, pieces))
        try:
            while True:
                due_s, piece = await pieces.get()
                await asyncio.sleep(due_s - now())
                if not piece:
                    return
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            reading.cancel()

    async def _receive(
        self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        now = asyncio.get_running_loop().time
        piece = b"first"
        while piece:
            try:
                piece = await reader.read(_CHUNK_BYTES)
            except ConnectionError:
                piece = b""
            await pieces.put((now() + self.delay_s, piece))
