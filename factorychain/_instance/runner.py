"""One run of one agent: make the instance, call its `run`, say what came of it.

Invariant: it ends with an `Outcome` whatever the agent's code raises, after everything that was made for
the run is closed, and nothing can be said in the run's name afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from factorychain._instance.active import ActiveRun
from factorychain._instance.definition import AgentDefinition
from factorychain._instance.events import input_requested
from factorychain._instance.external_calls import close_calls
from factorychain._instance.injection import Injection
from factorychain._instance.model_troubles import trouble_of
from factorychain._instance.open_call import print_failure
from factorychain._instance.spec import Outcome, OutcomeKind
from factorychain._instance.threads import in_thread
from factorychain._instance.values import NotJson, dumps
from factorychain.agent import Agent
from factorychain.context import RunContext, bind_agent, tool_sources
from factorychain.errors import AgentError
from factorychain.interrupt import REQUESTS_MAX, Interrupt


async def run_agent(run: ActiveRun, definition: AgentDefinition, injection: Injection) -> Outcome:
    """Run the agent. A cancelled task ends with an outcome as well, so that the host hears of usage."""
    beats = _Heartbeat(run)
    try:
        with run.entered():
            try:
                output = await _instance_run(run, definition, injection)
            finally:
                await close_calls(run)
        return _completed(run, output)
    except asyncio.CancelledError:
        return Outcome(OutcomeKind.CANCELLED, usage=run.usage)
    except BaseException as error:  # noqa: BLE001 - SystemExit too: an agent must not end its host
        interrupts = _interrupts_in(error)
        return _interrupted(run, interrupts) if interrupts else _failed(run, error)
    finally:
        run.close()
        beats.stop()


async def run_inside(run: ActiveRun, definition: AgentDefinition, injection: Injection) -> object:
    """Run a sub-agent, which is a part of its parent's run: what it returns is returned, what it raises
    is raised, when everything that was made for it is closed.
    """
    assert run.parent is not None, "it is inside of another one"
    siblings = run.parent.children
    siblings.add(run)
    try:
        with run.entered():
            try:
                return await _instance_run(run, definition, injection)
            finally:
                await close_calls(run)
    except (SystemExit, KeyboardInterrupt) as error:
        # In a task of its own (parallel sub-agents) asyncio would let it end the whole process.
        raise RuntimeError(f"agent {definition.name} raised {type(error).__name__}") from error
    finally:
        run.close()
        siblings.discard(run)


async def abandon(run: ActiveRun) -> None:
    """Let go of a run whose code does not stop when it is cancelled.

    Nothing more is said in its name, and what was made for it is closed under its hands. What its
    finalisers raise goes to the log.
    """
    run.close()
    for each in list(run.children):
        await abandon(each)
    if run.release is not None:
        await run.release(asyncio.CancelledError())


async def _instance_run(
    run: ActiveRun, definition: AgentDefinition, injection: Injection
) -> object:
    ctx = RunContext(run)
    run.begin(ctx)
    argument = definition.argument(run.spec.input_json)
    async with injection.scope(ctx) as scope:
        sources = tool_sources(ctx)

        async def release(error: BaseException) -> None:
            await sources.close()
            await scope.close(error)

        run.release = release
        agent = await scope.agent(definition.cls)
        bind_agent(ctx, agent)
        if run.parent is None:
            run.host.created()
        try:
            await sources.open(definition.sources, definition.tools)
            return await _call(definition, agent, ctx, argument)
        finally:
            await sources.close()


async def _call(
    definition: AgentDefinition, agent: Agent, ctx: RunContext, argument: object
) -> object:
    method: Callable[..., object] = getattr(agent, "run")  # noqa: B009 - its signature varies
    arguments = (ctx,) if definition.takes is type(None) else (ctx, argument)
    if not definition.is_async:
        return await in_thread(method, *arguments)
    return await method(*arguments)  # type: ignore[misc]


def _completed(run: ActiveRun, output: object) -> Outcome:
    try:
        text = dumps(output)
    except NotJson as error:
        return _failed(run, TypeError(f"run returned what has no JSON form: {error}"))
    message = run.said.message_with(output) if isinstance(output, str) else ""
    if len(text.encode()) > run.spec.output_max_bytes:
        limit = run.spec.output_max_bytes
        return Outcome(
            OutcomeKind.FAILED,
            reason="OUTPUT_TOO_LARGE",
            text=f"The agent's output is larger than the limit of {limit} bytes",
            usage=run.usage,
        )
    return Outcome(OutcomeKind.COMPLETED, text, message, usage=run.usage)


def _interrupted(run: ActiveRun, interrupts: list[Interrupt]) -> Outcome:
    """The run ends with questions; several at once are those of parallel tasks."""
    requests = [each for one in interrupts for each in one.requests]
    pending = tuple(each.plain() for each in requests)
    ids = {each.request for each in pending}
    if len(ids) < len(pending) or len(pending) > REQUESTS_MAX:
        return _failed(
            run, ValueError("parallel Interrupts with one id, or with too many requests")
        )
    outputs = [one.output for one in interrupts if one.output is not None]
    outcome = _completed(run, outputs[0] if outputs else None)
    if sum(len(input_requested("", each)) for each in pending) > run.text_limit_bytes:
        limit = run.text_limit_bytes
        text = f"What the agent asks is larger than the limit of {limit} bytes"
        return Outcome(
            OutcomeKind.FAILED, reason="OUTPUT_TOO_LARGE", text=text, usage=outcome.usage
        )
    return replace(outcome, pending=pending) if outcome.kind is OutcomeKind.COMPLETED else outcome


def _interrupts_in(error: BaseException) -> list[Interrupt]:
    """The interrupts that an error consists of; none if there is anything else in it."""
    if isinstance(error, Interrupt):
        return [error]
    if isinstance(error, BaseExceptionGroup):
        found = [_interrupts_in(each) for each in error.exceptions]
        return [one for each in found for one in each] if all(found) else []
    return []


def _failed(run: ActiveRun, error: BaseException) -> Outcome:
    if isinstance(error, AgentError):
        return Outcome(
            OutcomeKind.FAILED,
            reason=error.reason,
            text=error.message,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
            usage=run.usage,
        )
    print_failure(run, error)
    trouble = trouble_of(error)
    if trouble is not None:
        return Outcome(
            OutcomeKind.FAILED,
            reason=trouble.reason,
            text=trouble.text,
            retryable=trouble.retryable,
            retry_after_s=trouble.retry_after_s,
            usage=run.usage,
        )
    return Outcome(OutcomeKind.FAILED, reason="AGENT_FAILED", usage=run.usage)


class _Heartbeat:
    """Signs of life at a steady pace for as long as the loop that the agent runs on goes round."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._next: asyncio.TimerHandle | None = None
        self._beat()

    def _beat(self) -> None:
        self._run.host.beat()
        self._next = self._run.loop.call_later(self._run.spec.beat_every_s, self._beat)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
