"""What a graph keeps of a conversation: ours, a checkpointer of the author's own, none."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore

from factorychain.adapters.langgraph import agent
from factorychain.adapters.langgraph.checkpoints import blob_name
from factorychain.testing import Conversation, run_async
from tests.integration.adapters.graphs import (
    chat,
    model_of,
)
from tests.vendor import Call, Turn, Vendor

pytestmark = pytest.mark.usefixtures("langchain_clients")


def said(vendor: Vendor) -> list[tuple[str, str]]:
    """The conversation as the model was told it last."""
    return [(each["role"], each.get("content") or "") for each in vendor.requests[-1].messages]


async def test_the_conversation_is_remembered_once(vendor: Vendor) -> None:
    graph, conversation = chat(vendor), Conversation()
    for text in ("one", "two", "three"):
        await run_async(graph, text, conversation=conversation)
    assert said(vendor) == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
        ("assistant", "You said: two"),
        ("user", "three"),
    ]
    await run_async(graph, "four", conversation=Conversation())
    assert said(vendor) == [("user", "four")]
    assert graph.checkpointer is None


async def test_an_agent_that_comes_later_is_told_what_was_said_and_then_remembers_itself(
    vendor: Vendor,
) -> None:
    conversation = Conversation()
    one, other = agent(chat(vendor), name="one"), agent(chat(vendor), name="other")
    await run_async(one, "a", conversation=conversation)
    for text in ("b", "c"):
        await run_async(other, text, conversation=conversation)
    assert [text for _, text in said(vendor)] == ["a", "You said: a", "b", "You said: b", "c"]


async def test_without_memory_each_run_begins_anew(vendor: Vendor) -> None:
    conversation = Conversation()
    forgets = agent(chat(vendor), name="forgets", memory=False)
    for text in ("a", "b"):
        await run_async(forgets, text, conversation=conversation)
    assert said(vendor) == [("user", "b")]


async def test_after_a_cancel_in_mid_call_the_conversation_goes_on(vendor: Vendor) -> None:
    reached = asyncio.Event()

    async def tools(state: MessagesState) -> dict[str, Any]:
        reached.set()
        await asyncio.sleep(600)
        return {}

    model = model_of(vendor)

    async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState).add_node("answer", answer).add_node("tools", tools)
    builder.add_edge(START, "answer")
    builder.add_conditional_edges(
        "answer", lambda state: "tools" if state["messages"][-1].tool_calls else "__end__"
    )
    graph, conversation = builder.compile(), Conversation()
    vendor.script(Turn(calls=[Call("look", {}, "open")]))
    first = await run_async(graph, "look", conversation=conversation, timeout_s=1.0)
    assert reached.is_set()
    assert first.ending.type != "agent_completed"
    second = await run_async(graph, "go on", conversation=conversation)
    assert second.output == "You said: go on"
    assert [role for role, _ in said(vendor)] == ["user", "assistant", "tool", "user"]


async def test_an_in_memory_checkpointer_is_replaced_and_the_log_says_so(
    vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    saver = InMemorySaver()
    graph, conversation = chat(vendor, checkpointer=saver, store=InMemoryStore()), Conversation()
    with caplog.at_level(logging.WARNING):
        for text in ("one", "two"):
            await run_async(graph, text, conversation=conversation)
    assert len(vendor.requests[-1].messages) == 3
    assert not saver.storage
    assert graph.checkpointer is saver
    assert "in-memory checkpointer" in caplog.text
    assert "in-memory store" in caplog.text


class Elsewhere(BaseCheckpointSaver[str]):
    """A checkpointer that outlives processes, as one of a database does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = InMemorySaver()

    async def aget_tuple(self, config: Any) -> Any:
        return await self.inner.aget_tuple(config)

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.aput(*args, **kwargs)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        await self.inner.aput_writes(*args, **kwargs)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.inner.get_next_version(current, channel)


async def test_a_checkpointer_of_the_author_s_own_is_used_and_never_mixes_users(
    vendor: Vendor,
) -> None:
    saver = Elsewhere()
    graph = chat(vendor, checkpointer=saver)
    for user in ("ada", "bob"):
        mine = Conversation()
        for text in (f"{user} one", f"{user} two"):
            await run_async(graph, text, user=user, thread="t1", conversation=mine)
    assert mine.kept.load(blob_name("agent")) == (None, 0)
    assert len(saver.inner.storage) == 2
    said = [each["content"] for each in vendor.requests[-1].messages]
    assert said == ["bob one", "You said: bob one", "bob two"]


async def test_a_graph_that_wants_no_checkpoints_has_none(vendor: Vendor) -> None:
    graph, conversation = chat(vendor, checkpointer=False), Conversation()
    for text in ("one", "two"):
        await run_async(graph, text, conversation=conversation)
    assert len(vendor.requests[-1].messages) == 1
