"""Agents of Pydantic AI as people have them: made when the module is imported, with no key anywhere."""

from __future__ import annotations

import os

from pydantic_ai import Agent
from pydantic_ai import RunContext as Context
from pydantic_ai.tools import DeferredToolRequests, ToolDefinition
from pydantic_ai.toolsets import ExternalToolset

from factorychain import RunContext


class Shelf(list[str]):
    """What an agent depends on."""


def shelf(ctx: RunContext) -> Shelf:
    """A user's own."""
    return Shelf([f"the diary of {ctx.user}"])


providers = [shelf]
reader = Agent("openai-chat:gpt-test", deps_type=Shelf)
orphan = Agent("openai-chat:gpt-test", deps_type=dict[str, int])
talker = Agent("openai:gpt-test", instructions="Be brief.")

_client = ExternalToolset(
    [ToolDefinition(name="locate", description="Where the user is.", parameters_json_schema={"type": "object"})]
)  # fmt: skip
shopper = Agent("openai-chat:gpt-test", output_type=[str, DeferredToolRequests], toolsets=[_client])


@reader.tool
def first(ctx: Context[Shelf]) -> str:
    """The first book."""
    return ctx.deps[0]


@talker.tool_plain
def look(thing: str) -> str:
    """Look at something."""
    return f"the {thing} is blue"


@shopper.tool_plain(requires_approval=True)
def buy(item: str) -> dict[str, object]:
    """Buy something."""
    return {"bought": item, "pid": os.getpid()}


@shopper.tool_plain
def price(item: str) -> dict[str, object]:
    """What something costs."""
    return {"price": 3, "pid": os.getpid()}
