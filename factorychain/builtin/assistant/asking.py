"""One request to the model: its words are passed on as they come, its calls of tools are collected.

Invariant: the connection is closed however this ends, so a cancelled run stops the model at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import openai

from factorychain.builtin.assistant.troubles import broken_off
from factorychain.context import RunContext
from factorychain.message import MessageStream

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall

_REASONING: Final = ("reasoning_content", "reasoning")
"""Where servers put it; the vendor of the protocol has no field for it."""


@dataclass(slots=True)
class ToolCall:
    """What the model wants to be called; its parts come one by one."""

    id: str = ""
    tool: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """What the model said."""

    text: str = ""
    message: str = ""
    """The message that it was streamed in; empty if nothing was."""
    calls: list[ToolCall] = field(default_factory=list)
    finish: str = ""
    """Why it ends, in the protocol's words."""
    usage: CompletionUsage | None = None


async def ask(ctx: RunContext, client: AsyncOpenAI, request: Mapping[str, object]) -> Answer:
    """Ask, and stream the answer to the user.

    Raises:
        openai.OpenAIError: it could not be asked, or said in the middle that something is wrong.
        AgentError: the answer broke off.
    """
    # The gateway asks for usage itself, of servers that take the question.
    counted = {} if ctx._run.spec.gateway_url else {"stream_options": {"include_usage": True}}
    created = client.chat.completions.create(**request, **counted, stream=True)  # type: ignore[call-overload]
    answer = Answer()
    stream = cast("AsyncStream[ChatCompletionChunk]", await created)
    async with stream, ctx.message() as message:
        try:
            async for chunk in stream:
                await _take(chunk, answer, message)
        except openai.APIConnectionError as error:
            raise broken_off(error) from error
    _count(ctx, answer)
    if not answer.finish:
        raise broken_off()
    for number, call in enumerate(answer.calls, 1):
        call.id = call.id or f"call_{number}"
    return answer


def _count(ctx: RunContext, answer: Answer) -> None:
    """What the gateway counts is in the run's usage already."""
    usage = answer.usage
    if ctx._run.spec.gateway_url or usage is None:
        return
    given, made = usage.prompt_tokens_details, usage.completion_tokens_details
    ctx.usage.add(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_input_tokens=(given.cached_tokens if given is not None else None) or 0,
        reasoning_tokens=(made.reasoning_tokens if made is not None else None) or 0,
        requests=1,
    )


async def _take(chunk: ChatCompletionChunk, answer: Answer, message: MessageStream) -> None:
    if chunk.usage is not None:
        answer.usage = chunk.usage
    for choice in chunk.choices or ():
        if choice.index:
            continue
        if choice.delta is not None:
            await _say(choice.delta, answer, message)
            for part in choice.delta.tool_calls or ():
                _collect(part, answer.calls)
        answer.finish = choice.finish_reason or answer.finish


async def _say(delta: ChoiceDelta, answer: Answer, message: MessageStream) -> None:
    reasoning = next(
        (str(found) for name in _REASONING if (found := getattr(delta, name, None))), ""
    )
    if reasoning:
        await message.think(reasoning)
    # A refusal is an answer as well, in words that are meant for the user.
    text = delta.content or delta.refusal or ""
    if text:
        await message.write(text)
        answer.text += text
    if text or reasoning:
        answer.message = message.id


def _collect(part: ChoiceDeltaToolCall, calls: list[ToolCall]) -> None:
    """Parts go by index; some servers give every call the same, and then only ids tell them apart."""
    index: object = part.index  # not every server says one
    at = index if isinstance(index, int) else len(calls) - 1
    if part.id and 0 <= at < len(calls) and calls[at].id not in ("", part.id):
        at = len(calls)
    if not 0 <= at < len(calls):
        calls.append(ToolCall())
        at = len(calls) - 1
    call = calls[at]
    call.id = call.id or part.id or ""
    if part.function is not None:
        call.tool = call.tool or part.function.name or ""
        call.arguments += part.function.arguments or ""
