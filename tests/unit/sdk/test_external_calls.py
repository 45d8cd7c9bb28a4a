"""Calls of tools that a framework runs itself, and reasoning that is streamed."""

from __future__ import annotations

import asyncio

import pytest

from factorychain import Agent, RunContext, ToolError
from factorychain._instance.external_calls import begin_call, tool_call
from factorychain.testing import RunResult, run, run_async


class Framework(Agent):
    """Reports calls as a framework would."""

    async def run(self, ctx: RunContext, text: str) -> object:
        return await getattr(self, f"case_{text}")(ctx)

    async def case_pair(self, ctx: RunContext) -> None:
        call = await begin_call(ctx._run, "look\nup", {"q": "a"}, "call_Ab1", message="m1")
        await call.progress({"done": 1})
        await call.end([1, 2])

    async def case_failed(self, ctx: RunContext) -> None:
        call = await begin_call(ctx._run, "search", "no json")
        await call.fail("NO_ROW", "no such row")

    async def case_twice(self, ctx: RunContext) -> None:
        call = await begin_call(ctx._run, "search", {})
        await call.end("first")
        await call.end("second")
        await call.fail("LATE", "too late")
        await call.progress("too late")

    async def case_ids(self, ctx: RunContext) -> None:
        for wanted in ("same", "same", "c1", "with space", "", None):
            call = await begin_call(ctx._run, "search", {}, wanted)
            await call.end()

    async def case_overlapping(self, ctx: RunContext) -> None:
        one = await begin_call(ctx._run, "one", {})
        two = await begin_call(ctx._run, "two", {})
        await one.end()
        await two.end()

    async def case_left(self, ctx: RunContext) -> str:
        await begin_call(ctx._run, "one", {})
        await begin_call(ctx._run, "two", {})
        return "done"

    async def case_raises(self, ctx: RunContext) -> None:
        await begin_call(ctx._run, "one", {})
        raise ValueError("of the framework")

    async def case_hangs(self, ctx: RunContext) -> None:
        await begin_call(ctx._run, "one", {})
        await begin_call(ctx._run, "two", {})
        await asyncio.Event().wait()

    async def case_inside(self, ctx: RunContext) -> None:
        async with tool_call(ctx._run, "search", {"q": "a"}) as call:
            await ctx.progress("half")
            await ctx.think("in the call")
            await call.end("found")
        async with tool_call(ctx._run, "nothing", {}):
            pass
        for error in (ToolError("no such row", "NO_ROW"), ValueError("a detail of the code")):
            with pytest.raises(type(error)):
                async with tool_call(ctx._run, "fails", {}):
                    raise error

    async def case_reasoning(self, ctx: RunContext) -> str:
        async with ctx.thinking() as thinking, ctx.message() as message:
            await thinking.write("Let me ")
            await message.write("Yes")
            await thinking.write("")
            await thinking.write("see")
        return f"{thinking.text}|{message.text}"


def completed(result: RunResult) -> list[dict[str, object]]:
    return [dict(each.data) for each in result.of_type("tool_completed")]


def test_a_reported_call_is_a_pair_with_a_span() -> None:
    result = run(Framework, "pair")
    began, progress, ended = result.events[1:4]
    assert began.data == {
        "call": "call_Ab1",
        "tool": "look up",
        "arguments": {"q": "a"},
        "message": "m1",
    }
    assert (progress.type, progress.data) == (
        "tool_progress",
        {"call": "call_Ab1", "data": {"done": 1}},
    )
    assert (ended.data["call"], ended.data["ok"], ended.data["result"]) == (
        "call_Ab1",
        True,
        [1, 2],
    )
    assert [each.name for each in result.spans] == ["execute_tool look up"]


def test_a_reported_failure_has_its_own_text() -> None:
    result = run(Framework, "failed")
    assert result.of_type("tool_executing")[0].data["arguments"] == {"arguments": "no json"}
    assert completed(result)[0]["error"] == {"reason": "NO_ROW", "message": "no such row"}
    assert result.spans[0].error == "NO_ROW"


def test_the_first_end_counts() -> None:
    result = run(Framework, "twice")
    assert [each.type for each in result.events[1:-1]] == ["tool_executing", "tool_completed"]
    assert completed(result)[0]["result"] == "first"


def test_an_id_that_is_taken_or_malformed_is_replaced_by_one_of_our_own() -> None:
    result = run(Framework, "ids")
    calls = [each["call"] for each in completed(result)]
    assert calls == ["same", "c1", "c2", "c3", "c4", "c5"]


def test_calls_may_overlap() -> None:
    result = run(Framework, "overlapping")
    shown = [(each.type, each.data["tool"]) for each in result.events[1:-1]]
    assert shown == [
        ("tool_executing", "one"),
        ("tool_executing", "two"),
        ("tool_completed", "one"),
        ("tool_completed", "two"),
    ]


@pytest.mark.parametrize(("case", "ending"), [("left", "agent_completed"), ("raises", "agent_failed")])  # fmt: skip
def test_a_call_that_was_left_open_is_closed_before_the_ending(case: str, ending: str) -> None:
    result = run(Framework, case)
    assert result.ending.type == ending
    opened = [each.data["call"] for each in result.of_type("tool_executing")]
    assert [each["call"] for each in completed(result)] == opened
    reasons = {str(each["error"]["reason"]) for each in completed(result)}  # type: ignore[index]
    assert reasons == {"CANCELLED"}


async def test_a_cancelled_run_closes_what_is_open() -> None:
    result = await run_async(Framework, "hangs", timeout_s=0.05)
    assert result.ending.type == "agent_cancelled"
    assert [each["tool"] for each in completed(result)] == ["one", "two"]


def test_what_is_said_inside_of_an_enclosed_call_belongs_to_it() -> None:
    result = run(Framework, "inside")
    first, nothing, told, hidden = completed(result)
    assert result.of_type("tool_progress")[0].data == {"call": first["call"], "data": "half"}
    assert (first["result"], nothing["result"]) == ("found", None)
    assert told["error"] == {"reason": "NO_ROW", "message": "no such row"}
    assert hidden["error"] == {"reason": "TOOL_FAILED", "message": "The tool failed"}


def test_reasoning_has_a_stream_of_its_own() -> None:
    result = run(Framework, "reasoning")
    deltas = result.of_type("thinking_delta")
    assert [each.data["text"] for each in deltas] == ["Let me ", "see"]
    assert len({each.data["message"] for each in deltas}) == 1
    assert deltas[0].data["message"] != result.of_type("message_delta")[0].data["message"]
    assert result.output == "Let me see|Yes"
