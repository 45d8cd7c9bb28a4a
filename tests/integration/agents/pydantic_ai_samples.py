"""Agents of a module that imports Pydantic AI; their models are its own, for tests."""

from __future__ import annotations

import threading

import pydantic_ai
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from factorychain import Agent, RunContext


def _answer(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    prompts = [
        part.content
        for message in messages
        for part in message.parts
        if isinstance(part, UserPromptPart)
    ]
    return ModelResponse(parts=[TextPart(f"answered {prompts}")])


answering = pydantic_ai.Agent(FunctionModel(_answer))
using_tools = pydantic_ai.Agent(TestModel())
used_in: list[str] = []


@using_tools.tool_plain
def measure(text: str) -> int:
    """Synchronous: Pydantic AI runs it in a thread."""
    used_in.append(threading.current_thread().name)
    return len(text)


class Answers(Agent):
    """Asks both."""

    name = "answers"

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        answered = await answering.run(text)
        used = await using_tools.run(text)
        return {"answer": answered.output, "tools": used.output, "used_in": used_in}
