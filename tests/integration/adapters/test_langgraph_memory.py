"""What a graph waits for and what it keeps: interrupts, checkpointers, stores of the author's own."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import operator
from typing import Annotated, Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import interrupt
from langgraph.warnings import LangGraphDeprecatedSinceV10
from typing_extensions import TypedDict

from factorychain import Agent, RunContext
from factorychain.adapters import adapt
from factorychain.adapters.langgraph import agent
from factorychain.adapters.langgraph.checkpoints import blob_name
from factorychain.testing import Conversation, RunResult, run_async
from tests.integration.adapters.graphs import CompiledGraph, chat, model_of, nested, tool_loop
from tests.vendor import Call, Turn, Vendor


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


async def test_graphs_of_the_prebuilt_agent(vendor: Vendor) -> None:
    from langgraph.prebuilt import create_react_agent

    @tool
    def look(thing: str) -> str:
        """Look at a thing."""
        return f"{thing} is blue"

    with pytest.warns(LangGraphDeprecatedSinceV10):
        graph = create_react_agent(model_of(vendor), [look], prompt="Be brief.")
    vendor.script(
        Turn(calls=[Call("look", {"thing": "sky"}), Call("look", {"thing": "sea"})]),
        Turn(text="Both are blue"),
    )
    result = await run_async(nested(graph), "colours?")
    ended = [each.data["result"] for each in result.of_type("tool_completed")]
    assert sorted(map(str, ended)) == ["sea is blue", "sky is blue"]
    assert result.output == "Both are blue"
    assert not result.of_type("agent_thinking")


async def test_a_context_schema_gets_what_is_known_of_the_run() -> None:
    @dataclasses.dataclass
    class Known:
        user_id: str
        shop: str = ""

    def node(state: MessagesState, runtime: Runtime[Known]) -> dict[str, Any]:
        return {"messages": [("ai", f"{runtime.context.user_id} in {runtime.context.shop}")]}

    builder = StateGraph(MessagesState, context_schema=Known).add_node("n", node)
    graph = builder.add_edge(START, "n").compile()
    served = agent(graph, name="served", configurable={"shop": "north"})
    result = await run_async(served, "hi", user="ada")
    assert result.output == "ada in north"


async def test_functions_that_a_node_calls_itself_are_shown_once(vendor: Vendor) -> None:
    @tool
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    model = model_of(vendor).bind_tools([double])

    async def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def work(state: MessagesState) -> dict[str, Any]:
        calls = state["messages"][-1].tool_calls  # type: ignore[union-attr]
        return {
            "messages": [
                ToolMessage(str(await double.ainvoke(each["args"])), tool_call_id=each["id"])
                for each in calls
            ]
        }

    builder = StateGraph(MessagesState).add_node("call", call).add_node("work", work)
    builder.add_edge(START, "call").add_edge("call", "work")
    calls = [Call("double", {"number": 2}, "c1"), Call("double", {"number": 3}, "c2")]
    vendor.script(Turn(calls=calls))
    result = await run_async(builder.compile(), "double them")
    assert [each.data["result"] for each in result.of_type("tool_completed")] == [4, 6]
    assert result.output == "6"


async def test_input_and_output_may_be_mapped() -> None:
    class Square(TypedDict):
        number: int

    def node(state: Square) -> dict[str, int]:
        return {"number": state["number"] ** 2}

    graph = StateGraph(Square).add_node("n", node).add_edge(START, "n").compile()

    def shown(state: Any) -> str:
        return f"{state['number']}!"

    served = agent(
        graph,
        name="square",
        input=lambda ctx: {"number": int(ctx.input.text)},
        output=shown,
    )
    assert (await run_async(served, "12")).output == "144!"


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


def test_names_come_from_variables_and_choices_from_the_author() -> None:
    graph = form()
    adapted = adapt(graph, "My_Graph")
    assert adapted is not None
    assert adapted.name == "my_graph"
    with pytest.raises(TypeError, match="nonsense"):
        agent(graph, name="x", nonsense=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="compile"):
        agent(StateGraph(Form), name="x")
