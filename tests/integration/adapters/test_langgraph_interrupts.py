"""What a graph waits for: interrupts, approvals, breakpoints, also inside of another agent."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any

import pytest
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from factorychain import Agent, RunContext
from factorychain.adapters.langgraph import agent
from factorychain.adapters.langgraph.checkpoints import blob_name
from factorychain.testing import Conversation, RunResult, run_async
from tests.integration.adapters.graphs import (
    CompiledGraph,
    chat,
    tool_loop,
)
from tests.vendor import Call, Turn, Vendor

pytestmark = pytest.mark.usefixtures("langchain_clients")


class Form(TypedDict):
    topic: str
    answers: Annotated[list[str], operator.add]


def asks(key: str) -> Any:
    def node(state: Form) -> dict[str, list[str]]:
        return {"answers": [f"{key}: {interrupt({'question': f'{key}?', 'key': key})}"]}

    return node


def pending(result: RunResult) -> dict[str, str]:
    """What a run that has ended waits for: the request of each prompt."""
    waiting: Any = result.ending.data["pending"]
    return {each["prompt"]: each["request"] for each in waiting}


def form() -> CompiledGraph:
    """Two questions at once, one of them in a subgraph."""
    inner = StateGraph(Form).add_node("colour", asks("colour")).add_edge(START, "colour")
    outer = StateGraph(Form).add_node("size", asks("size")).add_node("inner", inner.compile())
    graph: CompiledGraph = outer.add_edge(START, "size").add_edge(START, "inner").compile()
    return graph


async def test_questions_that_are_asked_at_once_are_answered_together() -> None:
    graph, conversation = form(), Conversation()
    first = await run_async(graph, "shoes", conversation=conversation)
    asked = pending(first)
    assert set(asked) == {"colour?", "size?"}
    shown: list[Any] = [each.data["data"] for each in first.of_type("custom")]
    assert {each["value"]["key"] for each in shown} == {"colour", "size"}
    answers: dict[str, Any] = {asked["colour?"]: "red", asked["size?"]: 9}
    last = await run_async(graph, "shoes", conversation=conversation, resume=answers)
    output: Any = last.output
    assert output["topic"] == "shoes"
    assert sorted(output["answers"]) == ["colour: red", "size: 9"]


async def test_an_answer_alone_leaves_the_other_question_open() -> None:
    graph, conversation = form(), Conversation()
    asked = pending(await run_async(graph, "shoes", conversation=conversation))
    one: dict[str, Any] = {asked["size?"]: 9}
    second = await run_async(graph, "shoes", conversation=conversation, resume=one)
    assert pending(second) == {"colour?": asked["colour?"]}
    other: dict[str, Any] = {asked["colour?"]: "red"}
    last: Any = await run_async(graph, "shoes", conversation=conversation, resume=other)
    assert sorted(last.output["answers"]) == ["colour: red", "size: 9"]


async def test_an_answer_to_what_is_over_says_so() -> None:
    graph = form()
    result = await run_async(graph, "shoes", conversation=Conversation(), resume={"q1": "red"})
    assert result.ending.data["reason"] == "NOTHING_TO_RESUME"


async def test_a_new_message_instead_of_an_answer_goes_on_without_it(vendor: Vendor) -> None:
    @tool
    def send(letter: str) -> str:
        """Send a letter."""
        return f"sent {letter}: {interrupt(f'Send {letter}?')}"

    graph, conversation = tool_loop(vendor, [send]), Conversation()
    vendor.script(Turn(calls=[Call("send", {"letter": "mine"}, "c1")]), Turn(text="fine"))
    first = await run_async(graph, "send it", conversation=conversation)
    assert list(pending(first)) == ["Send mine?"]
    error: Any = first.of_type("tool_completed")[0].data["error"]
    assert error["reason"] == "INTERRUPTED"
    second = await run_async(graph, "never mind", conversation=conversation)
    assert second.output == "fine"
    assert [each["role"] for each in vendor.requests[-1].messages] == [
        "user", "assistant", "tool", "user",
    ]  # fmt: skip


async def test_actions_that_a_human_decides_on() -> None:
    def review(state: MessagesState) -> dict[str, Any]:
        actions = [{"name": "pay", "args": {"sum": 9}, "description": "Pay 9"}]
        return {"messages": [("ai", str(interrupt({"action_requests": actions})))]}

    graph = StateGraph(MessagesState).add_node("review", review).add_edge(START, "review").compile()
    for answer, decision in ((True, "approve"), (False, "reject"), ({"type": "edit"}, "edit")):
        conversation = Conversation()
        first = await run_async(graph, "pay", conversation=conversation)
        asked: Any = first.ending.data["pending"]
        (waiting,) = asked
        assert (waiting["kind"], waiting["tool"]) == ("approval", "pay")
        resume: Any = {waiting["request"]: answer}
        last = await run_async(graph, "pay", conversation=conversation, resume=resume)
        assert f"'type': '{decision}'" in str(last.output)


async def test_a_breakpoint_is_an_approval_to_go_on() -> None:
    builder = StateGraph(Form)
    builder.add_node("draft", lambda state: {"answers": ["drafted"]})
    builder.add_node("send", lambda state: {"answers": ["sent"]})
    builder.add_edge(START, "draft").add_edge("draft", "send")
    graph = builder.compile(interrupt_before=["send"])
    for approved in (True, False):
        conversation = Conversation()
        asked = pending(await run_async(graph, "mail", conversation=conversation))
        assert list(asked) == ["Go on with send?"]
        resume: dict[str, Any] = {asked["Go on with send?"]: approved}
        last = await run_async(graph, "mail", conversation=conversation, resume=resume)
        if approved:
            assert last.output == {"topic": "mail", "answers": ["drafted", "sent"]}
        else:
            assert last.ending.data["reason"] == "NOT_APPROVED"


class Desk(Agent):
    """Asks graphs."""

    async def run(self, ctx: RunContext, text: str) -> object:
        first = await ctx.run("clerk", "one")
        left, right = await asyncio.gather(
            ctx.run("clerk", "two", name="left"), ctx.run("clerk", "three", name="right")
        )
        return [first, left, right, await ctx.run("clerk", "four")]


async def test_a_graph_as_a_sub_agent_begins_anew_with_each_call(vendor: Vendor) -> None:
    clerk = agent(chat(vendor), name="clerk")
    result = await run_async(Desk, "go", agents=[clerk], conversation=Conversation())
    assert result.output == [f"You said: {each}" for each in ("one", "two", "three", "four")]
    assert {len(each.messages) for each in vendor.requests} == {1}
    paths = {each.path for each in result.of_type("message_delta")}
    assert paths == {("clerk",), ("left",), ("right",)}


class Buyer(Agent):
    """Asks two graphs, of which the second asks the user."""

    async def run(self, ctx: RunContext, text: str) -> object:
        return [await ctx.run("clerk", "one"), await ctx.run("shop", "shoes")]


async def test_a_question_of_a_sub_agent_is_answered_where_it_was_asked(vendor: Vendor) -> None:
    agents = [agent(chat(vendor), name="clerk"), agent(form(), name="shop")]
    conversation = Conversation()
    first = await run_async(Buyer, "buy", agents=agents, conversation=conversation)
    asked = pending(first)
    answers: dict[str, Any] = {asked["colour?"]: "red", asked["size?"]: 9}
    last: Any = await run_async(
        Buyer, "buy", agents=agents, conversation=conversation, resume=answers
    )
    assert last.output[0] == "You said: one"
    assert sorted(last.output[1]["answers"]) == ["colour: red", "size: 9"]
    assert conversation.kept.load(blob_name("shop/shop")) == (None, 0)
