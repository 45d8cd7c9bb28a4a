"""The agent that talks with a language model: ask, call the tools that it wants, ask again.

Invariant: every call of a tool that the model makes gets one result, in the order of the calls, whatever
became of it; no run makes more requests than the limit, and the last one is made for an answer.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from factorychain.agent import Agent
from factorychain.builtin.assistant import documents
from factorychain.builtin.assistant.conversation import Conversation, TooLong
from factorychain.builtin.assistant.documents import Documents
from factorychain.builtin.assistant.language_model import LanguageModel
from factorychain.builtin.assistant.offered import Offered, Result, echoed
from factorychain.builtin.assistant.tokens import tokens
from factorychain.builtin.researcher.agent import index
from factorychain.builtin.researcher.library import DocumentLibrary
from factorychain.context import RunContext
from factorychain.errors import AgentError
from factorychain.input import Input, Json
from factorychain.providers import shared

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from factorychain.builtin.assistant.asking import Answer, ToolCall

_AT_ONCE: Final = 16
"""Calls of tools at the same time."""
_ANSWER_SHARE: Final = 4
"""Of the window, one part of so many is kept free for the answer, if its length is not set."""
_HISTORY: Final = 100
_ON_THIS_MACHINE: Final = ("http://127.0.0.1:", "http://[::1]:")


class Assistant(Agent):
    """Talks with a language model, which may use tools."""

    instructions: ClassVar[str] = ""
    """What the model is told about itself, after what the operator tells it."""
    model: ClassVar[str] = ""
    """Another model than the operator's default."""
    steps_max: ClassVar[int] = 0
    """Requests to the model in one run; 0: the operator's limit."""
    parameters: ClassVar[Mapping[str, Json]] = {}
    """More of the request, such as `{"temperature": 0}`."""

    if documents.GIVEN:
        search_documents = documents.DocumentTools.search_documents
        read_document = documents.DocumentTools.read_document

    def __init__(self, language_model: LanguageModel, documents: Documents) -> None:
        self.language_model = language_model
        self._documents = documents

    @property
    def library(self) -> DocumentLibrary:
        """What the tools for documents look into."""
        return self._documents.library

    async def run(self, ctx: RunContext, input: Input) -> str:
        offered = Offered(ctx.tools)
        conversation = await self._conversation(ctx, input, offered)
        said = ""
        async with _client() as client:
            await ctx.think(f"Asking {self.model or self.language_model.name}")
            for left in reversed(range(self.steps_max or self.language_model.steps_max)):
                answer = await self._ask(ctx, client, conversation, offered, last=left == 0)
                said = answer.text or said
                if not answer.calls:
                    return await _final(ctx, answer, said)
                await _call(conversation, offered, answer)
                names = dict.fromkeys(each.tool for each in answer.calls)
                await ctx.think(f"Looking at what {', '.join(names)} returned")
        raise AgentError(
            "The model went on calling tools until its limit of steps, without an answer",
            reason="STEP_LIMIT",
        )

    async def _conversation(self, ctx: RunContext, input: Input, offered: Offered) -> Conversation:
        model = self.language_model
        answer = model.answer_max_tokens or model.window_tokens // _ANSWER_SHARE
        return Conversation(
            "\n\n".join(filter(None, (model.instructions, self.instructions, _context(ctx)))),
            await ctx.history(_HISTORY),
            input,
            window_tokens=model.window_tokens,
            beside_tokens=answer + tokens(offered.schemas),
        )

    async def _ask(
        self,
        ctx: RunContext,
        client: AsyncOpenAI,
        conversation: Conversation,
        offered: Offered,
        *,
        last: bool,
    ) -> Answer:
        # What needs the library is imported here: the agent is listed also where it is not installed.
        from factorychain.builtin.assistant import troubles
        from factorychain.builtin.assistant.asking import ask

        while True:
            try:
                return await ask(ctx, client, self._request(conversation, offered, last=last))
            except TooLong:
                raise _too_long() from None
            except AgentError:
                raise
            except troubles.FAILURES as error:
                if not troubles.is_window_exceeded(error):
                    raise troubles.explained(error) from error
                if not conversation.narrow():
                    raise _too_long() from error

    def _request(
        self, conversation: Conversation, offered: Offered, *, last: bool
    ) -> dict[str, object]:
        request: dict[str, object] = {
            "model": self.model or self.language_model.name,
            "messages": conversation.fitted(),
        }
        if offered.schemas:
            request["tools"] = offered.schemas
            if last:
                request["tool_choice"] = "none"
        if self.language_model.answer_max_tokens:
            request["max_completion_tokens"] = self.language_model.answer_max_tokens
        return {**request, "extra_body": dict(self.parameters)} if self.parameters else request


def _client() -> AsyncOpenAI:
    """Reaches the gateway by the run's OPENAI_BASE_URL and OPENAI_API_KEY; the gateway tries again."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    if not os.environ.get("OPENAI_BASE_URL", "").startswith(_ON_THIS_MACHINE):
        return AsyncOpenAI(max_retries=0)
    # There is no TLS, and reading the certificates for it would take 20 ms of every run.
    plain = DefaultAsyncHttpxClient(verify=False, trust_env=False)
    return AsyncOpenAI(max_retries=0, http_client=plain)


def _context(ctx: RunContext) -> str:
    """What the client passed along, for the model."""
    return "\n".join(f"{description}: {value}" for description, value in ctx.context)


def _too_long() -> AgentError:
    return AgentError("The input is too long for the model", reason="INPUT_TOO_LONG")


async def _final(ctx: RunContext, answer: Answer, said: str) -> str:
    """The output, for an answer that calls nothing."""
    if answer.finish == "content_filter":
        raise AgentError("The model's provider has filtered the answer", reason="CONTENT_FILTERED")
    if answer.finish == "length":
        if not answer.text:
            raise _cut_off()
        await ctx.think("The answer has reached the model's limit of length, and ends here")
    if not said:
        raise AgentError("The model gave no answer", reason="EMPTY_ANSWER", retryable=True)
    return said


def _cut_off() -> AgentError:
    return AgentError(
        "The model reached its limit of length before it had an answer", reason="ANSWER_CUT"
    )


async def _call(conversation: Conversation, offered: Offered, answer: Answer) -> None:
    """Call what the model wants, in parallel, and tell it what came of each."""
    if answer.finish == "length":  # the last call's arguments end in their middle
        raise _cut_off()
    conversation.answered(answer.text, [echoed(each) for each in answer.calls])
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(call: ToolCall) -> Result:
        async with places:
            return await offered.call(call, answer.message)

    results = await _together([one(each) for each in answer.calls])
    for call, result in zip(answer.calls, results, strict=True):
        conversation.result(call.id, result.text, result.images)
    conversation.results_end()


async def _together(calls: Sequence[Coroutine[None, None, Result]]) -> list[Result]:
    """All of them; what ends the run in one stops the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in calls]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [each.result() for each in tasks]


@shared
def language_model() -> LanguageModel:
    """What the operator has set; the library is loaded with it, once for all runs."""
    found = LanguageModel.from_environment()
    importlib.import_module("openai.resources.chat")
    importlib.import_module(f"{__package__}.asking")
    return found


providers = [
    language_model,
    *([index, documents.documents] if documents.GIVEN else [documents.no_documents]),
]
