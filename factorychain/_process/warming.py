"""What clients of models build with their first request, built before there is a run to wait for it.

Every run is a process that is forked anew, so without this each would build it again: 40 ms of processor
time before its first word. Invariant: nothing leaves this process, and what fails here changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_NOWHERE: Final = "http://127.0.0.1:9/v1"
_OPENAI: Final = (
    b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"a","tool_calls":[{"index":0,"id":"c","type":"function",'
    b'"function":{"name":"f","arguments":"{}"}}]},"finish_reason":null,"logprobs":null}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)
_RESPONSE: Final = (
    b'data: {"type":"response.created","sequence_number":0,"response":{"id":"x","object":"response",'
    b'"created_at":1,"model":"m","output":[],"parallel_tool_calls":true,"tool_choice":"auto",'
    b'"tools":[]}}\n\n'
)


async def warm_libraries() -> None:
    """For the libraries that the agents' modules have imported; others are none of its business."""
    for name, warm in _WARM:
        if name in sys.modules:
            with suppress(Exception):  # another version of it: its first request takes longer
                await warm(sys.modules[name])


async def _anyio(library: ModuleType) -> None:
    """Its half for asyncio."""
    await import_module(f"{library.__name__}.lowlevel").checkpoint()


async def _http(library: ModuleType) -> None:
    """What it sends with, which it loads with its first client: another 40 ms."""
    await library.AsyncHTTPTransport(verify=False).aclose()


async def _openai(library: ModuleType) -> None:
    """A streamed completion with a tool, answered in this process."""
    async with _client(library, _OPENAI) as client:
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        message = {"role": "user", "content": "a"}
        stream = await client.chat.completions.create(
            model="m", messages=[message], tools=[tool], stream=True
        )
        async for _ in stream:
            pass


async def _responses(of_pydantic_ai: ModuleType) -> None:
    """The same in the other protocol of OpenAI's, which Pydantic AI takes where its author says none:
    another 100 ms.
    """
    del of_pydantic_ai
    async with _client(sys.modules["openai"], _RESPONSE) as client:
        async for _ in await client.responses.create(model="m", input="a", stream=True):
            pass


def _client(library: ModuleType, answer: bytes) -> Any:
    """A client that is answered in this process."""
    http = sys.modules.get("httpx2") or import_module("httpx")

    def answered(request: Any) -> Any:
        headers = {"content-type": "text/event-stream"}
        return http.Response(200, headers=headers, content=answer, request=request)

    own = http.AsyncClient(transport=http.MockTransport(answered))
    return library.AsyncOpenAI(api_key="none", base_url=_NOWHERE, http_client=own)


_WARM: Final[tuple[tuple[str, Callable[[ModuleType], Awaitable[None]]], ...]] = (
    ("anyio", _anyio),
    ("httpx", _http),
    ("httpx2", _http),
    ("openai", _openai),
    ("pydantic_ai.models.openai", _responses),
)
