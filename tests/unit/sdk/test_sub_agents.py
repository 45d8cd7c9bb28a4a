"""Agents that are run inside of a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from pydantic import BaseModel

from factorychain import Agent, AgentError, Input, Interrupt, Request, RunContext, tool
from factorychain._instance.active import ActiveRun
from factorychain._instance.known_agents import KnownAgents, agents_in
from factorychain._instance.recorder import Recorder
from factorychain._instance.runner import abandon, run_agent
from factorychain._instance.spec import RunSpec
from factorychain._instance.sub_agents import DEPTH_MAX, SubAgents
from factorychain.errors import (
    AgentDependencyMissing,
    AgentNotFound,
    FactoryChainError,
    InvalidField,
    RunEnded,
    SubAgentRefused,
)
from factorychain.input import ImagePart, TextPart
from factorychain.testing import Conversation, RunResult, run
from tests.waiting import until_true

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Resource:
    """Notes its end."""

    def __init__(self) -> None:
        self.is_open = True


made: list[Resource] = []


def resource() -> Iterator[Resource]:
    found = Resource()
    made.append(found)
    yield found
    found.is_open = False


class Missing:
    """Nobody makes one."""

    def __init__(self, port: int) -> None: ...


providers = [resource]


class Order(BaseModel):
    """An order."""

    item: str


class Inner(Agent):
    """Says what it does."""

    name = "inner"

    def __init__(self, found: Resource) -> None:
        self.found = found

    @tool
    async def look(self, ctx: RunContext, what: str) -> str:
        await ctx.progress("half")
        return f"{what}!"

    async def run(self, ctx: RunContext, text: str) -> object:
        if text == "agent_error":
            raise AgentError("out of paper", reason="PAPER")
        if text == "bug":
            raise KeyError("a detail of the code")
        if text == "exit":
            raise SystemExit(3)
        if text == "hang":
            await asyncio.Event().wait()
        if text == "late":
            late.append(ctx)
        await ctx.think(f"thinking of {text}")
        ctx.usage.add(requests=1)
        found = await ctx.call(self.look, what=text)
        async with ctx.message() as message:
            await message.write(found)
        await asyncio.sleep(0)
        return found


late: list[RunContext] = []


class Blocks(Agent):
    """Works in a thread."""

    name = "blocks"

    def run(self, ctx: RunContext, text: str) -> str:
        ctx.wait(ctx.think("in a thread"))
        return text.upper()


class Takes(Agent):
    """Takes an order."""

    name = "takes"

    async def run(self, ctx: RunContext, order: Order) -> str:
        return order.item


class Looks(Agent):
    """Says what it was given."""

    name = "looks"

    async def run(self, ctx: RunContext, given: Input) -> object:
        kinds = [type(each).__name__ for each in given.content]
        return [given.text, kinds, given.data, ctx.input.text == given.text]


class Needy(Agent):
    """Misses something."""

    name = "needy"

    def __init__(self, missing: Missing) -> None: ...

    async def run(self, ctx: RunContext, text: str) -> None: ...


class Deep(Agent):
    """Runs itself."""

    name = "deep"

    async def run(self, ctx: RunContext, text: str) -> object:
        await ctx.think(text)
        try:
            return await ctx.run("deep", str(int(text) + 1))
        except SubAgentRefused as error:
            return [text, error.message]


class Counts(Agent):
    """Counts in the conversation's state."""

    name = "counts"

    async def run(self, ctx: RunContext, text: str) -> object:
        return await ctx.state.update(lambda count: int(str(count)) + 1, default=0)


class Asks(Agent):
    """Asks the user, in the middle and at the end."""

    name = "asks"

    async def run(self, ctx: RunContext, text: str) -> object:
        if text == "interrupt" and ctx.resume is None:
            raise Interrupt(Request(prompt="Which city?", request="city"))
        if ctx.resume is not None:
            return ctx.resume["city"]
        return await ctx.ask("How many?", {"type": "integer"})


