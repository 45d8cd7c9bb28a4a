"""One run's connection to one MCP server.

Invariant: it lives in a task of its own, so that neither its end nor its failure is anybody else's: a call
that is under way then fails as a tool fails.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import traceback
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import anyio
import httpx2
import mcp_types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from factorychain._instance import events
from factorychain._instance.active import ActiveRun
from factorychain._instance.open_call import print_failure
from factorychain._instance.tool_source import OpenedSource
from factorychain._instance.values import dumps
from factorychain._mcp.arguments import SchemaSignature
from factorychain._mcp.elicitation import answer
from factorychain._mcp.results import value_of
from factorychain._mcp.server import Server
from factorychain._mcp.stdio import stdio_streams
from factorychain.errors import AgentError, FactoryChainError, ToolError
from factorychain.tools import Tool

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

_PAGES_MAX: Final = 100
_CLOSING_S: Final = 3.0
_CONNECTING_S: Final = 30.0
_BROKEN: Final = (OSError, httpx2.HTTPError, anyio.ClosedResourceError, anyio.BrokenResourceError)
_CLIENT: Final = mcp_types.Implementation(name="factorychain", version="1")


class Connection(OpenedSource):
    """The server, as one run has it."""

    def __init__(self, server: Server, run: ActiveRun) -> None:
        self._server = server
        self._run = run
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None

    async def open(self) -> Sequence[Tool]:
        self._life = asyncio.create_task(self._live(), name=f"MCP server {self._server.name}")
        try:
            async with asyncio.timeout(self._server.start_timeout_s):
                return await self._tools(await asyncio.shield(self._ready))
        except TimeoutError as error:
            raise self._unavailable(error) from error
        except (MCPError, ValueError, RuntimeError, *_BROKEN) as error:
            raise self._unavailable(error) from error

    async def close(self) -> None:
        if self._life is None:
            return
        self._stop.set()
        if not self._ready.done():
            self._life.cancel()
        try:
            await asyncio.wait({self._life}, timeout=_CLOSING_S)
        finally:
            self._life.cancel()
            await asyncio.wait({self._life})

    async def call(self, tool: str, arguments: dict[str, object]) -> object:
        """Call a tool, inside of the call that users see.

        Raises:
            ToolError: it failed, or the server is gone.
        """
        context = contextvars.copy_context()  # notifications come in the connection's own

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            told = {"progress": progress, "total": total, "message": message}
            await asyncio.create_task(self._progress(told), context=context)

        calling = self._ready.result().call_tool(tool, arguments, progress_callback=progressed)
        try:
            return value_of(await self._while_alive(calling))
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED:
                raise self._lost() from error
            raise ToolError(error.message) from error
        except _BROKEN as error:
            raise self._lost() from error
        except (RuntimeError, ValueError) as error:  # it answers what it says that it does not
            print_failure(self._run, error)
            text = f"{self._server.name} gave an answer that does not fit its own description"
            raise ToolError(text, "TOOL_RESULT_INVALID") from error

    async def _while_alive(
        self, calling: Coroutine[None, None, mcp_types.CallToolResult]
    ) -> mcp_types.CallToolResult:
        assert self._life is not None, "it is open"
        task = asyncio.create_task(calling)
        try:
            await asyncio.wait({task, self._life}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self._lost()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _progress(self, told: Mapping[str, object]) -> None:
        run, call = self._run, self._run.call
        data = dumps({name: each for name, each in told.items() if each is not None})
        if call in run.open_calls:
            with suppress(FactoryChainError):  # the run is over, or its user is told enough
                await run.emit(events.TOOL_PROGRESS, events.tool_progress(run.trace, call, data))

    async def _live(self) -> None:
        try:
            async with Client(
                self._transport(),
                client_info=_CLIENT,
                logging_callback=self._logged,
                elicitation_callback=self._asked,
            ) as client:
                self._ready.set_result(client)
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this server's
            if not self._ready.done():
                self._ready.set_exception(_first(error))
            elif not self._stop.is_set():
                sys.stderr.write("".join(traceback.format_exception(error)))
        finally:
            self._ready.cancel()

    def _transport(self) -> AbstractAsyncContextManager[TransportStreams]:
        return stdio_streams(self._server) if self._server.command else self._http()

    @asynccontextmanager
    async def _http(self) -> AsyncGenerator[TransportStreams, None]:
        # A call may take as long as its run: the connection sets no limit to silence.
        timeout = httpx2.Timeout(_CONNECTING_S, read=None)
        secure = self._server.url.startswith("https:")  # else reading certificates is for nothing
        async with (
            httpx2.AsyncClient(
                headers=self._server.headers, timeout=timeout, verify=secure
            ) as http,
            streamable_http_client(self._server.url, http_client=http) as streams,
        ):
            yield streams

    async def _asked(
        self, context: object, params: mcp_types.ElicitRequestParams
    ) -> mcp_types.ElicitResult:
        del context
        return await answer(self._run, self._server.name, params)

    async def _logged(self, params: mcp_types.LoggingMessageNotificationParams) -> None:
        sys.stderr.write(f"[{self._server.name}] {params.level}: {params.data}\n")

    async def _tools(self, client: Client) -> list[Tool]:
        listed: list[mcp_types.Tool] = []
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            page = await client.list_tools(cursor=cursor)
            listed += page.tools
            cursor = page.next_cursor
            if cursor is None:
                break
        only = self._server.only
        absent = set(only) - {each.name for each in listed}
        if absent:
            raise ValueError(f"{self._server.name} has no tool {min(absent)!r}, which `only` lists")
        return [self._tool(each) for each in listed if not only or each.name in only]

    def _tool(self, found: mcp_types.Tool) -> Tool:
        prefix = self._server.prefix
        name = f"{prefix}_{found.name}" if prefix else found.name

        async def call(**arguments: object) -> object:
            return await self.call(found.name, arguments)

        return Tool(
            call,
            name,
            found.description or found.title or "",
            self._server.timeout_s,
            self._server.approval,
            signature=SchemaSignature(name, found.input_schema),
        )

    def _unavailable(self, error: Exception) -> AgentError:
        print_failure(self._run, error)
        return AgentError(
            f"The tool server {self._server.name} is not available",
            reason="TOOL_SERVER_UNAVAILABLE",
            retryable=True,
        )

    def _lost(self) -> ToolError:
        return ToolError(f"The tool server {self._server.name} has ended", "TOOL_SERVER_LOST")


def _first(error: BaseException) -> BaseException:
    """What a group is about: the SDK's tasks fail in groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
