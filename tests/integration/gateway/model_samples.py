"""Agents that reach models as their authors would elsewhere: with the vendors' own clients."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from typing import Any

import anthropic
import httpx2
import openai

from factorychain import Agent, RunContext, tool
from factorychain.errors import CredentialNotFound

# As many agents do: made with the module, before any run is there.
EARLY = openai.AsyncOpenAI()
EARLY_ANTHROPIC = anthropic.AsyncAnthropic()


def _said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def _stream(client: openai.AsyncOpenAI, ctx: RunContext, text: str, model: str = "m") -> str:
    said = ""
    stream = await client.chat.completions.create(model=model, messages=_said(text), stream=True)
    async with stream:
        async for chunk in stream:
            assert chunk.choices, "the client has not asked for a chunk with the usage"
            piece = chunk.choices[0].delta.content or ""
            if piece:
                await ctx.say(piece)
            said += piece
    return said


async def _respond(client: openai.AsyncOpenAI, ctx: RunContext, text: str) -> str:
    async with client.responses.stream(model="m", input=text) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                await ctx.say(event.delta)
        return (await stream.get_final_response()).output_text


async def _message(client: anthropic.AsyncAnthropic, ctx: RunContext, text: str) -> str:
    asked = client.messages.stream(model="m", max_tokens=100, messages=_said(text))
    async with asked as stream:
        async for piece in stream.text_stream:
            await ctx.say(piece)
        return await stream.get_final_text()


class Talker(Agent):
    """Streams from a client that was made in the run."""

    name = "talker"

    async def run(self, ctx: RunContext, text: str) -> str:
        async with openai.AsyncOpenAI() as client:
            return await _stream(client, ctx, text)


class Early(Agent):
    """Streams from a client that was made with the module."""

    name = "early"

    async def run(self, ctx: RunContext, text: str) -> str:
        return await _stream(EARLY, ctx, text)


class Threaded(Agent):
    """A synchronous client in a synchronous run, without a stream."""

    name = "threaded"

    def run(self, ctx: RunContext, text: str) -> str:
        with openai.OpenAI() as client:
            done = client.chat.completions.create(model="m", messages=_said(text))
        return done.choices[0].message.content or ""


class Responder(Agent):
    """OpenAI's responses."""

    name = "responder"

    async def run(self, ctx: RunContext, text: str) -> str:
        return await _respond(EARLY, ctx, text)


class Claude(Agent):
    """Anthropic's messages."""

    name = "claude"

    async def run(self, ctx: RunContext, text: str) -> str:
        return await _message(EARLY_ANTHROPIC, ctx, text)


class Chooser(Agent):
    """Asks for the model that it is told."""

    name = "chooser"

    async def run(self, ctx: RunContext, text: str) -> str:
        return await _stream(EARLY, ctx, "hi", model=text)


class Repeater(Agent):
    """Asks so many times, one after the other."""

    name = "repeater"

    async def run(self, ctx: RunContext, text: str) -> int:
        async with openai.AsyncOpenAI() as client:
            for _ in range(int(text)):
                await _stream(client, ctx, "hi")
        return int(text)


class Named(Agent):
    """A server of models by its name."""

    name = "named"

    async def run(self, ctx: RunContext, text: str) -> str:
        found = ctx.credential(text)
        async with openai.AsyncOpenAI(base_url=found.base_url, api_key=found.key) as client:
            return await _stream(client, ctx, "hi")


class Caller(Agent):
    """Another service, with a secret that it does not have."""

    name = "caller"

    async def run(self, ctx: RunContext, text: str) -> Any:
        name, _, path = text.partition(" ")
        try:
            found = ctx.credential(name)
        except CredentialNotFound as error:
            return str(error)
        async with httpx2.AsyncClient(base_url=found.base_url, headers=found.headers) as client:
            response = await client.post(path, json={"a": 1}, headers={"Cookie": "a=b"})
        return {"status": response.status_code, "body": response.text}


class Keyring(Agent):
    """Says what a run has: its environment, its key."""

    name = "keyring"

    async def run(self, ctx: RunContext, text: str) -> Any:
        found = {
            name: value
            for name, value in os.environ.items()
            if "_API_KEY" in name or "_URL" in name
        }
        if text == "wait":
            await ctx.emit("key", found)
            await asyncio.Event().wait()
        return found


class Guesser(Agent):
    """Asks with a key that is not its own."""

    name = "guesser"

    async def run(self, ctx: RunContext, text: str) -> str:
        async with openai.AsyncOpenAI(api_key=text) as client:
            return await _stream(client, ctx, "hi")


class Stubborn(Agent):
    """Streams, and does not stop when it is told to."""

    name = "stubborn"

    async def run(self, ctx: RunContext, text: str) -> str:
        async def on() -> str:
            try:
                async with openai.AsyncOpenAI() as client:
                    return await _stream(client, ctx, text)
            except openai.OpenAIError:
                await asyncio.Event().wait()
                return ""

        task = asyncio.create_task(on())
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                continue
        return ""


class Urllib(Agent):
    """No library at all."""

    name = "urllib"

    def run(self, ctx: RunContext, text: str) -> str:
        headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
        url = f"{os.environ['OPENAI_BASE_URL']}/models"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return str(answer.read().decode())


class Wanderer(Agent):
    """Asks for what runs may not have."""

    name = "wanderer"

    async def run(self, ctx: RunContext, text: str) -> int:
        method, _, path = text.partition(" ")
        headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
        async with httpx2.AsyncClient() as client:
            url = os.environ["OPENAI_BASE_URL"] + path
            response = await client.request(method, url, headers=headers)
        response.raise_for_status()
        return int(response.status_code)


class Tooled(Agent):
    """Asks in a tool."""

    name = "tooled"

    @tool
    async def ask(self, text: str) -> str:
        done = await EARLY.chat.completions.create(model="m", messages=_said(text))
        return done.choices[0].message.content or ""

    async def run(self, ctx: RunContext, text: str) -> str:
        return await self.ask(text=text)


class ResponderHere(Agent):
    """OpenAI's responses, from a client that was made in the run."""

    name = "responder_here"

    async def run(self, ctx: RunContext, text: str) -> str:
        async with openai.AsyncOpenAI() as client:
            return await _respond(client, ctx, text)


class ClaudeHere(Agent):
    """Anthropic's messages, from a client that was made in the run."""

    name = "claude_here"

    async def run(self, ctx: RunContext, text: str) -> str:
        async with anthropic.AsyncAnthropic() as client:
            return await _message(client, ctx, text)


class Crowd(Agent):
    """So many requests at once."""

    name = "crowd"

    async def run(self, ctx: RunContext, text: str) -> int:
        async with openai.AsyncOpenAI() as client:
            asked = (
                client.chat.completions.create(model="m", messages=_said("hi"))
                for _ in range(int(text))
            )
            return len(await asyncio.gather(*asked))


class Leaver(Agent):
    """Hangs up in the middle of each answer, and asks again."""

    name = "leaver"

    async def run(self, ctx: RunContext, text: str) -> int:
        async with openai.AsyncOpenAI() as client:
            for _ in range(20):
                stream = await client.chat.completions.create(
                    model="m", messages=_said(text), stream=True
                )
                async with stream:
                    for _ in range(8):
                        await anext(aiter(stream))
        return 20


class Lister(Agent):
    """The models that there are."""

    name = "lister"

    async def run(self, ctx: RunContext, text: str) -> list[str]:
        async with openai.AsyncOpenAI() as client:
            return [each.id async for each in client.models.list()]