clinging: list[asyncio.Event] = []


class Clings(Agent):
    """Does not let go."""

    name = "clings"

    def __init__(self, found: Resource) -> None: ...

    async def run(self, ctx: RunContext, text: str) -> None:
        until = asyncio.Event()
        clinging.append(until)
        while not until.is_set():
            with suppress(asyncio.CancelledError):
                await until.wait()
        await ctx.think("still here")


class Outer(Agent):
    """Runs others."""

    name = "outer"

    @tool
    async def ask(self, ctx: RunContext, what: str) -> object:
        return await ctx.run("inner", what)

    async def run(self, ctx: RunContext, text: str) -> object:
        return await getattr(self, f"case_{text}")(ctx)

    async def case_one(self, ctx: RunContext) -> object:
        await ctx.think("before")
        found = await ctx.run(Inner, "paper")
        await ctx.think("after")
        return found

    async def case_parallel(self, ctx: RunContext) -> object:
        return await asyncio.gather(
            ctx.run("inner", "a"), ctx.run("inner", "b"), ctx.run("inner", "c", name="third")
        )

    async def case_in_a_tool(self, ctx: RunContext) -> object:
        return await ctx.call(self.ask, what="pens")

    async def case_thread(self, ctx: RunContext) -> object:
        return await ctx.run("blocks", "aloud")

    async def case_inputs(self, ctx: RunContext) -> object:
        image = Input("see", (TextPart("see"), ImagePart(data=b"png", media_type="image/png")))
        return [
            await ctx.run("takes", Order(item="a")),
            await ctx.run("takes", {"item": "b"}),
            await ctx.run("takes", {"data": {"item": "c"}}),
            await ctx.run("looks", image),
            await ctx.run("looks", {"text": "hi", "data": [1]}),
            await ctx.run("looks", [1, 2]),
            await ctx.run("looks"),
        ]

    async def case_errors(self, ctx: RunContext) -> list[object]:
        class Elsewhere(Agent):
            """Nobody has registered it."""

            name = "inner"

            async def run(self, ctx: RunContext, text: str) -> None: ...

        seen: list[object] = []
        for agent, given in (
            ("nobody", "x"),
            ("needy", "x"),
            ("takes", "no order"),
            ("inner", "agent_error"),
            (Elsewhere, "x"),
        ):
            try:
                await ctx.run(agent, given)
            except FactoryChainError as error:
                seen.append([type(error).__name__, error.message])
        return seen

    async def case_agent_error(self, ctx: RunContext) -> None:
        await ctx.run("inner", "agent_error")

    async def case_bug(self, ctx: RunContext) -> None:
        await ctx.run("inner", "bug")

    async def case_exit(self, ctx: RunContext) -> str:
        results = await asyncio.gather(ctx.run("inner", "exit"), return_exceptions=True)
        return type(results[0]).__name__

    async def case_hang(self, ctx: RunContext) -> None:
        await asyncio.gather(ctx.run("inner", "hang"), ctx.run("inner", "hang"))

    async def case_times_out(self, ctx: RunContext) -> object:
        try:
            async with asyncio.timeout(0.01):
                await ctx.run("inner", "hang")
        except TimeoutError:
            await ctx.think("it took too long")
        return await ctx.run("inner", "again")

    async def case_deep(self, ctx: RunContext) -> object:
        return await ctx.run("deep", "1")

    async def case_late(self, ctx: RunContext) -> str:
        await ctx.run("inner", "late")
        try:
            await late[-1].think("after its end")
        except RunEnded:
            return "it has ended"
        return "it goes on"

    async def case_asks(self, ctx: RunContext) -> object:
        return await ctx.run("asks", "ask")

    async def case_interrupt(self, ctx: RunContext) -> object:
        return [await ctx.run("asks", "interrupt")]

    async def case_clings(self, ctx: RunContext) -> None:
        await ctx.run("clings")

    async def case_no_agent(self, ctx: RunContext) -> None:
        await ctx.run(Resource, "x")  # type: ignore[arg-type]

    async def case_no_json(self, ctx: RunContext) -> None:
        await ctx.run("looks", Resource())

    async def case_state(self, ctx: RunContext) -> object:
        await ctx.state.set(5)
        await asyncio.gather(*(ctx.run("counts") for _ in range(4)))
        return await ctx.state.get()


