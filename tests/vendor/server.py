"""The server: takes a request, says the next turn of its script, fails where it is told to."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeAlias

from aiohttp import web

from tests.vendor import anthropic_messages, openai_chat, openai_responses
from tests.vendor.frames import Frame
from tests.vendor.script import Fault, Received, Turn, echo

Said: TypeAlias = Turn | Callable[[Received], Turn]


class Vendor:
    """The stand-in, on a free port of this machine.

    Args:
        key: what callers must come with; others get 401. None: a new one.
        models: what it offers.
        reasoning_field: where chat completions carry reasoning; `reasoning` with some servers.
    """

    def __init__(
        self,
        key: str | None = None,
        models: Iterable[str] = ("gpt-test", "claude-test"),
        reasoning_field: str = "reasoning_content",
    ) -> None:
        self.key = key if key is not None else f"sk-vendor-{secrets.token_hex(16)}"
        self.models = tuple(models)
        self.reasoning_field = reasoning_field
        self.requests: list[Received] = []
        self.always: Callable[[Received], Turn] = echo
        """What it says when nothing is scripted."""
        self._script: deque[Said] = deque()
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """For Anthropic's client."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """For OpenAI's client."""
        return f"{self.url}/v1"

    def script(self, *turns: Said) -> None:
        """What it says next: turns, or what makes one of a request."""
        self._script.extend(turns)

    def reset(self) -> None:
        """As it was: nothing scripted, nothing received."""
        self._script.clear()
        self.requests.clear()
        self.always = echo

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Wait for something that a request changes: its arrival, its end, a disconnect."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_route("*", "/{path:.*}", self._anything)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # --- the protocols ---

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        def said(turn: Turn, got: Received) -> Iterable[Frame]:
            return openai_chat.streamed(turn, got, self.reasoning_field)

        def whole(turn: Turn, got: Received) -> dict[str, Any]:
            return openai_chat.whole(turn, got, self.reasoning_field)

        return await self._answer(request, said, whole, openai_chat.error)

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        made = openai_responses
        return await self._answer(request, made.streamed, made.whole, openai_chat.error)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        made = anthropic_messages
        return await self._answer(request, made.streamed, made.whole, made.error)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        got = await self._receive(request)
        if got.key != self.key:
            return _refusal(openai_chat.error, Fault(status=401, message="Incorrect API key"))
        listed = [
            {"id": each, "object": "model", "created": 0, "owned_by": "vendor"}
            for each in self.models
        ]
        return web.json_response({"object": "list", "data": listed})

    async def _anything(self, request: web.Request) -> web.StreamResponse:
        """Another service than a model's, for credentials: says what it was asked."""
        got = await self._receive(request)
        told = {"method": got.method, "path": got.path, "body": got.body}
        # Careless services do so.
        return web.json_response(told | {"secret": got.headers.get("authorization", "")})

    # --- answering ---

    async def _answer(
        self,
        request: web.Request,
        streamed: Callable[[Turn, Received], Iterable[Frame]],
        whole: Callable[[Turn, Received], dict[str, Any]],
        error: Callable[[int, str], dict[str, Any]],
    ) -> web.StreamResponse:
        got = await self._receive(request)
        if got.key != self.key:
            return _refusal(error, Fault(status=401, message="Incorrect API key provided"))
        said = self._script.popleft() if self._script else self.always
        turn = said if isinstance(said, Turn) else said(got)
        fault = turn.fault or Fault()
        try:
            if fault.status:
                return _refusal(error, fault)
            if fault.refuse or fault.hang:
                return await self._nothing(request, fault)
            if got.streamed:
                return await self._stream(request, got, turn, streamed(turn, got), error)
            await asyncio.sleep(turn.gap_s)
            return web.json_response(whole(turn, got))
        except (asyncio.CancelledError, ConnectionError):
            got.disconnected_at_s = time.monotonic()
            raise
        finally:
            if got.disconnected_at_s is None:
                got.ended_at_s = time.monotonic()
            self._changed.set()

    async def _receive(self, request: web.Request) -> Received:
        at_s = time.monotonic()
        body: Any = await request.json() if request.can_read_body else {}
        headers = {name.lower(): value for name, value in request.headers.items()}
        peer = (request.get_extra_info("peername") or ("", 0))[1]
        got = Received(request.method, request.path_qs, headers, body, at_s, peer)
        self.requests.append(got)
        self._changed.set()
        return got

    async def _nothing(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.hang:
            await asyncio.Event().wait()
        _cut(request)
        return web.Response()

    async def _stream(
        self,
        request: web.Request,
        got: Received,
        turn: Turn,
        frames: Iterable[Frame],
        error: Callable[[int, str], dict[str, Any]],
    ) -> web.StreamResponse:
        fault = turn.fault or Fault()
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "X-Vendor": "v"}
        )
        await response.prepare(request)
        for frame in frames:
            if got.frames == fault.cut_after:
                _cut(request)
                return response
            if got.frames == fault.silent_after:
                await asyncio.Event().wait()
            if got.frames == fault.malformed_after:
                await response.write(b'data: {"choices": [{"del\n\n')
            if got.frames == fault.error_after:
                named = "error" if request.path.endswith("/messages") else ""
                await response.write(Frame(error(500, fault.message), named).encode())
                break
            if turn.gap_s and got.frames:
                await asyncio.sleep(turn.gap_s)
            await response.write(frame.encode())
            got.frames += 1
            self._changed.set()
        await response.write_eof()
        return response


def _refusal(error: Callable[[int, str], dict[str, Any]], fault: Fault) -> web.Response:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
    if fault.location:
        headers["Location"] = fault.location
    return web.json_response(
        error(fault.status, fault.message), status=fault.status, headers=headers
    )


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
