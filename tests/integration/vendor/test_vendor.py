"""The vendors' own clients understand the stand-in: what the other tests say of vendors rests on it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from tests.vendor import Call, Fault, Turn, Vendor, VendorUsage
from tests.vendor.fixture import vendor

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["vendor"]

_SAY: list[Any] = [{"role": "user", "content": "one two"}]
_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
]
_TURN = Turn(
    text=["Hel", "lo"],
    reasoning=["hm", "m"],
    calls=[Call("search", {"query": "x"}, "c1"), Call("search", {"query": "y"}, "c2")],
    usage=VendorUsage(input=11, output=7, cached=3, reasoning=2),
)


@pytest.fixture
async def client(vendor: Vendor) -> AsyncIterator[AsyncOpenAI]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=vendor.openai_url, api_key=vendor.key, max_retries=0) as made:
        yield made


async def test_chat_completions_stream_text_reasoning_calls_and_usage(
    vendor: Vendor, client: AsyncOpenAI
) -> None:
    vendor.script(_TURN)
    text, reasoning, arguments, usage = "", "", ["", ""], None
    stream = await client.chat.completions.create(
        model="m", messages=_SAY, tools=_TOOLS, stream=True, stream_options={"include_usage": True}
    )
    chunk: Any
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", "")
            for call in choice.delta.tool_calls or ():
                arguments[call.index] += call.function.arguments
    assert (text, reasoning) == ("Hello", "hmm")
    assert [json.loads(each)["query"] for each in arguments] == ["x", "y"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (11, 7)
    assert vendor.requests[0].tools == ["search"]


async def test_chat_completions_say_no_usage_in_a_stream_unless_asked(
    vendor: Vendor, client: AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(model="m", messages=_SAY, stream=True)
    chunks = [each async for each in stream]
    assert all(each.usage is None and each.choices for each in chunks)
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == "You said: one two"


async def test_chat_completions_at_once(vendor: Vendor, client: AsyncOpenAI) -> None:
    vendor.script(_TURN)
    done = await client.chat.completions.create(model="m", messages=_SAY)
    assert done.choices[0].message.content == "Hello"
    assert [each.id for each in done.choices[0].message.tool_calls or ()] == ["c1", "c2"]
    assert done.usage is not None
    assert done.usage.total_tokens == 18


async def test_responses_stream_and_at_once(vendor: Vendor, client: AsyncOpenAI) -> None:
    vendor.script(_TURN, _TURN)
    async with client.responses.stream(model="m", input="hi") as stream:
        kinds = [event.type async for event in stream]
        streamed = await stream.get_final_response()
    whole = await client.responses.create(model="m", input="hi")
    assert "response.reasoning_summary_text.delta" in kinds
    for each in (streamed, whole):
        assert each.output_text == "Hello"
        assert [item.type for item in each.output] == [
            "reasoning",
            "message",
            *2 * ["function_call"],
        ]
        assert each.usage is not None
        assert each.usage.output_tokens_details.reasoning_tokens == 2


async def test_messages_stream_and_at_once(vendor: Vendor) -> None:
    import anthropic

    vendor.script(_TURN, _TURN)
    asked: Any = {"model": "m", "max_tokens": 100, "messages": _SAY}
    async with anthropic.AsyncAnthropic(base_url=vendor.url, api_key=vendor.key) as client:
        async with client.messages.stream(**asked) as stream:
            text = [each async for each in stream.text_stream]
            streamed = await stream.get_final_message()
        whole = await client.messages.create(**asked)
    assert text == ["Hel", "lo"]
    each: Any
    for each in (streamed, whole):
        assert [block.type for block in each.content] == [
            "thinking",
            "text",
            "tool_use",
            "tool_use",
        ]
        assert [block.input for block in each.content[2:]] == [{"query": "x"}, {"query": "y"}]
        assert (each.usage.input_tokens, each.usage.output_tokens) == (8, 7)
        assert each.usage.cache_read_input_tokens == 3


async def test_a_wrong_key_is_refused(vendor: Vendor) -> None:
    import openai
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=vendor.openai_url, api_key="another") as wrong:
        with pytest.raises(openai.AuthenticationError):
            await wrong.models.list()
        with pytest.raises(openai.AuthenticationError):
            await wrong.responses.create(model="m", input="hi")


async def test_faults_are_what_clients_know_from_vendors(
    vendor: Vendor, client: AsyncOpenAI
) -> None:
    import openai

    vendor.script(Turn(fault=Fault(status=429, retry_after="7")), Turn(fault=Fault(refuse=True)))
    with pytest.raises(openai.RateLimitError) as limited:
        await client.responses.create(model="m", input="hi")
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.APIConnectionError):
        await client.responses.create(model="m", input="hi")
    for fault, error in (
        (Fault(cut_after=2), openai.APIConnectionError),
        (Fault(malformed_after=2), json.JSONDecodeError),
        (Fault(error_after=2), openai.APIError),
    ):
        vendor.script(Turn(text=list("abcdef"), fault=fault))
        stream = await client.chat.completions.create(model="m", messages=_SAY, stream=True)
        with pytest.raises(error):
            _ = [each async for each in stream]


async def test_who_hangs_up_is_noted_at_once(vendor: Vendor, client: AsyncOpenAI) -> None:
    vendor.script(Turn(text=list("abc"), fault=Fault(silent_after=2)))
    stream = await client.chat.completions.create(model="m", messages=_SAY, stream=True)
    await anext(aiter(stream))
    before_s = time.monotonic()
    await stream.response.aclose()
    await vendor.until(lambda: vendor.requests[0].disconnected_at_s is not None)
    assert (vendor.requests[0].disconnected_at_s or 0) >= before_s
    assert vendor.requests[0].ended_at_s is None


async def test_as_a_process_it_is_told_over_http() -> None:
    from openai import AsyncOpenAI

    process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec, no waiting
        [sys.executable, "-m", "tests.vendor"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    told = json.loads(await asyncio.to_thread(process.stdout.readline))
    turns = [{"text": "as told", "usage": {"input": 1, "output": 2}}]
    async with ClientSession() as http:
        await http.post(f"{told['control']}/_script", json=turns)
        async with AsyncOpenAI(base_url=f"{told['url']}/v1", api_key=told["key"]) as client:
            said = await client.responses.create(model="m", input="hi")
        received = await (await http.get(f"{told['control']}/_requests")).json()
    process.stdin.close()
    assert said.output_text == "as told"
    assert received[0]["path"] == "/v1/responses"
    assert await asyncio.to_thread(process.wait, 10) == 0
    process.stdout.close()
