"""Agents on frameworks, whose models were made with the module, before any run is there."""

from __future__ import annotations

from langchain_openai import ChatOpenAI
from pydantic_ai import Agent as PydanticAgent

from factorychain import Agent, RunContext

CHAIN = ChatOpenAI(model="m")
# Not by names of the module, where they would be served as agents themselves.
PYDANTIC = {"responses": PydanticAgent("openai:m"), "chat": PydanticAgent("openai-chat:m")}


class Chained(Agent):
    """LangChain's model, made with the module."""

    name = "chain"

    async def run(self, ctx: RunContext, text: str) -> str:
        said = ""
        async for chunk in CHAIN.astream(text):
            said += str(chunk.content)
        return said


class Pydantic(Agent):
    """Pydantic AI on OpenAI's responses, made with the module."""

    name = "pydantic"

    async def run(self, ctx: RunContext, text: str) -> str:
        async with PYDANTIC["responses"].run_stream(text) as result:
            return await result.get_output()


class Typed(Agent):
    """Pydantic AI on chat completions."""

    name = "typed"

    async def run(self, ctx: RunContext, text: str) -> str:
        async with PYDANTIC["chat"].run_stream(text) as result:
            return await result.get_output()
