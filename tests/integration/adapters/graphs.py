"""Graphs as their authors write them, on the real libraries; nothing of factorychain is in them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, ToolException, tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, ToolRuntime, tools_condition
from typing_extensions import TypedDict

from tests.vendor.server import Vendor

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

CompiledGraph = CompiledStateGraph[Any, Any, Any, Any]


@tool
async def weather(city: str, runtime: ToolRuntime) -> str:
    """The weather in a city."""
    get_stream_writer()({"asking": city})
    runtime.emit_output_delta({"asked": city})
    if city == "Oslo":
        raise ValueError("the password of the station is hunter2")
    if city == "Paris":
        raise ToolException("Paris has no station")
    return f"{city}: mild"


def model_of(vendor: Vendor, **more: Any) -> ChatOpenAI:
    """A client of the stand-in, as an author makes one."""
    from langchain_openai import ChatOpenAI  # imports for long: where it is used

    return ChatOpenAI(
        model="gpt-test",
        base_url=vendor.openai_url,
        api_key=vendor.key,
        max_retries=0,
        stream_usage=True,
        **more,
    )


def chat(vendor: Vendor, **compiling: Any) -> CompiledGraph:
    """The smallest chat: one node that asks a model."""
    model = model_of(vendor)

    async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(**compiling)


def tool_loop(
    vendor: Vendor, tools: Sequence[BaseTool] = (weather,), **compiling: Any
) -> CompiledGraph:
    """The usual loop of a model and its tools; what a tool raises goes back to the model."""
    model = model_of(vendor).bind_tools(list(tools))

    async def agent(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode(list(tools), handle_tool_errors=True))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition)
    builder.add_edge("tools", "agent")
    return builder.compile(**compiling)


def nested(inner: CompiledGraph, name: str = "team", **compiling: Any) -> CompiledGraph:
    """A graph whose only node is another one."""
    builder = StateGraph(MessagesState)
    builder.add_node(name, inner)
    builder.add_edge(START, name)
    return builder.compile(**compiling)


class Research(TypedDict):
    """State without a conversation."""

    topic: str
    notes: Annotated[list[str], operator.add]


def pipeline() -> CompiledGraph:
    """Two steps over plain data."""

    def look_up(state: Research) -> dict[str, list[str]]:
        return {"notes": [f"about {state['topic']}"]}

    def write_down(state: Research) -> dict[str, list[str]]:
        return {"notes": ["done"]}

    builder = StateGraph(Research)
    builder.add_node("look_up", look_up)
    builder.add_node("write_down", write_down, metadata={"thinking": "Putting it on paper"})
    builder.add_edge(START, "look_up")
    builder.add_edge("look_up", "write_down")
    return builder.compile()
