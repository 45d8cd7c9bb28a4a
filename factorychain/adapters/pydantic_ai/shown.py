"""What users see of an agent's run: a capability that Pydantic AI calls as the run goes.

Invariant: every call that was shown to begin is shown to end. A call that waits for somebody's answer is
shown when it is made, in the run that has the answer; output tools are the form of the answer, not tools.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from pydantic_ai import RunContext as PydanticContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import WrapToolExecuteHandler
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import (
    AgentStreamEvent,
    CustomEvent,
    FinalResultEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.tools import ToolDefinition

from factorychain._instance.active import ActiveRun
from factorychain._instance.external_calls import begin_call
from factorychain._instance.open_call import OpenCall
from factorychain.adapters.pydantic_ai.call_texts import arguments, end_with, fail_by, plain
from factorychain.adapters.pydantic_ai.counted import count
from factorychain.adapters.pydantic_ai.response import ShownResponse
from factorychain.adapters.pydantic_ai.whole_answers import streaming
from factorychain.context import RunContext
from factorychain.errors import EventRejected, ToolError


class Shown(AbstractCapability[object]):
    """Shows one run."""

    def __init__(self, ctx: RunContext, run: ActiveRun, answered: Collection[str] = ()) -> None:
        """`answered`: ids of the calls whose answers the run begins with."""
        self._ctx = ctx
        self._run = run
        self._answered = answered
        self._response = ShownResponse(ctx, run)
        self._made: dict[str, FunctionToolCallEvent] = {}
        """Calls of the model that have no result yet, by its ids."""
        self._executed: set[str] = set()
        """Those of them that were shown."""
        self.answered = False
        """Whether the model has answered at all."""

    @property
    def answering(self) -> bool:
        """Whether the model is in the middle of an answer."""
        return self._response.streaming

    def get_ordering(self) -> CapabilityOrdering:
        """Around the agent's own capabilities: users see what these make of a call."""
        return CapabilityOrdering(position="outermost")

    def get_wrapper_model(self, model: Model[Any]) -> Model[Any] | None:
        return streaming(model)

    async def prepare_model_request(
        self, ctx: PydanticContext[object], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        await self._response.closed()
        structured = request_context.model_request_parameters.output_object is not None
        self._response = ShownResponse(self._ctx, self._run, structured=structured)
        return request_context

    async def after_model_request(
        self,
        ctx: PydanticContext[object],
        *,
        request_context: ModelRequestContext,
        response: ModelResponse,
    ) -> ModelResponse:
        await self._response.closed()
        self.answered = True
        count(self._run, response)
        return response

    async def on_event(self, ctx: PydanticContext[object], *, event: AgentStreamEvent) -> None:
        if isinstance(event, PartStartEvent | PartDeltaEvent | PartEndEvent | FinalResultEvent):
            await self._response.take(event)
        elif isinstance(event, FunctionToolCallEvent):
            self._made[event.tool_call_id] = event
        elif isinstance(event, FunctionToolResultEvent):
            await self._settle(event.part)
        elif isinstance(event, CustomEvent) and type(event).ui:
            await self._custom(event)

    async def wrap_tool_execute(
        self,
        ctx: PydanticContext[object],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, object],
        handler: WrapToolExecuteHandler,
    ) -> object:
        self._executed.add(call.tool_call_id)
        shown = await self._begin(call, args)
        try:
            with shown.entered():
                result: object = await handler(args)
        except GeneratorExit:  # nobody drives it any more; the host closes the pair
            raise
        except ToolError as error:  # of an author who knows this library: the model may go on
            await shown.failed_by(error)
            raise ToolFailed(error.message) from error
        except BaseException as error:
            await fail_by(shown, error)
            raise
        await shown.end(plain(result))
        return result

    async def _begin(self, call: ToolCallPart, args: dict[str, object] | str) -> OpenCall:
        id, message = call.tool_call_id, self._response.message
        return await begin_call(self._run, call.tool_name, args, id, message=message)

    async def _settle(self, part: ToolReturnPart) -> None:
        """A call has its result; it is shown now if nothing ran for it here."""
        made = self._made.pop(part.tool_call_id, None)
        if part.tool_call_id in self._executed:
            self._executed.discard(part.tool_call_id)
            return
        if made is None or (made.args_valid is None and part.tool_call_id not in self._answered):
            return  # passed over: the run had its output already
        await end_with(await self._begin(made.part, arguments(made.part)), part)

    async def _custom(self, event: CustomEvent) -> None:
        try:
            await self._ctx.emit(event.name, event.to_payload())
        except (TypeError, EventRejected) as error:  # nobody is there who could handle it
            sys.stderr.write(f"event {event.name!r} is not shown: {error}\n")
