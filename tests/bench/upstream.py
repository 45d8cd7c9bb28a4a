"""`python -m tests.bench.upstream`: a server of models that says as many tokens as it is asked for, at once.

Its events are made before it is asked, so that it is the gateway that is measured and not what makes them.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web

from tests.vendor import Received, Turn, openai_chat

TOKENS = (1, 5000)
"""How many may be asked for."""


def _frames(tokens: int) -> list[bytes]:
    body = {"model": "m", "stream_options": {"include_usage": True}}
    turn = Turn(text=["word "] * tokens)
    request = Received("POST", "/", {}, body, 0.0)
    return [each.encode() for each in openai_chat.streamed(turn, request, "reasoning")]


async def _serve() -> None:
    made = {tokens: _frames(tokens) for tokens in TOKENS}

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for frame in made[int(body["messages"][0]["content"])]:
            await response.write(frame)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(_serve())
