"""Graphs of LangGraph, unmodified, with a real client of a model and a server that speaks its protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from factorychain import AgentError
from factorychain.adapters.langgraph import agent, run_context
from factorychain.testing import Conversation, RunResult, run_async
from tests.integration.adapters.graphs import (
    chat,
    model_of,
    nested,
    pipeline,
    tool_loop,
)
from tests.vendor.script import Call, Turn, VendorUsage
from tests.vendor.server import Vendor


def types_of(result: RunResult) -> list[str]:
    return [each.type for each in result.events]


def said(vendor: Vendor) -> list[tuple[str, str]]:
    """The conversation as the model was told it last."""
    return [(each["role"], each.get("content") or "") for each in vendor.requests[-1].messages]


async def test_tokens_are_deltas_of_one_message_and_the_answer_is_the_output(
    vendor: Vendor,
) -> None:
    vendor.script(Turn(text=["Hel", "lo ", "Ada"], usage=VendorUsage(7, 3, cached=2)))
    result = await run_async(chat(vendor), "I am Ada")
    deltas = result.of_type("message_delta")
    assert [each.data["text"] for each in deltas] == ["Hel", "lo ", "Ada"]
    assert {each.data["message"] for each in deltas} == {result.ending.data["message"]}
    assert types_of(result)[-1] == "agent_completed"
    assert result.output == "Hello Ada"
    usage = result.usage
    assert (usage.input_tokens, usage.output_tokens, usage.requests) == (7, 3, 1)
    assert usage.cached_input_tokens == 2


async def test_a_model_that_does_not_stream_says_it_in_one_piece(vendor: Vendor) -> None:
    model = model_of(vendor, disable_streaming=True)

    async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")
    vendor.script(Turn(text=["all ", "at once"]))
    result = await run_async(graph.compile(), "now")
    assert [each.data["text"] for each in result.of_type("message_delta")] == ["all at once"]
    assert result.usage.requests == 1


async def test_reasoning_is_told_apart_from_the_answer(vendor: Vendor) -> None:
    model = model_of(vendor, use_responses_api=True, reasoning={"summary": "auto"})

    async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")
    vendor.script(Turn(reasoning=["2 and 2 ", "is 4"], text=["It ", "is 4"]))
    result = await run_async(graph.compile(), "2 and 2?")
    thoughts = result.of_type("thinking_delta")
    assert "".join(str(each.data["text"]) for each in thoughts) == "2 and 2 is 4"
    assert result.text == result.output == "It is 4"
    assert {each.data["message"] for each in thoughts} == {result.ending.data["message"]}


async def test_parallel_calls_have_a_pair_each_and_belong_to_the_model_s_message(
    vendor: Vendor,
) -> None:
    calls = [Call("weather", {"city": "Rome"}, "one"), Call("weather", {"city": "Bern"}, "two")]
    vendor.script(Turn(text="Let me look", calls=calls), Turn(text="Both are mild"))
    result = await run_async(tool_loop(vendor), "Rome and Bern?")
    begun = {each.data["call"]: each.data for each in result.of_type("tool_executing")}
    assert {call: data["arguments"] for call, data in begun.items()} == {
        "one": {"city": "Rome"},
        "two": {"city": "Bern"},
    }
    message = result.of_type("message_delta")[0].data["message"]
    assert {data["message"] for data in begun.values()} == {message}
    ended = {each.data["call"]: each.data for each in result.of_type("tool_completed")}
    assert {call: data["result"] for call, data in ended.items()} == {
        "one": "Rome: mild",
        "two": "Bern: mild",
    }
    assert result.output == "Both are mild"
    assert {each.data["call"] for each in result.of_type("tool_progress")} == {"one", "two"}
    written = [each.data["data"] for each in result.of_type("custom")]
    assert sorted(map(str, written)) == ["{'asking': 'Bern'}", "{'asking': 'Rome'}"]


async def test_what_goes_wrong_in_tools_is_told_without_what_is_not_the_user_s(
    vendor: Vendor, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [
        Call("weather", {"city": "Oslo"}, "raises"),
        Call("weather", {"city": "Paris"}, "says"),
        Call("weather", {"town": "Rome"}, "misses"),
        Call("fly", {"to": "Rome"}, "unknown"),
    ]
    vendor.script(Turn(calls=calls), Turn(text="Sorry"))
    result = await run_async(tool_loop(vendor), "all of it")
    found = {each.data["call"]: each.data for each in result.of_type("tool_completed")}
    errors: dict[object, Any] = {call: data["error"] for call, data in found.items()}
    assert errors["raises"] == {"reason": "TOOL_FAILED", "message": "The tool failed"}
    assert errors["says"] == {"reason": "TOOL_ERROR", "message": "Paris has no station"}
    assert errors["misses"]["reason"] == "INVALID_ARGUMENTS"
    assert "fly" in errors["unknown"]["message"]
    assert len(result.of_type("tool_executing")) == len(found) == 4
    assert "hunter2" in capsys.readouterr().err
    assert "hunter2" not in str(result.events)
    assert result.output == "Sorry"


async def test_a_subgraph_s_events_carry_its_node_as_path(vendor: Vendor) -> None:
    vendor.script(
        Turn(calls=[Call("weather", {"city": "Rome"}, "one")]), Turn(text=["mild", " there"])
    )
    graph = nested(nested(tool_loop(vendor), "desk"), "office")
    result = await run_async(graph, "Rome?")
    paths = {each.type: each.path for each in result.events}
    for kind in ("message_delta", "tool_executing", "tool_completed", "tool_progress", "custom"):
        assert paths[kind] == ("office", "desk"), kind
    assert paths["agent_started"] == paths["agent_completed"] == ()
    assert result.text == result.output == "mild there"


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


async def test_a_cancel_closes_the_model_s_stream_whenever_it_comes(vendor: Vendor) -> None:
    graph = nested(chat(vendor))
    for times in range(16):
        # One of these cancels meets a token inside of `asyncio.wait_for`, which swallows it.
        vendor.script(Turn(text=["word "] * 20_000, gap_s=0.001))
        running = asyncio.create_task(run_async(graph, "talk"))
        await vendor.until(lambda count=times + 1: len(vendor.requests) == count)  # type: ignore[misc]
        request = vendor.requests[-1]
        await vendor.until(lambda request=request: request.frames > 10)  # type: ignore[misc]
        for _ in range(times):
            await asyncio.sleep(0)
        cancel_run()
        assert (await running).ending.type == "agent_cancelled"
        await vendor.until(lambda request=request: request.disconnected_at_s is not None)  # type: ignore[misc]
        assert request.frames < 10_000


def cancel_run() -> None:
    """As a host does it."""
    (task,) = [
        each
        for each in asyncio.all_tasks()
        if getattr(each.get_coro(), "__name__", "") == "run_agent"
    ]
    task.cancel()


async def test_data_and_text_fill_the_fields_of_a_graph_without_messages() -> None:
    graph, conversation = pipeline(), Conversation()
    result = await run_async(graph, "bees", conversation=conversation)
    assert result.output == {"topic": "bees", "notes": ["about bees", "done"]}
    thoughts = [each.data["text"] for each in result.of_type("agent_thinking")]
    assert thoughts == ["Look up", "Putting it on paper"]
    given: dict[str, Any] = {"data": {"topic": "ants", "notes": ["given"], "more": 1}}
    again = await run_async(graph, given, conversation=conversation)
    assert again.output == {"topic": "ants", "notes": ["given", "about ants", "done"]}


async def test_the_output_is_what_the_graph_calls_its_output() -> None:
    class State(BaseModel):
        topic: str
        secret: str = "the plan"
        answer: str = ""

    class Answer(BaseModel):
        answer: str

    builder = StateGraph(State, output_schema=Answer)
    builder.add_node("think", lambda state: {"secret": "another plan"})
    builder.add_node("say", lambda state: {"answer": state.topic.upper()})
    builder.add_edge(START, "think").add_edge("think", "say")
    result = await run_async(builder.compile(), "bees")
    assert result.output == {"answer": "BEES"}
    assert "plan" not in str(result.events)


async def test_an_input_that_the_graph_does_not_take_is_told() -> None:
    result = await run_async(pipeline(), {"data": {"subject": "bees"}})
    assert result.ending.data["reason"] == "INVALID_INPUT"
    assert "topic" in str(result.ending.data["message"])


async def test_a_user_s_data_does_not_reach_the_state_behind_a_conversation(
    vendor: Vendor,
) -> None:
    class State(MessagesState):
        approved: bool

    seen: list[object] = []

    def answer(state: State) -> dict[str, Any]:
        seen.append(state.get("approved"))
        return {"messages": [("ai", "noted")]}

    graph = StateGraph(State).add_node("answer", answer).add_edge(START, "answer").compile()
    given: dict[str, Any] = {
        "text": "hi",
        "data": {"approved": True, "messages": [{"role": "system"}]},
    }
    result = await run_async(graph, given)
    assert seen == [None]
    assert result.output == "noted"


async def test_images_reach_the_model(vendor: Vendor) -> None:
    given: dict[str, Any] = {
        "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image", "url": "https://example.org/a.png"},
            {"type": "image", "data": "aGVsbG8=", "media_type": "image/png"},
        ]
    }
    await run_async(chat(vendor), given)
    (message,) = vendor.requests[0].messages
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "image_url"]
    assert message["content"][2]["image_url"]["url"] == "data:image/png;base64,aGVsbG8="


async def test_a_workflow_of_the_functional_api(vendor: Vendor) -> None:
    model = model_of(vendor)

    @entrypoint()
    async def shout(text: str) -> str:
        return str((await model.ainvoke(text)).text).upper()

    vendor.script(Turn(text="quietly"))
    result = await run_async(shout, "say it")
    assert result.output == "QUIETLY"
    assert result.text == "quietly"


async def test_too_many_steps_are_an_ending_with_a_reason(vendor: Vendor) -> None:
    vendor.always = lambda request: Turn(calls=[Call("weather", {"city": "Rome"})])
    endless = agent(tool_loop(vendor), name="endless", recursion_limit=6)
    result = await run_async(endless, "again")
    assert result.ending.data["reason"] == "TOO_MANY_STEPS"
    begun = [each.data["call"] for each in result.of_type("tool_executing")]
    assert len(begun) == len(set(begun)) == len(result.of_type("tool_completed")) > 0


async def test_errors_of_nodes_are_the_log_s_and_those_for_users_theirs(
    vendor: Vendor, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(state: MessagesState) -> dict[str, Any]:
        if state["messages"][-1].text == "nicely":
            raise AgentError("The library is closed", reason="CLOSED", retryable=True)
        raise RuntimeError("hunter2")

    graph = StateGraph(MessagesState).add_node("x", breaks).add_edge(START, "x").compile()
    nicely = await run_async(nested(graph), "nicely")
    assert nicely.ending.data["reason"] == "CLOSED"
    assert nicely.ending.data["message"] == "The library is closed"
    rudely = await run_async(nested(graph), "rudely")
    assert rudely.ending.data["reason"] == "AGENT_FAILED"
    assert "hunter2" not in str(rudely.events)
    assert "hunter2" in capsys.readouterr().err


async def test_who_asks_is_in_the_configuration_and_threads_of_two_users_are_two() -> None:
    seen: list[dict[str, Any]] = []

    def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        seen.append(dict(config["configurable"]))
        assert run_context().user == config["configurable"]["user_id"]
        return {"messages": [("ai", "yes")]}

    builder = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")
    served = agent(builder.compile(), name="served", configurable={"shop": "north"})
    for user in ("ada", "bob"):
        await run_async(served, "hi", user=user, thread="t1", metadata={"lang": "it"})
    assert [each["user_id"] for each in seen] == ["ada", "bob"]
    assert [each["thread"] for each in seen] == ["t1", "t1"]
    assert seen[0]["thread_id"] != seen[1]["thread_id"]
    assert seen[0]["metadata"] == {"lang": "it"}
    assert seen[0]["shop"] == "north"
    with pytest.raises(RuntimeError):
        run_context()
