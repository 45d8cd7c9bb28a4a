"""What an agent says and sees."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from factorychain import Agent, AgentError, Input, PastRun, RunContext, TextPart
from factorychain.errors import EventRejected, InvalidField
from factorychain.testing import RunResult, run, run_async


class Speaks(Agent):
    """Does as it is told."""

    async def run(self, ctx: RunContext, text: str) -> object:
        return await getattr(self, f"case_{text}")(ctx)

    async def case_words(self, ctx: RunContext) -> str:
        await ctx.think("first")
        await ctx.say("aside")
        async with ctx.message() as message:
            await message.think("hm")
            await message.write("Hel")
            await message.write("")
            await message.say("lo")
        return message.text

    async def case_said(self, ctx: RunContext) -> str:
        await ctx.say("Hello")
        return "Hello"

    async def case_other(self, ctx: RunContext) -> str:
        await ctx.say("Hello")
        return "Hello."

    async def case_long(self, ctx: RunContext) -> str:
        text = "äöü" * 40_000
        await ctx.say(text)
        await ctx.think(text)
        return ""

    async def case_surrogate(self, ctx: RunContext) -> str:
        await ctx.think("a\ud800b")
        await ctx.say("\udc00")
        return "\ud800"

    async def case_custom(self, ctx: RunContext) -> None:
        await ctx.emit("plot", {"x": [1, 2]})
        for data, expected in (({"a": object()}, TypeError), ("x" * 70_000, EventRejected)):
            try:
                await ctx.emit("plot", data)
            except expected:
                await ctx.emit("caught")

    async def case_usage(self, ctx: RunContext) -> None:
        ctx.usage.add(input_tokens=10, requests=1)
        ctx.usage.add(output_tokens=5, requests=1)
        try:
            ctx.usage.add(requests=-1)
        except ValueError:
            return

    async def case_identity(self, ctx: RunContext) -> list[object]:
        assert ctx.deadline is not None
        in_future = ctx.deadline > datetime.now(UTC)
        return [ctx.tenant, ctx.user, ctx.thread, ctx.attempt, dict(ctx.metadata), in_future]

    async def case_read_only(self, ctx: RunContext) -> None:
        for name in ("user", "tenant", "input", "metadata"):
            with pytest.raises(AttributeError):
                setattr(ctx, name, "someone else")
        with pytest.raises(TypeError):
            ctx.metadata["a"] = 1  # type: ignore[index]

    async def case_history(self, ctx: RunContext) -> list[str]:
        return [
            f"{each.state} {each.input.text} {each.text}" for each in await ctx.history(limit=2)
        ]

    async def case_error(self, ctx: RunContext) -> None:
        raise AgentError("try later", reason="BUSY", retryable=True, retry_after_s=2.5)

    async def case_bug(self, ctx: RunContext) -> None:
        raise KeyError("a detail of the code")

    async def case_exit(self, ctx: RunContext) -> None:
        raise SystemExit(3)

    async def case_odd(self, ctx: RunContext) -> object:
        return object()

    async def case_huge(self, ctx: RunContext) -> str:
        return "x" * 300_000

    async def case_wait(self, ctx: RunContext) -> None:
        ctx.wait(ctx.think("from the loop"))

    async def case_late(self, ctx: RunContext) -> None:
        Speaks.kept = ctx

    kept: RunContext


class Blocks(Agent):
    """Is synchronous."""

    def run(self, ctx: RunContext, text: str) -> str:
        ctx.wait(ctx.think(text))
        return ctx.wait(self.shout(ctx))

    async def shout(self, ctx: RunContext) -> str:
        await ctx.say("LOUD")
        return "LOUD"


class TakesInput(Agent):
    async def run(self, ctx: RunContext, given: Input) -> int:
        assert given is not ctx.input or given == ctx.input
        return len(given.content)


class TakesNothing(Agent):
    async def run(self, ctx: RunContext) -> str:
        return ctx.input.text


def failure(result: RunResult) -> dict[str, object]:
    assert result.ending.type == "agent_failed"
    return {key: value for key, value in result.ending.data.items() if key != "usage"}


def test_a_message_is_one_and_the_output_names_it() -> None:
    result = run(Speaks, "words")
    deltas = [
        (each.type, each.data["message"], each.data["text"])
        for each in result.events
        if each.type.endswith("_delta")
    ]
    assert deltas == [
        ("message_delta", "m1", "aside"),
        ("thinking_delta", "m2", "hm"),
        ("message_delta", "m2", "Hel"),
        ("message_delta", "m2", "lo"),
    ]
    assert result.output == "Hello"
    assert result.ending.data["message"] == "m2"


def test_the_output_names_a_message_only_if_it_equals_it() -> None:
    assert run(Speaks, "said").ending.data["message"] == "m1"
    assert "message" not in run(Speaks, "other").ending.data


def test_long_text_becomes_several_events_that_each_fit() -> None:
    result = run(Speaks, "long")
    text = "äöü" * 40_000
    assert result.text == text
    assert "".join(str(each.data["text"]) for each in result.of_type("agent_thinking")) == text
    sizes = [len(str(each.data["text"]).encode()) for each in result.of_type("message_delta")]
    assert max(sizes) < 65_536
    assert len(sizes) == 4


def test_text_that_utf8_cannot_say_does_not_break_a_run() -> None:
    result = run(Speaks, "surrogate")
    assert result.of_type("agent_thinking")[0].data["text"] == "a?b"
    assert (result.text, result.output) == ("?", "?")


def test_events_of_the_authors_own() -> None:
    result = run(Speaks, "custom")
    assert [each.data for each in result.of_type("custom")] == [
        {"name": "plot", "data": {"x": [1, 2]}},
        {"name": "caught", "data": None},
        {"name": "caught", "data": None},
    ]


def test_usage_is_counted_and_reported_by_the_ending() -> None:
    result = run(Speaks, "usage")
    assert result.usage.requests == 2
    assert result.ending.data["usage"] == {
        "input_tokens": 10,
        "output_tokens": 5,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "requests": 2,
    }


def test_identity_and_metadata_are_there_and_read_only() -> None:
    result = run(Speaks, "identity", tenant="acme", user="ada", thread="t9", metadata={"k": 1})
    assert result.output == ["acme", "ada", "t9", 1, {"k": 1}, True]
    assert run(Speaks, "read_only").ending.type == "agent_completed"


def test_history_is_the_latest_runs_the_oldest_first() -> None:
    past = [
        PastRun(str(n), "a", "completed", Input(f"q{n}", (TextPart(f"q{n}"),)), f"a{n}")
        for n in range(3)
    ]
    assert run(Speaks, "history", history=past).output == ["completed q1 a1", "completed q2 a2"]


def test_only_the_text_of_an_agent_error_reaches_users(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(run(Speaks, "error")) == {
        "reason": "BUSY",
        "message": "try later",
        "retryable": True,
        "retry_after_s": 2.5,
    }
    capsys.readouterr()
    for case in ("bug", "exit", "odd", "wait"):
        result = run(Speaks, case)
        assert failure(result)["reason"] == "AGENT_FAILED"
        assert failure(result)["message"] == f"The agent failed (run r{0:a>24})"
    assert "a detail of the code" in capsys.readouterr().err


def test_an_output_over_its_limit_is_a_failure_that_says_so() -> None:
    assert failure(run(Speaks, "huge"))["reason"] == "OUTPUT_TOO_LARGE"


def test_a_synchronous_agent_runs_in_a_thread_and_can_speak() -> None:
    result = run(Blocks, "thought")
    assert [each.type for each in result.events] == [
        "agent_started",
        "agent_thinking",
        "message_delta",
        "agent_completed",
    ]
    assert result.output == "LOUD"


def test_run_gets_what_it_is_annotated_with() -> None:
    both = {"content": [{"type": "text", "text": "a"}, {"type": "image", "url": "u"}]}
    assert run(TakesInput, both).output == 2  # type: ignore[arg-type]
    assert run(TakesNothing, "x").output == "x"
    with pytest.raises(InvalidField):
        run(TakesInput, {"text": 1})


async def test_nothing_can_be_said_after_the_end() -> None:
    await run_async(Speaks, "late")
    with pytest.raises(Exception, match="the run is over"):
        await Speaks.kept.think("still here")


async def test_a_run_that_takes_too_long_is_cancelled() -> None:
    class Slow(Agent):
        async def run(self, ctx: RunContext, text: str) -> None:
            await asyncio.Event().wait()

    result = await run_async(Slow, "x", timeout_s=0.02)
    assert result.ending.type == "agent_cancelled"
