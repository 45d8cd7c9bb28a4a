"""Agents of Pydantic AI, as they are, with a vendor that speaks the vendors' protocols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    ModelRetry,
    NativeOutput,
    ToolReturn,
    UsageLimits,
)
from pydantic_ai import (
    RunContext as Context,
)
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import CustomEvent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from factorychain import AgentError, RunContext, ToolError
from factorychain.adapters.pydantic_ai import agent
from factorychain.testing import Conversation, RunResult, run_async
from tests.vendor import Call, Fault, Turn, Vendor

PROTOCOLS = ["chat", "responses", "anthropic"]


class Models:
    """Models of the vendor; their connections are closed with the test."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._clients: list[AsyncOpenAI | AsyncAnthropic] = []

    def __call__(self, protocol: str = "chat", max_retries: int = 2) -> Model:
        vendor = self._vendor
        if protocol == "anthropic":
            theirs = AsyncAnthropic(base_url=vendor.url, api_key=vendor.key)
            self._clients.append(theirs)
            return AnthropicModel(
                "claude-test", provider=AnthropicProvider(anthropic_client=theirs)
            )
        client = AsyncOpenAI(
            base_url=vendor.openai_url, api_key=vendor.key, max_retries=max_retries
        )
        self._clients.append(client)
        kind = OpenAIChatModel if protocol == "chat" else OpenAIResponsesModel
        return kind("gpt-test", provider=OpenAIProvider(openai_client=client))

    async def close(self) -> None:
        for each in self._clients:
            await each.close()


@pytest.fixture
async def model(vendor: Vendor) -> AsyncIterator[Models]:
    made = Models(vendor)
    yield made
    await made.close()


def outline(result: RunResult) -> list[str]:
    """What happened, in short: `text` for deltas, `name(call)` and `name=` for tools."""
    told = {
        "message_delta": lambda data: f"say {data['text']}",
        "thinking_delta": lambda data: f"think {data['text']}",
        "tool_executing": lambda data: f"{data['tool']}({data['arguments']})",
        "tool_completed": lambda data: (
            f"{data['tool']}={data['result'] if data['ok'] else data['error']}"
        ),
        "custom": lambda data: f"{data['name']}: {data['data']}",
        "agent_failed": lambda data: f"failed {data['reason']}",
    }
    return [told[each.type](each.data) for each in result.events if each.type in told]


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
    assert "'reason': 'RETRY'" in shown[1]
    assert "valid integer" in shown[1]
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


async def test_structured_output_that_is_text_is_not_shown_as_a_message(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model(), output_type=NativeOutput(Trip))
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


# --- the conversation -----------------------------------------------------------------------


async def test_the_next_run_knows_what_tools_have_answered(vendor: Vendor, model: Models) -> None:
    served = Agent(model(), system_prompt="Be brief.")

    @served.tool_plain
    def look() -> str:
        return "a blue whale"

    talk = Conversation()
    vendor.script(Turn(calls=[Call("look")]), Turn(text="Done."), Turn(text="Blue."))
    await run_async(served, "look there", conversation=talk)
    await run_async(served, "which colour?", conversation=talk)
    last = vendor.requests[-1]
    assert last.tool_results == ["a blue whale"]
    roles = [each["role"] for each in last.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]


async def test_a_system_prompt_that_was_changed_meanwhile_is_the_one_that_counts(
    vendor: Vendor,
    model: Models,
) -> None:
    talk = Conversation()
    for prompt in ("Be brief.", "Be kind."):
        await run_async(
            agent(Agent(model(), system_prompt=prompt), name="same"), "hi", conversation=talk
        )
    said = [each["content"] for each in vendor.requests[-1].messages if each["role"] == "system"]
    assert said == ["Be kind."]


async def test_a_cancelled_run_is_remembered_with_what_it_had_said(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())
    talk = Conversation()
    vendor.script(Turn(text=["One, ", "two"], fault=Fault(silent_after=2)), Turn(text="three"))
    cut = await run_async(served, "count", conversation=talk, timeout_s=0.5)
    assert cut.ending.type == "agent_cancelled"
    await run_async(served, "go on", conversation=talk)
    told = [each["content"] for each in vendor.requests[-1].messages]
    assert told[0] == "count"
    assert "One, " in str(told[1:])
    assert told[-1] == "go on"


