"""The streams of an MCP server that is a program: lines of JSON on its standard input and output.

The SDK's own transport begins a session for the program, which a confined run may not. Invariant: the
program is ended when the streams are closed, and at the latest with the run's process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from factorychain._mcp.server import Server

_INHERITED: Final = [
    "HOME",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "USER",
    "TMPDIR",
    "TMP",
    "TEMP",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "RES_OPTIONS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
    "PYTHONUTF8",
    "PYTHONUNBUFFERED",
]
_READ_BYTES: Final = 64 * 1024
_LINE_MAX_BYTES: Final = 32 * 1024 * 1024
_LEAVING_S: Final = 1.0
"""To end by itself, when its standard input has ended."""
_TERMINATING_S: Final = 0.5

_Sending = MemoryObjectSendStream[SessionMessage | Exception]
_Receiving = MemoryObjectReceiveStream[SessionMessage]


@asynccontextmanager
async def stdio_streams(server: Server) -> AsyncGenerator[TransportStreams, None]:
    """Start the program.

    Raises:
        OSError: it cannot be started.
    """
    program = await Program.started(server)
    to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    from_session, to_server = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(program.process, to_session)),
        asyncio.create_task(_write(program.process, to_server, to_session)),
        asyncio.create_task(_pass_on_errors(program.process, server.name)),
    ]
    try:
        yield from_server, from_session
    finally:
        try:
            await program.end()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)
            for stream in (to_session, from_server, from_session, to_server):
                stream.close()


def environment(server: Server, own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the program sees: a few variables of the run's, and what it is given. Not the run's keys."""
    seen = {name: own[name] for name in _INHERITED if name in own}
    if isinstance(server.env, dict):
        return seen | server.env
    return seen | {name: own[name] for name in server.env if name in own}


class Program:
    """The server's process."""

    def __init__(self, process: Process, *, leads: bool) -> None:
        """`leads`: it has a session of its own, so that all that it starts can be ended with it."""
        self.process = process
        self._leads = leads

    @classmethod
    async def started(cls, server: Server) -> Program:
        """Start it.

        Raises:
            OSError: it cannot be.
        """
        try:
            return cls(await _spawn(server, leads=True), leads=True)
        except PermissionError:  # confined: whatever it starts ends with the run's process
            return cls(await _spawn(server, leads=False), leads=False)

    async def end(self) -> None:
        """As the protocol has it: the end of its input, then a signal, then one that cannot be ignored."""
        assert self.process.stdin is not None, "it is a pipe"
        try:
            self.process.stdin.close()
            if not await self._ended(_LEAVING_S):
                self._signal(signal.SIGTERM)
                await self._ended(_TERMINATING_S)
        finally:
            self._signal(signal.SIGKILL)
            await self._ended(_TERMINATING_S)
            # Nothing public lets go of the pipes when something that it has started holds them.
            transport: asyncio.SubprocessTransport = getattr(self.process, "_transport")  # noqa: B009
            transport.close()

    async def _ended(self, within_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.process.wait()
        return self.process.returncode is not None

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self._leads:
                os.killpg(self.process.pid, number)
            elif self.process.returncode is None:
                self.process.send_signal(number)


async def _spawn(server: Server, *, leads: bool) -> Process:
    return await asyncio.create_subprocess_exec(
        server.command,
        *server.args,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment(server),
        cwd=server.cwd or None,
        start_new_session=leads,
    )


async def _read(process: Process, to_session: _Sending) -> None:
    assert process.stdout is not None, "it is a pipe"
    rest = b""
    async with to_session:
        while data := await process.stdout.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_MAX_BYTES:
                return
            for line in filter(bytes.strip, lines):
                try:
                    await to_session.send(_parsed(line))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return


def _parsed(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error


async def _write(process: Process, to_server: _Receiving, to_session: _Sending) -> None:
    assert process.stdin is not None, "it is a pipe"
    with suppress(anyio.ClosedResourceError):
        async for each in to_server:
            text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                process.stdin.write(f"{text}\n".encode())
                await process.stdin.drain()
            except OSError:  # it reads no more: whoever waits for an answer is told
                to_session.close()
                return


async def _pass_on_errors(process: Process, name: str) -> None:
    """What it tells its operator appears where the run's own prints do."""
    assert process.stderr is not None, "it is a pipe"
    while data := await process.stderr.read(_READ_BYTES):
        text = data.decode("utf-8", "replace")
        sys.stderr.write("".join(f"[{name}] {line}\n" for line in text.splitlines() if line))
