"""What users see of an agent's run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, NativeOutput, PromptedOutput, ToolReturn
from pydantic_ai import RunContext as Context
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import (
    CustomEvent,
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.profiles import ModelProfile

from factorychain import RunContext, ToolError
from factorychain.adapters.pydantic_ai import agent
from factorychain.testing import run_async
from tests.integration.adapters.pydantic_ai.models import Models, outline
from tests.vendor import Call, Turn, Vendor

PROTOCOLS = ["chat", "responses", "anthropic"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_words_are_streamed_and_the_output_names_its_message(
    vendor: Vendor, model: Models, protocol: str
) -> None:
    vendor.script(Turn(reasoning=["I ", "see."], text=["Good ", "day."]))
    result = await run_async(Agent(model(protocol)), "hello")
    assert outline(result) == ["think I ", "think see.", "say Good ", "say day."]
    said = result.of_type("message_delta")[0].data["message"]
    assert result.ending.data["output"] == "Good day."
    assert result.ending.data["message"] == said
    assert result.of_type("thinking_delta")[0].data["message"] != said


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_parallel_tools_overlap_and_belong_to_their_message(
    vendor: Vendor, model: Models, protocol: str
) -> None:
    served = Agent(model(protocol))
    together = asyncio.Barrier(2)

    @served.tool_plain
    async def look(city: str) -> str:
        await together.wait()
        return f"{city}: mild"

    calls = [Call("look", {"city": "Turin"}), Call("look", {"city": "Oslo"})]
    vendor.script(Turn(text="Let me see.", calls=calls), Turn(text="Mild."))
    result = await run_async(served, "weather?")
    kinds = [each.type for each in result.events if each.type.startswith("tool_")]
    assert kinds == ["tool_executing"] * 2 + ["tool_completed"] * 2
    answers = [each.data["result"] for each in result.of_type("tool_completed")]
    assert sorted(map(str, answers)) == ["Oslo: mild", "Turin: mild"]
    first = result.of_type("message_delta")[0].data["message"]
    assert {each.data["message"] for each in result.of_type("tool_executing")} == {first}
    assert vendor.requests[1].tool_results == ["Turin: mild", "Oslo: mild"]
    assert [span.name for span in result.spans] == ["execute_tool look"] * 2


async def test_a_retried_call_ends_before_the_next_begins(vendor: Vendor, model: Models) -> None:
    served = Agent(model())

    @served.tool_plain
    def look(city: str) -> str:
        if city != "Turin":
            raise ModelRetry("I know only Turin")
        return "mild"

    vendor.script(
        Turn(calls=[Call("look", {"city": "Oslo"})]),
        Turn(calls=[Call("look", {"city": "Turin"})]),
        Turn(text="Mild."),
    )
    assert outline(await run_async(served, "weather?")) == [
        "look({'city': 'Oslo'})",
        "look={'reason': 'RETRY', 'message': 'I know only Turin'}",
        "look({'city': 'Turin'})",
        "look=mild",
        "say Mild.",
    ]


async def test_arguments_that_do_not_fit_are_shown_as_a_call_that_failed(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())

    @served.tool_plain
    def look(days: int) -> str:
        return "mild"

    vendor.script(
        Turn(calls=[Call("look", {"days": "many"})]),
        Turn(calls=[Call("look", {"days": 2})]),
        Turn(text="Mild."),
    )
    shown = outline(await run_async(served, "weather?"))
    assert shown[0] == "look({'days': 'many'})"
    assert "'reason': 'INVALID_ARGUMENTS', 'message': 'look: days: Input should be" in shown[1]
    assert shown[2:] == ["look({'days': 2})", "look=mild", "say Mild."]


async def test_a_tool_that_fails_for_good_tells_the_model_and_the_user(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())

    @served.tool_plain
    def theirs() -> str:
        raise ToolFailed("closed for good")

    @served.tool_plain
    def ours() -> str:
        raise ToolError("closed today", reason="CLOSED")

    vendor.script(Turn(calls=[Call("theirs"), Call("ours")]), Turn(text="Sorry."))
    shown = outline(await run_async(served, "open?"))
    assert "theirs={'reason': 'TOOL_ERROR', 'message': 'closed for good'}" in shown
    assert "ours={'reason': 'CLOSED', 'message': 'closed today'}" in shown
    assert shown[-1] == "say Sorry."
    assert vendor.requests[1].tool_results[0].count("closed for good") == 1
    assert vendor.requests[1].tool_results[1].count("closed today") == 1


async def test_a_tool_with_a_bug_says_nothing_of_it(
    vendor: Vendor, model: Models, capfd: pytest.CaptureFixture[str]
) -> None:
    served = Agent(model())

    @served.tool_plain
    def look() -> str:
        raise ValueError("the secret path")

    vendor.script(Turn(calls=[Call("look")]))
    result = await run_async(served, "go")
    assert outline(result)[1:] == [
        "look={'reason': 'TOOL_FAILED', 'message': 'The tool failed'}",
        "failed AGENT_FAILED",
    ]
    assert "the secret path" not in str(result.events)
    assert capfd.readouterr().err.count("ValueError: the secret path") == 1


async def test_what_a_tool_returns_for_the_model_alone_is_not_shown(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())

    @served.tool_plain
    def look() -> ToolReturn[str]:
        return ToolReturn("seen", content="for the model", metadata={"for": "the application"})

    vendor.script(Turn(calls=[Call("look")]), Turn(text="ok"))
    assert outline(await run_async(served, "go")) == ["look({})", "look=seen", "say ok"]


class Trip(BaseModel):
    city: str
    days: int


async def test_structured_output_is_the_output_and_no_tool(vendor: Vendor, model: Models) -> None:
    served = Agent(model(), output_type=Trip)
    vendor.script(
        Turn(calls=[Call("final_result", {"city": "Turin"})]),
        Turn(text="Here:", calls=[Call("final_result", {"city": "Turin", "days": 2})]),
    )
    result = await run_async(served, "a trip")
    assert outline(result) == ["say Here:"]
    assert result.output == {"city": "Turin", "days": 2}
    assert "message" not in result.ending.data


@pytest.mark.parametrize("how", [NativeOutput, PromptedOutput, None])
async def test_structured_output_that_is_text_is_not_shown_as_a_message(
    vendor: Vendor, model: Models, how: type[NativeOutput[Trip] | PromptedOutput[Trip]] | None
) -> None:
    # Without a choice of the author's the kind of model decides.
    of_its_kind: ModelProfile = {"default_structured_output_mode": "native"}
    served = Agent(model(profile=of_its_kind), output_type=how(Trip) if how else Trip)
    vendor.script(Turn(text=['{"city": "Turin",', ' "days": 2}']))
    result = await run_async(served, "a trip")
    assert outline(result) == []
    assert result.output == {"city": "Turin", "days": 2}


async def test_a_call_that_is_passed_over_is_not_shown(vendor: Vendor, model: Models) -> None:
    served = Agent(model(), output_type=Trip, end_strategy="early")

    @served.tool_plain
    def look() -> str:
        return "never"

    done = Call("final_result", {"city": "Turin", "days": 2})
    vendor.script(Turn(calls=[done, Call("look")]))
    assert outline(await run_async(served, "a trip")) == []


async def test_an_output_validator_may_ask_again(vendor: Vendor, model: Models) -> None:
    served = Agent(model())

    @served.output_validator
    def polite(text: str) -> str:
        if "please" not in text:
            raise ModelRetry("say please")
        return text

    vendor.script(Turn(text="Sit."), Turn(text="Sit, please."))
    result = await run_async(served, "go")
    messages = [each.data["message"] for each in result.of_type("message_delta")]
    assert result.output == "Sit, please."
    assert result.ending.data["message"] == messages[1] != messages[0]


async def test_a_sub_agent_in_a_tool_is_shown_as_the_tool(vendor: Vendor, model: Models) -> None:
    helper = Agent(model())
    served = Agent(model())

    @helper.tool_plain
    def inside() -> str:
        return "deep"

    @served.tool
    async def delegate(ctx: Context[object], task: str) -> str:
        return (await helper.run(task, usage=ctx.usage)).output

    vendor.script(
        Turn(calls=[Call("delegate", {"task": "dig"})]),
        Turn(calls=[Call("inside")]),
        Turn(text="treasure"),
        Turn(text="Found it."),
    )
    assert outline(await run_async(served, "go")) == [
        "delegate({'task': 'dig'})",
        "delegate=treasure",
        "say Found it.",
    ]


@dataclass(kw_only=True)
class StepEvent(CustomEvent, name="test_f.step"):
    done: int


async def test_events_of_the_agents_own_and_progress_belong_to_the_run(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model(), deps_type=RunContext)

    @served.tool
    async def work(ctx: Context[RunContext]) -> str:
        await ctx.emit(StepEvent(done=1))
        await ctx.deps.progress({"half": True})
        return ctx.deps.user

    vendor.script(Turn(calls=[Call("work")]), Turn(text="ok"))
    result = await run_async(agent(served, name="worker"), "go", user="ada")
    assert "test_f.step: {'done': 1}" in outline(result)
    assert "work=ada" in outline(result)
    (executing,) = result.of_type("tool_executing")
    (progress,) = result.of_type("tool_progress")
    assert progress.data == {"call": executing.data["call"], "data": {"half": True}}


async def test_the_agents_own_handler_of_events_still_hears_them(
    vendor: Vendor, model: Models
) -> None:
    heard: list[str] = []
    served = Agent(model())

    @served.on_event
    async def hear(ctx: Context[object], event: object) -> None:
        heard.append(type(event).__name__)

    vendor.script(Turn(text=["a", "b"]))
    result = await run_async(served, "go")
    assert outline(result) == ["say a", "say b"]
    assert "PartDeltaEvent" in heard


async def test_a_model_that_answers_at_once_is_shown_in_one_piece() -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse([TextPart("Done.")])
        return ModelResponse([TextPart("Wait."), ToolCallPart("look", {})])

    served = Agent(FunctionModel(answer))

    @served.tool_plain
    def look() -> str:
        return "seen"

    shown = outline(await run_async(served, "go"))
    assert shown == ["say Wait.", "look({})", "look=seen", "say Done."]