@pytest.fixture(autouse=True)
def _nothing_made() -> Iterator[None]:
    made.clear()
    late.clear()
    yield
    assert not any(each.is_open for each in made)


def ran(case: str) -> RunResult:
    result = run(Outer, case)
    assert result.ending.type == "agent_completed", result.ending
    opened = [str(each.data["call"]) for each in result.of_type("tool_executing")]
    assert len(set(opened)) == len(opened)
    assert sorted(opened) == sorted(
        str(each.data["call"]) for each in result.of_type("tool_completed")
    )
    return result


def test_a_sub_agent_is_a_call_and_what_it_says_has_its_path() -> None:
    result = ran("one")
    assert result.output == "paper!"
    assert [(each.type, each.path) for each in result.events] == [
        ("agent_started", ()),
        ("agent_thinking", ()),
        ("tool_executing", ()),
        ("agent_thinking", ("inner",)),
        ("tool_executing", ("inner",)),
        ("tool_progress", ("inner",)),
        ("tool_completed", ("inner",)),
        ("message_delta", ("inner",)),
        ("tool_completed", ()),
        ("agent_thinking", ()),
        ("agent_completed", ()),
    ]
    began, ended = result.events[2], result.events[8]
    assert (began.data["tool"], began.data["arguments"]) == ("inner", {"text": "paper"})
    assert (ended.data["ok"], ended.data["result"]) == (True, "paper!")
    # What a sub-agent has streamed and its caller returns is not shown twice.
    assert result.ending.data["message"] == result.of_type("message_delta")[0].data["message"]
    assert result.usage.requests == 1


def test_sub_agents_at_once_each_have_their_own() -> None:
    result = ran("parallel")
    assert result.output == ["a!", "b!", "c!"]
    assert result.usage.requests == 3
    assert len(made) == 3
    messages = {each.data["message"]: each.path for each in result.of_type("message_delta")}
    assert sorted(messages.values()) == [("inner",), ("inner",), ("third",)]
    assert len({each.trace for each in result.spans}) == 6


def test_a_tool_may_run_one() -> None:
    result = ran("in_a_tool")
    assert result.output == "pens!"
    assert [each.data["tool"] for each in result.of_type("tool_executing")] == [
        "ask",
        "inner",
        "look",
    ]
    by_trace = {each.trace.split("-")[2]: each for each in result.spans}
    look = next(each for each in result.spans if each.name.endswith("look"))
    assert by_trace[look.parent_id].name.endswith("inner")
    assert by_trace[by_trace[look.parent_id].parent_id].name.endswith("ask")


def test_one_may_work_in_a_thread() -> None:
    result = ran("thread")
    assert result.output == "ALOUD"
    assert [each.path for each in result.of_type("agent_thinking")] == [("blocks",)]


def test_its_input_is_whatever_an_input_may_be() -> None:
    assert ran("inputs").output == [
        "a",
        "b",
        "c",
        ["see", ["TextPart", "ImagePart"], None, True],
        ["hi", ["TextPart"], [1], True],
        ["", [], [1, 2], True],
        ["", ["TextPart"], None, True],
    ]


def test_what_cannot_be_run_says_why_and_what_fails_is_raised() -> None:
    seen = ran("errors").output
    assert isinstance(seen, list)
    kinds = [each[0] for each in seen if isinstance(each, list)]
    assert kinds == [
        each.__name__
        for each in (AgentNotFound, AgentDependencyMissing, InvalidField, AgentError, AgentNotFound)
    ]
    assert "inner" in str(seen[0])
    assert "takes" in str(seen[0])
    assert "Missing" in str(seen[1])


