"""An agent of a module that has compiled a LangGraph graph with a checkpointer in memory."""

from __future__ import annotations

from typing import TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from factorychain import Agent, RunContext


class State(TypedDict):
    """What its nodes hand on."""

    text: str
    steps: list[str]


def shout(state: State) -> State:
    """Synchronous: LangGraph runs it in a thread."""
    return {"text": state["text"].upper(), "steps": [*state["steps"], "shout"]}


async def repeat(state: State) -> State:
    return {"text": f"{state['text']} {state['text']}", "steps": [*state["steps"], "repeat"]}


_saved = InMemorySaver()
_builder = StateGraph(State)
_builder.add_node("shout", shout)
_builder.add_node("repeat", repeat)
_builder.add_edge(START, "shout")
_builder.add_edge("shout", "repeat")
_builder.add_edge("repeat", END)
graph = _builder.compile(checkpointer=_saved)


class Walks(Agent):
    """Walks the graph; says what its checkpointer had before, and has then."""

    name = "walks"

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        before = [each.config async for each in _saved.alist(None)]
        config: RunnableConfig = {"configurable": {"thread_id": ctx.thread}}
        found = await graph.ainvoke({"text": text, "steps": []}, config)
        state = await graph.aget_state(config)
        return {"before": len(before), "found": found, "saved": state.values}
