"""What bounds a call of a tool: its time limit, its cancel, and what its function may be."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from functools import partial

import pytest

from factorychain import Agent, RunContext, ToolError, tool
from factorychain._instance.definition import BadAgent, define
from factorychain._instance.tool_set import tools_of
from factorychain.errors import RunEnded
from factorychain.testing import RunResult, run
from factorychain.tools import Tool
from tests.waiting import until_true


class Unprintable:
    """Has no JSON form, and its `repr` fails."""

    def __repr__(self) -> str:
        raise ValueError("no text")


class Doubles:
    """A tool that is an object."""

    async def __call__(self, number: int) -> int:
        """Twice as much."""
        return number * 2


async def add(number: int, to: int = 1) -> int:
    """Adds."""
    return number + to


def adds_later(number: int) -> Awaitable[int]:
    """A plain function that hands back a coroutine."""
    return add(number)


class Slow(Agent):
    """Does what takes too long, or ends in an odd way."""

    def __init__(self, seen: dict[str, object], released: threading.Event) -> None:
        self.seen = seen
        self.released = released

    @tool(timeout_s=0.01)
    async def hang(self) -> None:
        """Never ends."""
        await asyncio.Event().wait()

    @tool(timeout_s=30)
    async def own_timeout(self) -> None:
        """Has a time limit inside."""
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @tool(timeout_s=0.01)
    def blocks(self, ctx: RunContext) -> None:
        """Goes on in its thread, and tries to say so."""
        self.released.wait(10)
        try:
            ctx.wait(ctx.progress("still there"))
        except Exception as error:
            self.seen["blocks"] = error
        self.seen["done"] = True

    @tool
    def waits_for_another(self, ctx: RunContext) -> None:
        """Synchronous, and waits for a tool that never ends."""
        ctx.wait(self.for_ever())

    @tool
    async def for_ever(self) -> None:
        """Never ends."""
        try:
            await asyncio.Event().wait()
        finally:
            self.seen["for ever"] = "ended"

    @tool
    async def leaves(self) -> None:
        """Ends the interpreter, or would like to."""
        sys.exit(3)

    @tool
    async def unprintable(self) -> Unprintable:
        """Returns what nobody can show."""
        return Unprintable()

    @tool
    async def starts_more(self, ctx: RunContext) -> None:
        """Leaves a task behind that goes on telling how far it is."""
        self.later = asyncio.create_task(ctx.progress("late"))

    async def run(self, ctx: RunContext, text: str) -> object:
        return await getattr(self, f"case_{text}")(ctx)

    async def case_hang(self, ctx: RunContext) -> list[str]:
        reasons = []
        for name in ("hang", "own_timeout"):
            try:
                await ctx.tools.call(name)
            except (ToolError, TimeoutError) as error:
                reasons.append(getattr(error, "reason", "of its own"))
        return reasons

    async def case_blocks(self, ctx: RunContext) -> bool:
        try:
            await self.blocks()  # type: ignore[call-arg, misc]
        except ToolError:
            self.released.set()
        await until_true(lambda: "done" in self.seen)
        await ctx.say("the next event is not refused for it")
        return True

    async def case_cancelled(self, ctx: RunContext) -> None:
        call = asyncio.ensure_future(ctx.call(self.waits_for_another))
        await until_true(lambda: len(ctx._run.open_calls) == 2)
        call.cancel()
        await asyncio.wait([call])
        assert self.seen["for ever"] == "ended"

    async def case_leaves(self, ctx: RunContext) -> list[str]:
        found = await asyncio.gather(self.leaves(), self.leaves(), return_exceptions=True)
        return [type(each).__name__ for each in found]

    async def case_unprintable(self, ctx: RunContext) -> bool:
        return isinstance(await self.unprintable(), Unprintable)

    async def case_starts_more(self, ctx: RunContext) -> str:
        await self.starts_more()  # type: ignore[call-arg]
        try:
            await self.later
        except RuntimeError as error:
            return str(error)
        return ""

    async def case_odd(self, ctx: RunContext) -> list[int]:
        return [
            await ctx.call(adds_later, 1),
            await ctx.call(Doubles(), 2),
            await ctx.call(partial(add, to=5), number=1),
        ]


def slow(case: str) -> tuple[RunResult, dict[str, object]]:
    seen: dict[str, object] = {}
    overrides: dict[type, object] = {dict[str, object]: seen, threading.Event: threading.Event()}
    return run(Slow, case, overrides=overrides), seen


def ended(result: RunResult) -> list[tuple[object, object]]:
    """Tool and reason of each completed call, all of which were begun."""
    begun = sorted(str(each.data["call"]) for each in result.of_type("tool_executing"))
    completed = result.of_type("tool_completed")
    assert begun == sorted(str(each.data["call"]) for each in completed)
    errors = [each.data.get("error") for each in completed]
    reasons = [each["reason"] if isinstance(each, dict) else "" for each in errors]
    return [(each.data["tool"], why) for each, why in zip(completed, reasons, strict=True)]


def test_a_call_over_its_time_limit_is_cancelled_and_says_so_and_a_tools_own_limit_is_its_own() -> (
    None
):
    result, _ = slow("hang")
    assert result.output == ["TOOL_TIMEOUT", "of its own"]
    assert ended(result) == [("hang", "TOOL_TIMEOUT"), ("own_timeout", "TOOL_FAILED")]
    message = result.of_type("tool_completed")[0].data["error"]
    assert message == {
        "reason": "TOOL_TIMEOUT",
        "message": "hang did not finish within 0.01 s",
    }


def test_a_thread_over_its_time_limit_says_nothing_more_and_spoils_no_later_event() -> None:
    result, seen = slow("blocks")
    assert result.output is True
    assert ended(result) == [("blocks", "TOOL_TIMEOUT")]
    assert isinstance(seen["blocks"], RunEnded)
    assert result.of_type("tool_progress") == []


def test_a_cancelled_synchronous_tool_takes_along_what_it_waits_for() -> None:
    result, _ = slow("cancelled")
    assert result.ending.type == "agent_completed", result.ending
    assert ended(result) == [("for_ever", "CANCELLED"), ("waits_for_another", "CANCELLED")]


def test_a_tool_that_exits_fails_also_beside_others() -> None:
    result, _ = slow("leaves")
    assert result.output == ["RuntimeError", "RuntimeError"]
    assert ended(result) == [("leaves", "TOOL_FAILED")] * 2


def test_a_result_that_cannot_be_shown_closes_its_call() -> None:
    result, _ = slow("unprintable")
    assert result.output is True
    assert ended(result) == [("unprintable", "")]
    assert result.of_type("tool_completed")[0].data["result"] == "<Unprintable>"


def test_progress_of_a_call_that_is_over_is_an_error_of_who_says_it() -> None:
    result, _ = slow("starts_more")
    assert "its tool call is over" in str(result.output)
    assert result.of_type("tool_progress") == []


def test_functions_that_hand_back_coroutines_and_callable_objects_are_awaited() -> None:
    result, _ = slow("odd")
    assert result.output == [2, 4, 6]
    assert [name for name, _ in ended(result)] == ["adds_later", "tool", "tool"]


def generator(word: str) -> Iterator[str]:
    yield word


async def async_generator(word: str) -> AsyncIterator[str]:
    yield word


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_tool_that_yields_is_refused(function: object) -> None:
    with pytest.raises(TypeError, match="must not yield"):
        tool(function)  # type: ignore[call-overload]


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_time_limit_is_above_zero(timeout_s: float) -> None:
    with pytest.raises(TypeError, match="must be above 0"):
        tool(timeout_s=timeout_s)(add)


@pytest.mark.parametrize("name", ["two\nlines", "x" * 129])
def test_a_name_that_no_event_could_carry_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="its name must have"):
        Tool(add, name=name)


def test_static_and_class_methods_are_refused_and_not_forgotten() -> None:
    with pytest.raises(TypeError, match="make it a plain method"):
        Tool(staticmethod(add))

    class Static(Agent):
        lookup = staticmethod(tool(add))

        async def run(self, ctx: RunContext, text: str) -> None: ...

    with pytest.raises(TypeError, match="tool lookup: make it a plain method"):
        tools_of(Static)
    with pytest.raises(BadAgent, match="make it a plain method"):
        define(Static)
