"""What the graph's stream does not say: the errors that tools raised, and what models consumed.

A callback handler beside the graph's own. It emits nothing: what it keeps is picked up by whoever reads
the stream, in the stream's order. Invariant: in a run that is being stopped nothing more begins, and no
model says more: libraries swallow a cancel now and then (Python 3.11's `asyncio.wait_for` around a token
that comes in that moment), and would stream on to the end.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, TypedDict
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from factorychain._instance.model_access import Noted, note_requests


class Consumed(TypedDict):
    """What one request to a model consumed."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int


class Observer(BaseCallbackHandler):
    """One run's."""

    run_inline = True
    """In the order of the graph's own handlers, before them."""

    def __init__(self, consumed: Callable[[Consumed], None], stopping: Callable[[], bool]) -> None:
        """Args:
        consumed: is told of each request to a model that has ended and that the gateway did not count.
        stopping: whether the run is being stopped; asked in any thread.
        """
        self._consumed = consumed
        self._stopping = stopping
        self._noted: dict[UUID, Noted] = {}
        self._calls: dict[UUID, str] = {}
        self._errors: defaultdict[str, deque[BaseException]] = defaultdict(deque)

    def error_of(self, call_id: str) -> BaseException | None:
        """What the call raised, in the order in which calls of this id did."""
        found = self._errors.get(call_id)
        return found.popleft() if found else None

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        self._go_on()
        self._calls[run_id] = kwargs.get("tool_call_id") or str(run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._calls.pop(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        call_id = self._calls.pop(run_id, "")
        if call_id:
            self._errors[call_id].append(error)

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self._go_on()

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self._go_on()

    def on_chat_model_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._go_on()
        self._noted[run_id] = note_requests()

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._noted.pop(run_id, None)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        noted = self._noted.pop(run_id, None)
        if noted is not None and noted.through_gateway:
            return
        for each in (one for several in response.generations for one in several):
            if isinstance(each, ChatGeneration) and isinstance(each.message, AIMessage):
                self._consumed(consumed_by(each.message))
                return

    def _go_on(self) -> None:
        if self._stopping():
            # No `Exception`: no library takes it for a handler's own trouble.
            raise asyncio.CancelledError


def consumed_by(message: AIMessage) -> Consumed:
    """As the model's vendor said it; all zero if it did not."""
    usage = message.usage_metadata
    if usage is None:
        return Consumed(input_tokens=0, output_tokens=0, cached_input_tokens=0, reasoning_tokens=0)
    return Consumed(
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        cached_input_tokens=usage.get("input_token_details", {}).get("cache_read") or 0,
        reasoning_tokens=usage.get("output_token_details", {}).get("reasoning") or 0,
    )