async def test_a_run_that_failed_is_not_in_the_way_of_the_next(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())
    talk = Conversation()
    vendor.script(Turn(fault=Fault(status=400, message="I do not take this")), Turn(text="fine"))
    failed = await run_async(served, "poison", conversation=talk)
    assert outline(failed) == ["failed MODEL_REQUEST_REFUSED"]
    await run_async(served, "hello", conversation=talk)
    assert [each["content"] for each in vendor.requests[-1].messages] == ["hello"]


# --- endings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason", "retryable"),
    [
        (Fault(status=401), "MODEL_CREDENTIAL_REFUSED", False),
        (Fault(status=404), "MODEL_NOT_FOUND", False),
        (Fault(status=400), "MODEL_REQUEST_REFUSED", False),
        (Fault(status=429, retry_after="7"), "MODEL_RATE_LIMITED", True),
        (Fault(status=503), "MODEL_UNAVAILABLE", True),
        (Fault(refuse=True), "MODEL_UNAVAILABLE", True),
        (Fault(cut_after=2), "MODEL_STREAM_BROKEN", True),
        (Fault(error_after=2), "MODEL_STREAM_BROKEN", True),
    ],
)
async def test_a_vendor_in_trouble_is_an_ending_without_its_text(
    vendor: Vendor, model: Models, fault: Fault, reason: str, retryable: bool
) -> None:
    vendor.always = lambda request: Turn(text=["a", "b", "c"], fault=fault)
    served = Agent(model(max_retries=0))
    ending = (await run_async(served, "go")).ending
    assert (ending.type, ending.data["reason"]) == ("agent_failed", reason)
    assert ending.data["retryable"] is retryable
    assert "the vendor has a problem" not in str(ending.data)
    if fault.retry_after:
        assert ending.data["retry_after_s"] == 7


async def test_a_limit_of_usage_ends_the_run(vendor: Vendor, model: Models) -> None:
    served = Agent(model())

    @served.tool_plain
    def again() -> str:
        return "more"

    vendor.always = lambda request: Turn(calls=[Call("again")])
    limited = agent(served, name="limited", usage_limits=UsageLimits(request_limit=2))
    assert outline(await run_async(limited, "go"))[-1] == "failed USAGE_LIMIT"
    assert len(vendor.requests) == 2


async def test_a_model_that_never_answers_in_the_right_form_ends_the_run(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model(), output_type=Trip)
    vendor.always = lambda request: Turn(calls=[Call("final_result", {"city": 1})])
    assert outline(await run_async(served, "go")) == ["failed MODEL_MISBEHAVED"]


async def test_an_agent_error_of_a_tool_is_the_runs_ending(vendor: Vendor, model: Models) -> None:
    served = Agent(model())

    @served.tool_plain
    def buy() -> str:
        raise AgentError("The shop is closed", reason="CLOSED")

    vendor.script(Turn(calls=[Call("buy")]))
    ending = (await run_async(served, "go")).ending
    assert (ending.data["reason"], ending.data["message"]) == ("CLOSED", "The shop is closed")


async def test_a_cancel_in_mid_stream_reaches_the_vendor_at_once(
    vendor: Vendor, model: Models
) -> None:
    served = Agent(model())
    vendor.script(Turn(text=["a", "b", "c"], fault=Fault(silent_after=3)))
    result = await run_async(served, "go", timeout_s=0.5)
    cancelled_at_s = time.monotonic()
    (request,) = vendor.requests
    await vendor.until(lambda: request.disconnected_at_s is not None)
    assert result.ending.type == "agent_cancelled"
    assert (request.disconnected_at_s or 0) - cancelled_at_s < 0.1


# --- dependencies ---------------------------------------------------------------------------


class Shelf(list[str]):
    """What an agent depends on."""


async def test_dependencies_come_by_their_type(vendor: Vendor, model: Models) -> None:
    served = Agent(model(), deps_type=Shelf)

    @served.tool
    def first(ctx: Context[Shelf]) -> str:
        return ctx.deps[0]

    vendor.script(Turn(calls=[Call("first")]), Turn(text="ok"))
    librarian = agent(served, name="librarian")
    result = await run_async(librarian, "go", overrides={Shelf: Shelf(["Emma"])})
    assert "first=Emma" in outline(result)


async def test_usage_is_counted_where_no_gateway_does(vendor: Vendor, model: Models) -> None:
    vendor.script(Turn(text="ok"))
    result = await run_async(Agent(model()), "go")
    assert (result.usage.input_tokens, result.usage.output_tokens) == (10, 5)
    assert result.usage.requests == 1
