"""What an agent remembers of its thread, from one run's process to the next's.

Invariant: what cannot be read is never in the way: the thread's history is there without it.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults

from factorychain._instance.active import ActiveRun
from factorychain.adapters.pydantic_ai.conversation import Conversation, NotKept
from factorychain.adapters.pydantic_ai.deferred import results
from factorychain.context import RunContext
from factorychain.errors import AgentError, FactoryChainError, StateLimit
from factorychain.history import PastRun

_LAST_WORDS_S: Final = 2.0
_TOO_LARGE: Final = "The conversation is too large to be continued later"
_GONE_ON: Final = "The answer comes too late: the conversation has gone on without it"


class Memory:
    """One run's view of it. Each agent of a thread has its own."""

    def __init__(self, ctx: RunContext, run: ActiveRun, limit_bytes: int) -> None:
        """`limit_bytes` of messages are kept, the latest ones."""
        self._ctx = ctx
        self._run = run
        self._limit_bytes = limit_bytes
        # No agent's name has a colon, no kept value's an underscore.
        self._name = f"pydantic-ai:{run.spec.agent.replace('_', ':')}"
        self._revision = 0
        self._past: list[PastRun] = []
        self._kept = Conversation()

    async def recall(self) -> list[ModelMessage]:
        """The conversation so far."""
        (stored, self._revision), self._past = await asyncio.gather(
            self._run.host.load(self._name), self._ctx.history()
        )
        try:
            self._kept = Conversation.load(zlib.decompress(stored)) if stored else Conversation()
            return self._kept.messages(self._past)
        except (NotKept, zlib.error) as error:
            sys.stderr.write(f"{self._name}: what was kept of the thread is not used: {error}\n")
            self._kept = Conversation()
            return self._kept.messages(self._past)

    def answers(self) -> DeferredToolResults | None:
        """What the run is given that waited before this one; None: this run begins with its input.

        Raises:
            AgentError: the conversation has gone on since then, or is forgotten.
        """
        given = self._ctx.resume
        if given is None:
            return None
        waiting, last = self._kept.waiting, next(reversed(self._kept.turns), "")
        if waiting is None or last != self._run.spec.resumes:
            raise AgentError(_GONE_ON, reason="CONVERSATION_GONE_ON")
        return results(waiting, given)

    async def keep(
        self, messages: Iterable[ModelMessage], waiting: DeferredToolRequests | None = None
    ) -> None:
        """Add what was said in this run; forget runs that are no longer part of the thread.

        Args:
            messages: all that there are; those of other runs are left out.
            waiting: what the run asks for as it ends.

        Raises:
            AgentError: the run waits for answers, and is too large to be continued with them.
            StateConflict: another attempt of this run has done so.
        """
        run = self._ctx.run_id
        self._kept.only(each.run for each in self._past)
        self._kept.add(run, [each for each in messages if each.run_id == run], waiting)
        await self._store(self._limit_bytes)

    async def keep_unfinished(self, messages: Sequence[ModelMessage]) -> None:
        """Keep what was said in a run that came to no good end: what comes next may refer to it, and
        what its tools have done is done.

        Of a run that the model never answered nothing is kept: its question may be why.
        """
        run = self._ctx.run_id
        if not any(isinstance(each, ModelResponse) and each.run_id == run for each in messages):
            return
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.keep(messages)
        except (FactoryChainError, TimeoutError) as error:  # what ended the run is said, not this
            sys.stderr.write(f"{self._name}: the run is not kept: {error}\n")

    async def _store(self, limit_bytes: int) -> None:
        """Store as much of it as the host takes."""
        self._kept.trim(limit_bytes)
        if self._kept.waiting is not None and self._ctx.run_id not in self._kept.turns:
            raise AgentError(_TOO_LARGE, reason="CONVERSATION_TOO_LARGE")
        try:
            value = zlib.compress(self._kept.dump(), 1)  # a tenth, at the least of effort
            self._revision = await self._run.host.store(self._name, value, self._revision)
        except StateLimit as error:
            if not self._kept.turns:
                sys.stderr.write(f"{self._name}: nothing of the thread is kept: {error}\n")
                return
            await self._store(limit_bytes // 2)
