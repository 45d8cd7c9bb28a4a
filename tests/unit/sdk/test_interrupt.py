"""Asking and interrupting without a chain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from factorychain import Agent, InputTimeout, Interrupt, Request, RunContext, ToolError, tool
from factorychain.input import Json
from factorychain.testing import RunResult, run


class Asks(Agent):
    """Asks as it is told."""

    @tool(approval=True)
    def wipe(self, disk: str) -> str:
        """Is synchronous."""
        return f"wiped {disk}"

    @tool
    async def gives_up(self) -> None:
        """Interrupts from inside of a call."""
        raise Interrupt("Why?")

    async def run(self, ctx: RunContext, text: str) -> object:
        case: Callable[[RunContext], object] = getattr(self, f"case_{text}")
        return await case(ctx)  # type: ignore[misc]

    async def case_form(self, ctx: RunContext) -> object:
        return await ctx.ask("Who?", {"type": "object", "required": ["name"]})

    async def case_tool(self, ctx: RunContext) -> object:
        return await ctx.ask("", kind="tool", tool="pick_file", arguments={"type": "pdf"})

    async def case_wipe(self, ctx: RunContext) -> object:
        try:
            return await ctx.tools.call("wipe", '{"disk":"sda"}')
        except ToolError as error:
            return [error.reason, str(error)]

    async def case_wrong(self, ctx: RunContext) -> object:
        return await ctx.tools.call("wipe", '{"disc":"sda"}')

    async def case_call(self, ctx: RunContext) -> object:
        return await ctx.call(self.gives_up)

    async def case_mixed(self, ctx: RunContext) -> object:
        async def fails() -> None:
            raise KeyError("a bug")

        async def asks() -> None:
            raise Interrupt("And?")

        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(asks())
        return None

    async def case_bounds(self, ctx: RunContext) -> object:
        problems = []
        for each in (
            ctx.ask(""),
            ctx.ask("?", timeout_s=0),
            ctx.ask("?", kind="tool"),
            ctx.ask("?", {"type": "nonsense"}),
            ctx.ask("x" * 70_000),
            ctx.ask("?", {"default": object()}),  # type: ignore[dict-item]
        ):
            try:
                await each
            except Exception as error:
                problems.append(type(error).__name__)
        return problems


def kinds(result: RunResult) -> list[str]:
    return [each.type for each in result.events]


def test_what_is_asked_is_shown_with_all_that_a_form_needs() -> None:
    result = run(Asks, "form", answers=[{"name": "Ada"}])
    assert result.output == {"name": "Ada"}
    asked, answered = result.events[1:3]
    assert asked.data["schema"] == {"type": "object", "required": ["name"]}
    assert (asked.data["request"], asked.data["kind"], "tool" in asked.data) == (
        "q1",
        "question",
        False,
    )
    assert answered.data == {"request": "q1", "value": {"name": "Ada"}}


def test_a_front_end_tool_is_asked_of_the_client() -> None:
    result = run(Asks, "tool", answers=lambda asked: [asked["tool"], asked["arguments"]])
    assert result.output == ["pick_file", {"type": "pdf"}]
    assert kinds(result) == [
        "agent_started",
        "input_requested",
        "input_received",
        "agent_completed",
    ]


@pytest.mark.parametrize(
    ("answer", "output", "begins"),
    [
        (True, "wiped sda", True),
        (False, ["REFUSED", "The user refused wipe"], False),
        (InputTimeout(), ["APPROVAL_TIMEOUT", "Nobody approved wipe in time"], False),
    ],
)
def test_a_call_begins_when_it_is_approved(answer: object, output: object, begins: bool) -> None:
    result = run(Asks, "wipe", answers=[answer])  # type: ignore[list-item]
    assert result.output == output
    assert ("tool_executing" in kinds(result)) is begins
    assert result.of_type("input_requested")[0].data["arguments"] == {"disk": "sda"}


def test_arguments_that_do_not_fit_are_refused_before_anybody_is_asked() -> None:
    result = run(Asks, "wrong")
    assert result.ending.type == "agent_failed"
    assert kinds(result) == ["agent_started", "tool_executing", "tool_completed", "agent_failed"]


def test_an_interrupt_closes_the_call_that_it_is_raised_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(Asks, "call")
    assert [each["prompt"] for each in result.pending if isinstance(each, dict)] == ["Why?"]
    assert result.of_type("tool_completed")[0].data["error"] == {
        "reason": "INTERRUPTED",
        "message": "The run waits for its user",
    }
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_beside_an_interrupt_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Asks, "mixed").ending.data["reason"] == "AGENT_FAILED"
    assert "a bug" in capsys.readouterr().err


def test_what_cannot_be_asked_says_so_where_it_is_asked() -> None:
    assert run(Asks, "bounds").output == [
        "ValueError",
        "ValueError",
        "ValueError",
        "InvalidField",
        "EventRejected",
        "ValueError",
    ]


def test_an_interrupt_has_requests_with_ids_of_their_own() -> None:
    found = Interrupt("one", [Request(prompt="two", request="b"), "three"], output=3)
    assert [each.prompt for each in found.requests] == ["one", "two", "three"]
    assert len({each.request for each in found.requests}) == 3
    for wrong in ([], [Request(prompt="x", request="a"), Request(prompt="y", request="a")]):
        with pytest.raises(ValueError):
            Interrupt(wrong)
    with pytest.raises(ValueError, match="32"):
        Interrupt(["?"] * 33)


def test_an_answer_that_is_missing_or_does_not_fit_fails_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases: list[tuple[list[Json], str]] = [
        ([], "no answer left"),
        ([{}], "'name' is a required property"),
    ]
    for answers, says in cases:
        assert run(Asks, "form", answers=answers).ending.data["reason"] == "AGENT_FAILED"
        assert says in capsys.readouterr().err
