"""Graphs of LangGraph, unmodified, with a real client of a model and a server that speaks its protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.warnings import LangGraphDeprecatedSinceV10

from factorychain import AgentError
from factorychain.adapters.langgraph import agent
from factorychain.testing import RunResult, run_async
from tests.integration.adapters.graphs import (
    chat,
    model_of,
    nested,
    tool_loop,
)
from tests.vendor import Call, Turn, Vendor, VendorUsage

pytestmark = pytest.mark.usefixtures("langchain_clients")


def types_of(result: RunResult) -> list[str]:
    return [each.type for each in result.events]


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
