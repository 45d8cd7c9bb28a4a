"""The agent around a graph.

Invariant: the author's graph is never changed; what a run needs is given per call.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from langgraph.pregel import Pregel

from factorychain.adapters.adapted import Adapted, Options, class_for
from factorychain.agent import Agent
from factorychain.context import RunContext
from factorychain.input import Input, Json


class GraphAgent(Adapted):
    """Runs a compiled graph."""

    adapted: ClassVar[object]

    async def run(self, ctx: RunContext, given: Input) -> Json:
        graph = type(self).adapted
        assert isinstance(graph, Pregel)
        state = await graph.ainvoke({"messages": [("user", given.text)]})
        last: str = state["messages"][-1].text
        await ctx.say(last)
        return last


def agent(
    found: object, /, *, name: str, description: str = "", **options: Unpack[Options]
) -> type[Agent]:
    """An agent's class for a compiled graph."""
    if not isinstance(found, Pregel):
        raise TypeError(f"a {type(found).__name__} is no compiled graph; call its compile()")
    return class_for(GraphAgent, found, name=name, description=description, options=options, own={})
