"""One run from its acceptance to its durable ending.

Invariants: its events begin with `agent_started` and stop with exactly one ending, before which every open
call and question is closed; it is finished only when its ending is in the log. It ends when nothing that it says gets there. Its lifetime stands still
while it waits for its user, and it is given up when its token is worth nothing any more.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from factorychain._core import genai
from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.logging import get_logger
from factorychain._core.metrics import counter
from factorychain._core.telemetry import ChainSpan
from factorychain._instance.ending import cancelled, ending_event, started_event
from factorychain._instance.events import tool_failed
from factorychain._instance.pending import checked
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec
from factorychain.errors import ChainDegraded, FactoryChainError, RunNotFound
from factorychain.types.v1.run_pb2 import RunState
from factorychain_agents.executor import RunHandle
from factorychain_agents.factory import AgentInstanceFactory
from factorychain_agents.host import Conversation, InstanceHost, RunLink
from factorychain_agents.outage import OutageWatch
from factorychain_agents.run_models import RunModels

log = get_logger(__name__)

_ended = counter("factorychain.agents.runs.ended", "Runs that ended here, by outcome", "{run}")

_STATES = {
    OutcomeKind.COMPLETED: RunState.RUN_STATE_COMPLETED,
    OutcomeKind.FAILED: RunState.RUN_STATE_FAILED,
    OutcomeKind.CANCELLED: RunState.RUN_STATE_CANCELLED,
}
LOST = "AGENT_LOST"
UNCONFIRMED = ChainDegraded.default_reason
_SUPERSEDED = "SUPERSEDED"
_HANDED_OVER = "HANDED_OVER"
ATTEMPTS = "attempts"
"""The limit in a run's token that says how often it may be started in all."""
# What a stopping process gives an agent that it cancels.
_LAST_GRACE_S = 1.0


