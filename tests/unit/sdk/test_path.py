"""Which part of an agent says something."""

from __future__ import annotations

import asyncio

import pytest

from factorychain import Agent, RunContext, tool
from factorychain._instance.external_calls import begin_call
from factorychain._instance.path import NAMES_MAX, TOP
from factorychain.testing import RunResult, run
from factorychain.types.v1.event_pb2 import Event


class Parted(Agent):
    """Says things in parts of itself, as a graph with subgraphs does."""

    @tool
    async def look(self, ctx: RunContext) -> str:
        await ctx.progress("half")
        with ctx._run.within("deeper"):
            await ctx.think("looking")
        return "found"

    async def run(self, ctx: RunContext, text: str) -> object:
        return await getattr(self, f"case_{text}")(ctx)

    async def case_within(self, ctx: RunContext) -> None:
        await ctx.think("before")
        with ctx._run.within("planner"):
            await ctx.say("inside")
            with ctx._run.within("writer"):
                await ctx.emit("mine", 1)
            async with ctx.thinking() as thinking:
                await thinking.write("again")
        await ctx.think("after")

    async def case_tools(self, ctx: RunContext) -> None:
        with ctx._run.within("planner"):
            await ctx.call(self.look)

    async def case_ends_elsewhere(self, ctx: RunContext) -> None:
        with ctx._run.within("planner"):
            call = await begin_call(ctx._run, "search", {})
        await call.progress(1)
        await call.end("found")

    async def case_parallel(self, ctx: RunContext) -> None:
        async def part(name: str) -> None:
            with ctx._run.within(name):
                await asyncio.sleep(0)
                await ctx.think(name)

        await asyncio.gather(part("left"), part("right"), ctx.think(""))

    async def case_long_text(self, ctx: RunContext) -> None:
        with ctx._run.within(*["n" * 128] * 16):
            await ctx.say("x" * 100_000)


def said(case: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.type, each.path) for each in completed(case).events[1:-1]]


def completed(case: str) -> RunResult:
    result = run(Parted, case)
    assert result.ending.type == "agent_completed", result.ending
    assert {result.events[0].path, result.ending.path} == {()}
    return result


def test_what_is_said_in_a_part_has_its_path() -> None:
    assert said("within") == [
        ("agent_thinking", ()),
        ("message_delta", ("planner",)),
        ("custom", ("planner", "writer")),
        ("thinking_delta", ("planner",)),
        ("agent_thinking", ()),
    ]


def test_calls_of_a_part_and_what_they_say_are_of_the_part() -> None:
    assert said("tools") == [
        ("tool_executing", ("planner",)),
        ("tool_progress", ("planner",)),
        ("agent_thinking", ("planner", "deeper")),
        ("tool_completed", ("planner",)),
    ]


def test_a_call_ends_in_the_part_where_it_began() -> None:
    assert {path for _, path in said("ends_elsewhere")} == {("planner",)}


def test_parts_that_speak_at_once_are_told_apart() -> None:
    events = completed("parallel").of_type("agent_thinking")
    assert {(each.data["text"], each.path) for each in events} == {
        ("left", ("left",)),
        ("right", ("right",)),
        ("", ()),
    }


def test_long_text_fits_into_events_whatever_their_path() -> None:
    result = completed("long_text")
    assert result.text == "x" * 100_000


@pytest.mark.parametrize(
    ("name", "shown"),
    [("", "agent"), ("a\nb", "a b"), ("\ud800", "?"), ("n" * 500, "n" * 128)],
)
def test_names_are_such_as_every_layer_takes(name: str, shown: str) -> None:
    path = TOP.within(name)
    assert path.names == (shown,)
    assert list(Event.FromString(path.field).path) == [shown]


def test_what_is_deeper_than_a_path_can_say_has_the_path_of_what_it_is_in() -> None:
    path = TOP.within(*(str(each) for each in range(NAMES_MAX))).within("deeper")
    assert path.names == tuple(str(each) for each in range(NAMES_MAX))