def test_an_agent_error_that_nobody_handles_ends_the_run() -> None:
    result = run(Outer, "agent_error")
    assert result.ending.data["reason"] == "PAPER"
    assert result.ending.data["message"] == "out of paper"
    (call,) = result.of_type("tool_completed")
    assert call.data["error"] == {"reason": "PAPER", "message": "out of paper"}


def test_a_bug_in_it_is_in_the_log_once_and_nowhere_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(Outer, "bug")
    assert result.ending.data["reason"] == "AGENT_FAILED"
    assert capsys.readouterr().err.count("a detail of the code") == 2  # its line, and the error
    assert "a detail of the code" not in str(result.events)


def test_one_that_exits_ends_nothing_but_itself() -> None:
    assert ran("exit").output == "RuntimeError"


def test_a_cancel_reaches_it() -> None:
    began = time.monotonic()
    result = run(Outer, "hang", timeout_s=0.1)
    assert time.monotonic() - began < 5
    assert result.ending.type == "agent_cancelled"
    assert [each.data["error"] for each in result.of_type("tool_completed")] == [
        {"reason": "CANCELLED", "message": "The call was cancelled"}
    ] * 2


def test_who_does_not_wait_for_it_any_longer_goes_on() -> None:
    result = ran("times_out")
    assert result.output == "again!"
    assert [each.data["ok"] for each in result.of_type("tool_completed")] == [False, True, True]


def test_agents_run_one_another_only_so_deep() -> None:
    result = ran("deep")
    assert isinstance(result.output, list)
    assert result.output[0] == str(DEPTH_MAX)
    assert f"more than {DEPTH_MAX} deep" in str(result.output[1])
    depths = [len(each.path) for each in result.of_type("agent_thinking")]
    assert depths == list(range(1, DEPTH_MAX + 1))


def test_nothing_is_said_in_its_name_after_its_end() -> None:
    assert ran("late").output == "it has ended"


def test_what_it_asks_is_the_runs_question_with_its_path() -> None:
    result = run(Outer, "asks", answers=[3])
    assert result.output == 3
    for kind in ("input_requested", "input_received"):
        assert [each.path for each in result.of_type(kind)] == [("asks",)], kind


def test_its_interrupt_is_the_runs_and_so_are_the_answers() -> None:
    result = run(Outer, "interrupt")
    assert [each["prompt"] for each in result.pending if isinstance(each, dict)] == ["Which city?"]
    assert run(Outer, "interrupt", resume={"city": "Turin"}).output == ["Turin"]


async def test_one_that_does_not_stop_is_let_go_with_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = RunSpec("acme", "ada", "t1", "r1", "outer", 1, '{"text":"clings"}', trace=TRACE)
    known = KnownAgents(agents_in(__name__))
    host = Recorder()
    sub_agents = SubAgents(known.find, confined_to=None)
    active = ActiveRun(spec, host, asyncio.get_running_loop(), sub_agents=sub_agents)
    main = await known.find("outer")
    task = asyncio.create_task(run_agent(active, main.definition, main.injection))
    await until_true(lambda: clinging)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    await abandon(active)
    assert not made[-1].is_open
    said = len(host.events)
    clinging.pop().set()  # its code goes on, and says something
    await task
    assert len(host.events) == said
    await known.close()


def test_what_is_no_agent_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Outer, "no_agent").ending.type == "agent_failed"
    assert "is neither the name nor the class of an agent" in capsys.readouterr().err
    assert run(Outer, "no_json").ending.type == "agent_failed"
    assert "ctx.run: the input has no JSON form" in capsys.readouterr().err


def test_the_conversations_state_is_one() -> None:
    conversation = Conversation()
    assert run(Outer, "state", conversation=conversation).output == 9
    assert conversation.state == 9
