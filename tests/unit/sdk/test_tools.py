"""Tools: schemas, validation, and the pair of events around every call."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from factorychain import Agent, AgentError, RunContext, ToolError, tool
from factorychain._instance.tool_set import tools_of
from factorychain.testing import RunResult, run
from factorychain.tools import Tool


class Place(BaseModel):
    """A place."""

    line: int


@tool
async def free(ctx: RunContext, word: str) -> str:
    """A tool that is no method."""
    return f"{ctx.user}: {word}"


class Busy(Agent):
    """Does as it is told."""

    tools = (free,)

    @tool
    async def search(
        self, query: str, limit: Annotated[int, Field(ge=1, description="how many")] = 5
    ) -> list[str]:
        """Find things."""
        return [query] * limit

    @tool(name="look-up", description="Looks up.")
    async def look_up(self, place: Place, json: str = "") -> int:
        return place.line

    @tool
    def blocking(self, value: int) -> list[object]:
        """Runs in a thread."""
        return [value, threading.current_thread() is threading.main_thread()]

    @tool
    async def fail(self, how: str) -> None:
        """Fails."""
        if how == "tool":
            raise ToolError("no such row", "NO_ROW")
        if how == "agent":
            raise AgentError("the lookup is down")
        raise ValueError("a detail of the code")

    @tool
    async def hang(self) -> None:
        """Never ends."""
        await asyncio.Event().wait()

    @tool
    async def large(self, size: int) -> str:
        """Much."""
        return "ü" * size

    @tool
    async def steps(self, ctx: RunContext) -> None:
        """Tells how far it is."""
        await ctx.progress({"done": 1})
        await self.search(query="inside")

    async def run(self, ctx: RunContext, text: str) -> object:
        return await getattr(self, f"case_{text}")(ctx)

    async def case_three_ways(self, ctx: RunContext) -> list[object]:
        return [
            await self.search(query="a", limit=1),
            await ctx.call(self.search, "b", limit=1),
            await ctx.tools.call("search", '{"query": "c", "limit": "1"}'),
        ]

    async def case_free(self, ctx: RunContext) -> list[object]:
        return [
            await ctx.call(free, word="x"),
            await ctx.tools.call("free", {"word": "y"}),
        ]

    async def case_sync(self, ctx: RunContext) -> object:
        return await ctx.call(self.blocking, value=4)

    async def case_parallel(self, ctx: RunContext) -> object:
        return await asyncio.gather(*(self.search(query=str(n), limit=1) for n in range(3)))

    async def case_fail(self, ctx: RunContext) -> list[str]:
        seen = []
        for how in ("tool", "agent", "bug"):
            try:
                await self.fail(how=how)
            except Exception as error:
                seen.append(type(error).__name__)
        return seen

    async def case_invalid(self, ctx: RunContext) -> list[str]:
        seen = []
        for name, arguments in (
            ("search", {"query": "a", "limit": 0}),
            ("search", {"quarry": "a"}),
            ("nothing", {}),
        ):
            try:
                await ctx.tools.call(name, arguments)
            except ToolError as error:
                seen.append(error.reason)
        return seen

    async def case_timeout(self, ctx: RunContext) -> str:
        try:
            async with asyncio.timeout(0.01):
                await self.hang()
        except TimeoutError:
            return "too slow"
        return ""

    async def case_large(self, ctx: RunContext) -> int:
        return len(await self.large(size=60_000))

    async def case_nested(self, ctx: RunContext) -> None:
        await ctx.call(self.steps)

    async def case_schemas(self, ctx: RunContext) -> list[dict[str, Any]]:
        return ctx.tools.schemas

    async def case_outside(self, ctx: RunContext) -> None:
        await ctx.progress("nowhere")

    async def case_model(self, ctx: RunContext) -> object:
        return await ctx.tools.call("look-up", {"place": {"line": 7}, "json": "x"}, message="m9")


def pairs(result: RunResult) -> list[tuple[str, bool]]:
    """(tool, ok) of each completed call, after checking that calls pair up."""
    began = {str(each.data["call"]): each for each in result.of_type("tool_executing")}
    ended = result.of_type("tool_completed")
    assert sorted(began) == sorted(str(each.data["call"]) for each in ended)
    assert all(began[str(each.data["call"])].seq < each.seq for each in ended)
    return [(str(each.data["tool"]), bool(each.data["ok"])) for each in ended]


def test_all_three_ways_of_calling_are_seen() -> None:
    result = run(Busy, "three_ways")
    assert result.output == [["a"], ["b"], ["c"]]
    assert pairs(result) == [("search", True)] * 3
    shown = [each.data["arguments"] for each in result.of_type("tool_executing")]
    assert shown == [{"query": word, "limit": 1} for word in "abc"]
    assert [each.data["result"] for each in result.of_type("tool_completed")] == result.output


def test_a_function_gets_the_context_that_its_schema_does_not_show() -> None:
    result = run(Busy, "free", user="ada")
    assert result.output == ["ada: x", "ada: y"]
    assert "ctx" not in str(tools_of(Busy)["free"].signature.schema)


def test_a_synchronous_tool_runs_in_a_thread() -> None:
    assert run(Busy, "sync").output == [4, False]


def test_calls_may_overlap_and_each_closes() -> None:
    result = run(Busy, "parallel")
    assert result.output == [["0"], ["1"], ["2"]]
    assert pairs(result) == [("search", True)] * 3


def test_users_read_what_was_written_for_them_and_nothing_of_a_bug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(Busy, "fail")
    assert result.output == ["ToolError", "AgentError", "ValueError"]
    errors = [each.data["error"] for each in result.of_type("tool_completed")]
    assert errors == [
        {"reason": "NO_ROW", "message": "no such row"},
        {"reason": "AGENT_ERROR", "message": "the lookup is down"},
        {"reason": "TOOL_FAILED", "message": "The tool failed"},
    ]
    assert "a detail of the code" in capsys.readouterr().err


def test_arguments_that_do_not_fit_are_told_to_the_model_and_seen() -> None:
    result = run(Busy, "invalid")
    assert result.output == ["INVALID_ARGUMENTS", "INVALID_ARGUMENTS", "TOOL_NOT_FOUND"]
    assert pairs(result) == [("search", False)] * 2
    assert "limit: " in str(result.of_type("tool_completed")[0].data["error"])


def test_a_cancelled_call_is_closed() -> None:
    result = run(Busy, "timeout")
    assert result.output == "too slow"
    assert result.of_type("tool_completed")[0].data["error"] == {
        "reason": "CANCELLED",
        "message": "The call was cancelled",
    }


def test_a_result_over_the_event_limit_is_cut_for_the_user_and_whole_for_the_agent() -> None:
    result = run(Busy, "large")
    assert result.output == 60_000
    shown = result.of_type("tool_completed")[0].data
    assert shown["truncated"]
    assert 10_000 < len(str(shown["result"]).encode()) < 65_536


def test_progress_and_inner_calls_belong_to_the_call_they_are_in() -> None:
    result = run(Busy, "nested")
    outer = result.of_type("tool_executing")[0].data["call"]
    assert result.of_type("tool_progress")[0].data == {"call": outer, "data": {"done": 1}}
    assert [name for name, _ in pairs(result)] == ["search", "steps"]
    inner, of_steps = result.spans
    assert inner.parent_id == of_steps.trace.split("-")[2]


def test_progress_outside_of_a_tool_is_an_error() -> None:
    assert run(Busy, "outside").ending.type == "agent_failed"


def test_schemas_come_from_annotations() -> None:
    output: Any = run(Busy, "schemas").output
    by_name = {each["name"]: each for each in output}
    assert by_name["search"]["description"] == "Find things."
    assert by_name["search"]["input_schema"] == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer", "minimum": 1, "default": 5, "description": "how many"},
        },
        "required": ["query"],
    }
    assert set(by_name) == {
        *("search", "look-up", "blocking", "fail", "hang", "large", "steps", "free")
    }


def test_a_models_call_names_its_message_and_gets_models() -> None:
    result = run(Busy, "model")
    assert result.output == 7
    assert result.of_type("tool_executing")[0].data["message"] == "m9"


async def test_outside_of_a_run_a_tool_is_its_function() -> None:
    assert await Busy().search(query="a", limit=0) == []


def test_tools_without_annotations_or_with_equal_names_are_refused() -> None:
    def bare(word):  # type: ignore[no-untyped-def]
        return word

    def many(*words: str) -> None: ...

    with pytest.raises(TypeError, match="annotate its parameter 'word'"):
        _ = Tool(bare).signature
    with pytest.raises(TypeError, match="name every argument"):
        _ = Tool(many).signature

    class Twice(Agent):
        tools = (free, Tool(many, name="free"))

    with pytest.raises(TypeError, match="two tools called 'free'"):
        tools_of(Twice)
