"""Graphs that the end-to-end tests serve as they are. Their clients are made here, before any run is."""

from __future__ import annotations

import os

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

model = ChatOpenAI(model="gpt-test", max_retries=0)


@tool
async def carry(text: str) -> str:
    """Carries a text."""
    get_stream_writer()({"carrying": text})
    return f"carried {text}"


@tool
def confirm(text: str) -> str:
    """Asks the user about a text."""
    get_stream_writer()({"pid": os.getpid()})
    answer = interrupt(f"Really {text}?")
    return f"{text}: {answer}"


carrying = model.bind_tools([carry, confirm])


async def agent(state: MessagesState) -> dict[str, list[AIMessage]]:
    """Ask the model what comes next."""
    return {"messages": [await carrying.ainvoke(state["messages"])]}


builder = StateGraph(MessagesState)
builder.add_node("agent", agent)
builder.add_node("tools", ToolNode([carry, confirm]))
builder.add_edge(START, "agent")
builder.add_conditional_edges("agent", tools_condition)
builder.add_edge("tools", "agent")
loop = builder.compile()

outer = StateGraph(MessagesState)
outer.add_node("desk", loop)
outer.add_edge(START, "desk")
nested = outer.compile()
