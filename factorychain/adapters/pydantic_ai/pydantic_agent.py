"""The agent around one of Pydantic AI's.

Invariant: the author's agent is never changed; what a run needs is given to its `run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic_ai import UsageLimits, capture_run_messages
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability, ReinjectSystemPrompt
from pydantic_ai.exceptions import (
    AgentRunError,
    FallbackExceptionGroup,
    ModelContextWindowExceededError,
)
from pydantic_ai.messages import ModelMessage, repair_messages
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults

from factorychain._instance.active import current_run
from factorychain.adapters.adapted import Adapted
from factorychain.adapters.pydantic_ai.conversation import later_half
from factorychain.adapters.pydantic_ai.deferred import interrupt
from factorychain.adapters.pydantic_ai.failures import REFUSED, explained
from factorychain.adapters.pydantic_ai.memory import Memory
from factorychain.adapters.pydantic_ai.prompt import user_prompt
from factorychain.adapters.pydantic_ai.shown import Shown
from factorychain.context import RunContext
from factorychain.input import Input

MEMORY_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a run has to do."""

    ctx: RunContext
    given: Input
    answers: DeferredToolResults | None
    """What the run goes on with instead of its input."""
    memory: Memory
    shown: Shown


class PydanticAgent(Adapted):
    """Runs an agent of Pydantic AI."""

    adapted: ClassVar[object]
    usage_limits: ClassVar[UsageLimits | None] = None
    """Of one run."""
    remembered_bytes: ClassVar[int] = MEMORY_BYTES
    """How much of a thread's messages is kept from run to run."""

    _deps: object = None

    async def run(self, ctx: RunContext, given: Input) -> object:
        run = current_run()
        assert run is not None, "the chain calls it in its run"
        memory = Memory(ctx, run, self.remembered_bytes)
        said = await memory.recall()
        answers = memory.answers()
        shown = Shown(ctx, run, {*answers.calls, *answers.approvals} if answers else ())
        try:
            result = await self._within_window(_Turn(ctx, given, answers, memory, shown), said)
        except (AgentRunError, FallbackExceptionGroup) as error:
            raise explained(error, answering=shown.answering) from error
        output: object = result.output
        waiting = output if isinstance(output, DeferredToolRequests) else None
        await memory.keep(result.all_messages(), waiting)
        if waiting is not None:
            raise interrupt(waiting)
        return output

    async def _within_window(
        self, turn: _Turn, said: Sequence[ModelMessage]
    ) -> AgentRunResult[object]:
        """Ask with as much of the conversation as the model takes: how much that is only it knows."""
        while True:
            try:
                return await self._remembered(turn, said)
            except ModelContextWindowExceededError:
                less = later_half(said)
                if turn.shown.answered or less is None or (turn.answers and not less):
                    raise
                said = less

    async def _remembered(
        self, turn: _Turn, said: Sequence[ModelMessage]
    ) -> AgentRunResult[object]:
        with capture_run_messages() as heard:
            try:
                return await self._ask(turn, said)
            except (Exception, asyncio.CancelledError) as error:
                if not isinstance(error, REFUSED):  # else it would be refused again
                    await turn.memory.keep_unfinished(heard)
                raise

    async def _ask(self, turn: _Turn, said: Sequence[ModelMessage]) -> AgentRunResult[object]:
        agent, ctx, answers = self.adapted, turn.ctx, turn.answers
        assert isinstance(agent, AbstractAgent)
        history = repair_messages(said, repair_last_response=answers is None)
        capabilities: list[AbstractCapability[Any]] = [turn.shown]
        if history:  # without one Pydantic AI begins with the system prompt
            capabilities.append(ReinjectSystemPrompt())
        return await agent.run(
            user_prompt(turn.given) if answers is None else None,
            message_history=history or None,
            deferred_tool_results=answers,
            deps=self._deps,
            run_id=ctx.run_id,
            conversation_id=ctx.thread,
            usage_limits=self.usage_limits,
            capabilities=capabilities,
            infer_name=False,
        )
