"""The assistant on the real client, against a real server that speaks the vendor's protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from factorychain import ImagePart, Input, PastRun, TextPart, ToolError, Usage, tool
from factorychain.builtin.assistant import Assistant
from factorychain.input import Json
from factorychain.testing import RunResult, run_async
from tests.vendor import Call, Fault, Turn, Vendor, VendorUsage
from tests.vendor.fixture import vendor

__all__ = ["vendor"]

PNG = b"\x89PNG\r\n\x1a\nnot much of one"


class Together:
    """A meeting that takes place only if all take part at once."""

    barrier: asyncio.Barrier


@tool
async def meet(name: str) -> str:
    """Waits for another."""
    async with asyncio.timeout(5):
        await Together.barrier.wait()
    return f"{name} was there"


@tool
async def draw() -> list[object]:
    """Draws."""
    return ["a chart", ImagePart(data=PNG)]


@tool
async def refuse(city: str) -> str:
    """Refuses."""
    raise ToolError(f"{city} is closed")


class Clerk(Assistant):
    """With tools of its own."""

    tools = (meet, draw, refuse)
    instructions = "You are a clerk."


class Hasty(Clerk):
    """Two steps at most."""

    steps_max = 2
    parameters: ClassVar[Mapping[str, Json]] = {"temperature": 0}


@pytest.fixture(autouse=True)
def reachable(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORYCHAIN_LLM_MODEL", "gpt-test")
    monkeypatch.setenv("OPENAI_BASE_URL", vendor.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", vendor.key)


async def ask(
    text: str | Input = "hi",
    agent: type[Assistant] = Clerk,
    history: Sequence[PastRun] = (),
    timeout_s: float = 20.0,
) -> RunResult:
    return await run_async(agent, text, history=history, timeout_s=timeout_s)


def reason(result: RunResult) -> object:
    assert result.ending.type == "agent_failed", result.ending
    return result.ending.data["reason"]


async def test_an_answer_is_streamed_with_its_reasoning_before_it(vendor: Vendor) -> None:
    spent = VendorUsage(12, 7, cached=3, reasoning=4)
    vendor.script(Turn(text=["Hel", "lo"], reasoning=["They ", "greet"], usage=spent))
    result = await ask()
    assert [each.type for each in result.events] == [
        "agent_started",
        "agent_thinking",
        *["thinking_delta"] * 2,
        *["message_delta"] * 2,
        "agent_completed",
    ]
    assert (result.output, result.text) == ("Hello", "Hello")
    assert result.ending.data["message"] == result.of_type("message_delta")[0].data["message"]
    assert result.usage == Usage(12, 7, 3, 4, 1)
    sent = vendor.requests[0]
    assert sent.messages == [
        {"role": "system", "content": "You are a clerk."},
        {"role": "user", "content": "hi"},
    ]
    assert (sent.body["model"], sent.tools) == ("gpt-test", ["meet", "draw", "refuse"])


async def test_calls_of_one_answer_are_made_in_parallel_and_answered_in_order(
    vendor: Vendor,
) -> None:
    Together.barrier = asyncio.Barrier(2)
    vendor.script(
        Turn(
            text="A moment.",
            calls=[
                Call("meet", {"name": "Ada"}, "call_a"),
                Call("meet", {"name": "Ben"}, "call_b"),
            ],
        ),
        Turn(text="Both were there."),
    )
    result = await ask()
    assert result.output == "Both were there."
    began = result.of_type("tool_executing")
    said_in = result.of_type("message_delta")[0].data["message"]
    assert [each.data["message"] for each in began] == [said_in, said_in]
    assistant, first, second = vendor.requests[1].messages[-3:]
    assert assistant["content"] == "A moment."
    assert [each["id"] for each in assistant["tool_calls"]] == ["call_a", "call_b"]
    assert (first["tool_call_id"], first["content"]) == ("call_a", "Ada was there")
    assert (second["tool_call_id"], second["content"]) == ("call_b", "Ben was there")


async def test_a_model_hears_of_every_call_that_was_wrong_and_may_do_better(vendor: Vendor) -> None:
    wrong = [
        Call("meet", '{"name": "Ad'),
        Call("meet", {"nome": "Ada"}),
        Call("dance", {}),
        Call("refuse", {"city": "Turin"}),
    ]
    vendor.script(Turn(calls=wrong), Turn(text="I see."))
    result = await ask()
    assert result.output == "I see."
    heard = vendor.requests[1].tool_results
    for told, expected in zip(
        heard,
        (
            "Error: meet: Invalid JSON",
            "Error: meet: name: Field required",
            "Error: There is no tool 'dance'; there are: meet, draw, refuse",
            "Error: Turin is closed",
        ),
        strict=True,
    ):
        assert told.startswith(expected)
    assert len(result.of_type("tool_executing")) == len(result.of_type("tool_completed")) == 3


async def test_images_go_to_the_model_from_the_input_and_from_tools(vendor: Vendor) -> None:
    vendor.script(Turn(calls=[Call("draw")]), Turn(text="Nice."))
    content = (
        TextPart("What is this?"),
        ImagePart(url="https://example.com/cat.png"),
        ImagePart(data=PNG, media_type="image/png"),
    )
    result = await ask(Input("What is this?", content))
    assert result.output == "Nice."
    asked = vendor.requests[0].messages[-1]["content"]
    assert asked[0] == {"type": "text", "text": "What is this?"}
    assert asked[1]["image_url"]["url"] == "https://example.com/cat.png"
    assert asked[2]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    tool_result, images = vendor.requests[1].messages[-2:]
    assert tool_result["content"] == "a chart\n[1 image, shown below]"
    assert images["content"][1]["image_url"] == asked[2]["image_url"]


async def test_the_conversation_so_far_is_sent_as_far_as_the_window_has_room(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_ASSISTANT_WINDOW_TOKENS", "1500")

    def past(at: int) -> PastRun:
        asked = f"question {at} " + "x" * 2400
        return PastRun("r", "clerk", "completed", Input(asked, (TextPart(asked),)), f"answer {at}")

    vendor.script(Turn(text="ok"))
    await ask("and now?", history=[past(at) for at in range(5)])
    sent = [str(each["content"]) for each in vendor.requests[0].messages]
    assert sent[0] == "You are a clerk."
    assert sent[1].startswith("question 4")
    assert sent[2:] == ["answer 4", "and now?"]


async def test_the_last_step_is_for_an_answer(vendor: Vendor) -> None:
    vendor.script(Turn(calls=[Call("draw")]), Turn(text="Enough."))
    result = await ask(agent=Hasty)
    assert result.output == "Enough."
    first, last = (each.body for each in vendor.requests)
    assert ("tool_choice" in first, last["tool_choice"]) == (False, "none")
    assert last["temperature"] == 0


async def test_a_model_that_never_answers_is_stopped(vendor: Vendor) -> None:
    vendor.always = lambda request: Turn(calls=[Call("draw")])
    result = await ask(agent=Hasty)
    assert reason(result) == "STEP_LIMIT"
    assert len(vendor.requests) == 2


async def test_an_answer_that_was_cut_is_kept_and_the_user_is_told(vendor: Vendor) -> None:
    vendor.script(Turn(text="Once upon a", finish="length"))
    result = await ask()
    assert result.output == "Once upon a"
    assert "limit of length" in str(result.of_type("agent_thinking")[-1].data["text"])


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (Turn(finish="length"), "ANSWER_CUT"),
        (Turn(calls=[Call("meet", '{"na')], finish="length"), "ANSWER_CUT"),
        (Turn(text="I will tell", finish="content_filter"), "CONTENT_FILTERED"),
        (Turn(), "EMPTY_ANSWER"),
        (Turn(fault=Fault(status=401)), "MODEL_CREDENTIAL_REFUSED"),
        (Turn(fault=Fault(status=404)), "MODEL_REQUEST_REFUSED"),
        (Turn(fault=Fault(status=429, retry_after="7")), "MODEL_RATE_LIMITED"),
        (Turn(fault=Fault(status=503)), "MODEL_UNAVAILABLE"),
        (Turn(fault=Fault(refuse=True)), "MODEL_UNAVAILABLE"),
        (Turn(text=["a", "b", "c"], fault=Fault(cut_after=2)), "MODEL_STREAM_BROKEN"),
        (Turn(text=["a", "b", "c"], fault=Fault(malformed_after=2)), "MODEL_STREAM_BROKEN"),
        (Turn(text=["a", "b", "c"], fault=Fault(error_after=2)), "MODEL_STREAM_BROKEN"),
    ],
)
async def test_trouble_is_a_clear_ending_without_the_vendor_s_words(
    vendor: Vendor, turn: Turn, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    vendor.script(turn)
    result = await ask()
    assert reason(result) == expected
    assert "vendor" not in str(result.events)
    assert len(vendor.requests) == 1
    if turn.fault is not None and turn.fault.retry_after:
        assert result.ending.data["retry_after_s"] == 7
        assert result.ending.data["retryable"] is True
    if turn.fault is not None and turn.fault.status:
        assert "the vendor has a problem" in capsys.readouterr().err


async def test_a_window_that_is_smaller_than_was_thought_is_found_out(vendor: Vendor) -> None:
    too_long = Turn(fault=Fault(status=400, message="This model's maximum context length is 8192"))
    vendor.script(too_long, Turn(text="ok"))
    long = "x" * 5000
    before = [
        PastRun("r", "clerk", "completed", Input(long, (TextPart(long),)), "answer")
        for _ in range(3)
    ]
    result = await ask(history=before)
    assert result.output == "ok"
    first, second = vendor.requests
    assert len(second.messages) < len(first.messages)
    vendor.script(too_long)
    assert reason(await ask()) == "INPUT_TOO_LONG"


async def test_a_cancel_in_mid_stream_hangs_up_on_the_model(vendor: Vendor) -> None:
    vendor.script(Turn(text=["a"] * 1000, gap_s=0.02))
    asking = asyncio.create_task(ask(timeout_s=0.3))
    await vendor.until(lambda: bool(vendor.requests) and vendor.requests[0].frames > 2)
    result = await asking
    assert result.ending.type == "agent_cancelled"
    assert len(result.text) > 0
    await vendor.until(lambda: vendor.requests[0].disconnected_at_s is not None)


async def test_a_refusal_is_an_answer() -> None:
    """The stand-in has no refusals: what the client makes of one is looked at."""
    from openai.types.chat.chat_completion_chunk import ChoiceDelta

    from factorychain.builtin.assistant import asking

    class Message:
        id = "m1"
        written: list[str] = []  # noqa: RUF012 - one test's

        async def write(self, text: str) -> None:
            self.written.append(text)

    answer = asking.Answer()
    message: Any = Message()
    await asking._say(ChoiceDelta(refusal="I would rather not."), answer, message)
    assert (answer.text, message.written) == ("I would rather not.", ["I would rather not."])


async def test_calls_with_equal_indexes_are_told_apart_by_their_ids() -> None:
    from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall as Part
    from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCallFunction as Function

    from factorychain.builtin.assistant.asking import ToolCall, _collect

    calls: list[ToolCall] = []
    for id, name in (("a", "one"), ("b", "two")):
        _collect(Part(index=0, id=id, function=Function(name=name, arguments="{}")), calls)
    assert [(each.id, each.tool, each.arguments) for each in calls] == [
        ("a", "one", "{}"),
        ("b", "two", "{}"),
    ]


async def test_what_the_client_passed_along_is_told(vendor: Vendor) -> None:
    from factorychain._instance.active import ActiveRun
    from factorychain._instance.spec import RunSpec
    from factorychain.builtin.assistant.agent import _context
    from factorychain.context import RunContext
    from tests.silent_host import SilentHost

    context = (("page", "/cart"), ("language", "it"))
    spec = RunSpec("acme", "ada", "t", "r", "a", 1, '{"text": "hi"}', context=context)
    run = ActiveRun(spec, SilentHost(), asyncio.get_running_loop())
    assert _context(RunContext(run)) == "page: /cart\nlanguage: it"
