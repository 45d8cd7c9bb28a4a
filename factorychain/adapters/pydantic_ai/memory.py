"""What an agent remembers of its thread, from one run's process to the next's.

Invariant: what cannot be read is never in the way: the thread's history is there without it.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Iterable

from pydantic_ai.messages import ModelMessage
from pydantic_ai.tools import DeferredToolRequests

from factorychain._instance.active import ActiveRun
from factorychain.adapters.pydantic_ai.conversation import Conversation, NotKept
from factorychain.context import RunContext
from factorychain.errors import AgentError, StateLimit
from factorychain.history import PastRun

_TOO_LARGE = "The conversation is too large to be continued later"


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

    @property
    def waiting(self) -> DeferredToolRequests | None:
        """What the last run asked for before it ended."""
        return self._kept.waiting

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

    async def keep(
        self, messages: Iterable[ModelMessage], waiting: DeferredToolRequests | None = None
    ) -> None:
        """Add what was said in this run; forget runs that are no longer part of the thread.

        Raises:
            AgentError: the run waits for answers, and is too large to be continued with them.
            StateConflict: another attempt of this run has done so.
        """
        run = self._ctx.run_id
        self._kept.only(each.run for each in self._past)
        self._kept.add(run, messages, waiting)
        await self._store(self._limit_bytes)

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