class LiveRun:
    """One run from its acceptance to its durable ending."""

    def __init__(
        self,
        ctx: UserExecutionContext,
        spec: RunSpec,
        running: ChainSpan,
        cancel_grace_s: float,
        models: RunModels,
        outage_max_s: float,
    ) -> None:
        self.ctx = ctx
        self._models = models
        self.spec = spec
        self.finished = asyncio.Event()
        self.state = RunState.RUN_STATE_RUNNING
        self.task: asyncio.Task[None] | None = None
        """What carries it."""
        self._span = running
        self._grace_s = cancel_grace_s
        self._began = time.monotonic()
        self._outage = OutageWatch(outage_max_s, lambda: self.cancel(UNCONFIRMED))
        self._began_deadline_s = ctx.deadline_s
        self._host: InstanceHost | None = None
        self._handle: RunHandle | None = None
        self._conversation: Conversation | None = None
        self._link: RunLink | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._validity: asyncio.Timeout | None = None
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._news = asyncio.Event()

    @property
    def news(self) -> asyncio.Event:
        """Set when the engine has to hear something at once; then there is another one."""
        return self._news

    @property
    def waiting(self) -> bool:
        """Whether it waits for its user now."""
        return self._host is not None and self._host.waiting.now

    @property
    def waited_s(self) -> float:
        """For how long it has waited for its user."""
        return self._host.waiting.waited_s(time.monotonic()) if self._host is not None else 0.0

    @property
    def idle_s(self) -> float:
        """Time since the agent's last sign of life; none is expected once it has ended."""
        return self._host.idle_s if self._host is not None and not self._host.closed else 0.0

    def cancel(self, reason: str) -> None:
        """Tell the agent to stop; the first reason counts."""
        if not self._stop_reason and not self.finished.is_set():
            self._stop_reason = reason
            self._stop.set()
            self._models.cancel()
            if self._host is not None:
                self._host.user.ending = True
            if self._handle is not None:
                self._handle.cancel()

    def lose(self) -> None:
        """Stop it because this process stops: its ending must be out before that, unless the engine can
        start it again elsewhere.
        """
        self._grace_s = min(self._grace_s, _LAST_GRACE_S)
        begins_again = self.ctx.attempt < self.ctx.limits.get(ATTEMPTS, 1)
        self.cancel(_HANDED_OVER if begins_again else LOST)

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        """An event was rejected: the agent hears of it."""
        log.warning("an event was rejected", run=self.spec.run, run_seq=run_seq, reason=reason)
        if self._handle is not None:
            self._handle.reject(reason, message)

    def refused(self) -> None:
        """The run is over for this process: settled by the engine, or a later attempt has it."""
        self.cancel(_SUPERSEDED)

    async def respond(self, request: str, value_json: str) -> None:
        """The user's answer to a question of the agent's; see `AskedUser.respond`."""
        if self._host is None or self.finished.is_set():
            raise RunNotFound
        await self._host.user.respond(request, value_json)

    def renew(self, ctx: UserExecutionContext) -> None:
        """The run lives longer than its token said: this is its next one."""
        if ctx.expires_at_s <= self.ctx.expires_at_s or self.finished.is_set():
            return
        self.ctx = ctx
        self._models.renew(ctx)
        if self._validity is not None:
            self._validity.reschedule(self._loop_time(ctx.expires_at_s))
        if self._link is not None:
            self._link.renew(ctx.token)
        if self._conversation is not None:
            self._conversation.renewed(ctx)

    def finish(self) -> None:
        """Nothing of it is left to do here. May be called twice."""
        self.finished.set()
        self._tell()

    def begin(self, link: RunLink, conversation: Conversation) -> None:
        """Say that the agent has started: before anything else is done for the run."""
        self._link, self._conversation = link, conversation
        self._host = InstanceHost(link, conversation, self.spec, self._waiting_changed)
        self._host.begin(started_event(self.spec))

    async def live(self, factory: AgentInstanceFactory, link: RunLink) -> None:
        """From the instance to the durable ending. Raises nothing but cancellation."""
        self._watch_deadline()
        assert self._host is not None, "begin comes first"
        self._outage.start(self._host)
        try:
            async with asyncio.timeout_at(self._loop_time(self.ctx.expires_at_s)) as self._validity:
                outcome = await self._with_models(await self._outcome(factory))
                if self._stop_reason == _HANDED_OVER:
                    return
                crash_point("agents.ending.sending")
                await self._end(outcome)
                await link.wait_ended()
                crash_point("agents.ending.durable")
                self.state = _STATES[outcome.kind]
                _ended.add(1, {"outcome": outcome.kind.value, "agent": self.spec.agent})
        except FactoryChainError as error:
            log.warning("the run is no longer this process's", cause=error.reason)
        except TimeoutError:
            log.error("the run's ending did not become durable while its token was valid")
        finally:
            self._validity = None
            self._outage.stop()
            if self._deadline is not None:
                self._deadline.cancel()
            self._models.cancel()
            self._span.end()
            self.finish()
            await link.close()

    def _watch_deadline(self) -> None:
        """The lifetime stands still while the run waits for its user."""
        if self._deadline is not None:
            self._deadline.cancel()
        left_s = self._began_deadline_s + self.waited_s - time.time()
        loop = asyncio.get_running_loop()
        if not self.waiting:
            self._deadline = loop.call_later(max(0.0, left_s), self.cancel, "DEADLINE")

    def _waiting_changed(self) -> None:
        self._watch_deadline()
        self._tell()

    def _tell(self) -> None:
        """The engine hears of a change at once, not when it is told next."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    @staticmethod
    def _loop_time(unix_s: float) -> float:
        return asyncio.get_running_loop().time() + max(0.0, unix_s - time.time())

    async def _outcome(self, factory: AgentInstanceFactory) -> Outcome:
        assert self._host is not None, "begin comes first"
        try:
            self._handle = await self._started(factory)
        except FactoryChainError as error:
            return Outcome(OutcomeKind.FAILED, reason=error.reason, text=error.message)
        if self._handle is None:
            return cancelled(self._stop_reason, Outcome(OutcomeKind.CANCELLED).usage)
        if self._stop_reason:  # it came while the instance was started
            self._handle.cancel()
        outcome = await self._until_stopped(self._handle)
        self._host.closed = True
        self._host.user.ending = True
        if outcome.kind is OutcomeKind.CANCELLED and not outcome.reason:
            # Nobody cancelled it: the agent cancelled itself, which is a failure of its code.
            return Outcome(OutcomeKind.FAILED, reason="AGENT_FAILED", usage=outcome.usage)
        return await asyncio.to_thread(checked, outcome) if outcome.pending else outcome

    async def _with_models(self, outcome: Outcome) -> Outcome:
        """The outcome, with what the run has used of models through the gateway."""
        return replace(outcome, usage=outcome.usage + await self._models.close())

    async def _started(self, factory: AgentInstanceFactory) -> RunHandle | None:
        """The instance, when it is there; None if it was told to stop before that.

        Raises:
            FactoryChainError: it cannot be started.
        """
        assert self._host is not None, "begin comes first"
        starting = asyncio.ensure_future(factory.start(self.spec, self._host))
        told = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                return starting.result()
            starting.cancel()
            await asyncio.wait({starting})
            # It may have been there at the same moment.
            return None if starting.cancelled() else starting.result()
        finally:
            told.cancel()
            starting.cancel()

    async def _until_stopped(self, handle: RunHandle) -> Outcome:
        """The agent's outcome; that of the cancel if it was cancelled, whatever it did then."""
        working = asyncio.ensure_future(handle.wait())
        told = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
            if working.done() and not self._stop_reason:
                return working.result()
            await asyncio.wait({working}, timeout=self._grace_s)
            if not working.done():
                handle.abandon()
                return cancelled(self._stop_reason, Outcome(OutcomeKind.CANCELLED).usage)
            return cancelled(self._stop_reason, working.result().usage)
        finally:
            told.cancel()
            working.cancel()

    async def _end(self, outcome: Outcome) -> None:
        assert self._host is not None, "begin comes first"
        if self._stop_reason == _SUPERSEDED:
            return  # another one has ended it, or will
        self._note(outcome)
        self._host.user.close_all()
        for call, tool in list(self._host.open_calls.items()):
            reason, text = "CANCELLED", "The call did not end before its run"
            event = tool_failed(self.spec.trace, call, tool, reason, text, 0)
            await self._host.say(event, closes_call=call)
        duration_s = time.monotonic() - self._began
        await self._host.say(ending_event(self.spec, outcome, duration_s))

    def _note(self, outcome: Outcome) -> None:
        usage = genai.usage(outcome.usage.input_tokens, outcome.usage.output_tokens)
        self._span.set_attributes(usage)
        if outcome.kind is OutcomeKind.FAILED:
            self._span.set(genai.ERROR_TYPE, outcome.reason)
            self._span.fault = outcome.reason
