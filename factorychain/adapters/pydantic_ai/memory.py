"""What an agent remembers of its thread, from one run's process to the next's.

Invariant: what cannot be read is never in the way: the thread's history is there without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults

from factorychain._instance.active import ActiveRun
from factorychain.adapters.pydantic_ai.conversation import Conversation, NotKept
from factorychain.adapters.pydantic_ai.deferred import is_answered, results
from factorychain.context import RunContext
from factorychain.errors import AgentError, FactoryChainError, StateLimit
from factorychain.history import PastRun

_LAST_WORDS_S: Final = 2.0
_TOO_LARGE: Final = "The conversation is too large to be continued later"
_GONE_ON: Final = "The answer comes too late: the conversation has gone on without it"


class Memory:
    """One run's view of it. Each agent of a thread has its own.

    A sub-agent begins anew with each call: of it nothing is kept but what waits for an answer.
    """

    def __init__(self, ctx: RunContext, run: ActiveRun, limit_bytes: int) -> None:
        """`limit_bytes` of messages are kept, the latest ones."""
        self._ctx = ctx
        self._run = run
        self._limit_bytes = limit_bytes
        self._lasting = run.depth == 0
        self._name = _name_of(run)
        self._revision = 0
        self._past: list[PastRun] = []
        self._kept = Conversation()

    async def recall(self) -> list[ModelMessage]:
        """The conversation so far."""
        if self._lasting:
            stored, self._past = await asyncio.gather(self._load(), self._ctx.history())
        else:
            stored = await self._load()
        try:
            self._kept = Conversation.load(zlib.decompress(stored)) if stored else Conversation()
            return self._said()
        except (NotKept, zlib.error) as error:
            sys.stderr.write(f"{self._name}: what was kept of the thread is not used: {error}\n")
            self._kept = Conversation()
            return self._said()

    def _said(self) -> list[ModelMessage]:
        if self._lasting:
            return self._kept.messages(self._past)
        if not self._goes_on:
            self._kept = Conversation()
        return self._kept.everything()

    async def _load(self) -> bytes | None:
        stored, self._revision = await self._run.host.load(self._name)
        return stored

    @property
    def _goes_on(self) -> bool:
        """Whether the run goes on for what has waited here."""
        given, waiting = self._ctx.resume, self._kept.waiting
        if given is None or waiting is None or not is_answered(waiting, given):
            return False
        return next(reversed(self._kept.turns), "") == self._run.spec.resumes

    def answers(self) -> DeferredToolResults | None:
        """What the run is given that waited before this one; None: this run begins with its input.

        Raises:
            AgentError: the conversation has gone on since then, or is forgotten.
        """
        given, waiting = self._ctx.resume, self._kept.waiting
        if given is not None and waiting is not None and self._goes_on:
            return results(waiting, given)
        if given is not None and self._lasting:
            raise AgentError(_GONE_ON, reason="CONVERSATION_GONE_ON")
        return None

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
        if self._lasting:
            self._kept.only(each.run for each in self._past)
        elif waiting is None:
            await self._forget()
            return
        self._kept.add(run, [each for each in messages if each.run_id == run], waiting)
        await self._store(self._limit_bytes)

    async def keep_unfinished(self, messages: Sequence[ModelMessage]) -> None:
        """Keep what was said in a run that came to no good end: what comes next may refer to it, and
        what its tools have done is done.

        Of a run that the model never answered nothing is kept: its question may be why.
        """
        run = self._ctx.run_id
        if not self._lasting or not any(
            isinstance(each, ModelResponse) and each.run_id == run for each in messages
        ):
            return
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.keep(messages)
        except (FactoryChainError, TimeoutError) as error:  # what ended the run is said, not this
            sys.stderr.write(f"{self._name}: the run is not kept: {error}\n")

    async def _forget(self) -> None:
        if self._revision:
            self._revision = await self._run.host.store(self._name, None, self._revision)

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


def _name_of(run: ActiveRun) -> str:
    """No agent's name has a colon, or is empty, and no kept value's name has an underscore."""
    if run.depth == 0:
        return f"pydantic-ai:{run.spec.agent.replace('_', ':')}"
    path = "/".join(run.path.names)
    return f"pydantic-ai::{hashlib.blake2b(path.encode(), digest_size=12).hexdigest()}"
