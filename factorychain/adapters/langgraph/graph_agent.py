"""The agent around a graph.

Invariant: the author's graph is never changed; what a run needs is given per call. What the graph keeps
of the conversation is stored before the run ends, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import ClassVar, Final, cast

from langchain_core.messages import AnyMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.types import Command

from factorychain._instance.active import ActiveRun, current_run
from factorychain._instance.open_call import print_failure
from factorychain.adapters.adapted import Adapted
from factorychain.adapters.langgraph.checkpoints import ThreadSaver
from factorychain.adapters.langgraph.graph_events import MODES, GraphEvents, Part
from factorychain.adapters.langgraph.inputs import (
    configurable,
    context_for,
    conversation,
    graph_input,
    unanswered,
)
from factorychain.adapters.langgraph.observing import Consumed, Observer
from factorychain.adapters.langgraph.outputs import output_of
from factorychain.adapters.langgraph.requests import (
    breakpoint_for,
    interrupt_for,
    is_asked,
    resume_values,
)
from factorychain.adapters.langgraph.shape import MESSAGES, Graph, Shape
from factorychain.context import RunContext
from factorychain.errors import AgentError, FactoryChainError
from factorychain.input import Input, Json
from factorychain.interrupt import Interrupt

log = logging.getLogger(__name__)

_STORING_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Choices:
    """What the author of an agent may choose about its graph."""

    shape: Shape
    remembers: bool
    """A run goes on from where the thread's last one ended."""
    remembers_inside: bool = False
    """Also where another agent runs it; else each of its calls begins anew."""
    types: frozenset[tuple[str, ...]] = frozenset()
    """What is made again from stored checkpoints, besides plain data and messages: (module, name)."""
    input: Callable[[RunContext], object] | None = None
    output: Callable[[object], Json] | None = None
    recursion_limit: int | None = None
    configurable: Mapping[str, object] = field(default_factory=dict)


class GraphAgent(Adapted):
    """Runs a compiled graph."""

    choices: ClassVar[Choices]

    async def run(self, ctx: RunContext, given: Input) -> Json:
        run = current_run()
        assert run is not None, "an agent's run is in its run"
        work = _Work(ctx, run, cast("Graph", self.adapted), self.choices)
        return await work.output(given)


class _Work:
    """One run of a graph."""

    def __init__(self, ctx: RunContext, run: ActiveRun, graph: Graph, choices: Choices) -> None:
        self._ctx = ctx
        self._run = run
        self._choices = choices
        inside = run.path.names
        self._remembers = choices.remembers_inside if inside else choices.remembers
        # A sub-agent's calls are turns of their own, in one run.
        self._turn = "-".join(
            [run.spec.run, *inside, run.new_id("g")] if inside else [run.spec.run]
        )
        found = {**choices.configurable, **configurable(ctx)}
        self._saver = _saver_for(graph, run, str(found["thread_id"]), choices)
        self._graph = graph.copy({"checkpointer": self._saver}) if self._saver else graph
        observer = Observer(self._count, _stopping_of(asyncio.current_task()))
        self._events = GraphEvents(ctx, run, observer, steps=len(graph.nodes) - 1)
        self._config = RunnableConfig(configurable=found, callbacks=[observer])
        if choices.recursion_limit is not None:
            self._config["recursion_limit"] = choices.recursion_limit

    async def output(self, given: Input) -> Json:
        if self._saver is not None:
            await self._saver.restore()
        begin = await self._begin(given)
        try:
            await self._stream(begin)
        except GraphRecursionError as error:
            await self._keep_whatever_comes()
            print_failure(self._run, error)
            raise AgentError(
                "The agent took more steps than it may without coming to an end",
                reason="TOO_MANY_STEPS",
            ) from error
        except BaseException:
            await self._keep_whatever_comes()
            raise
        interrupt = await self._interrupt()
        await self._keep(waits=interrupt is not None)
        if interrupt is not None:
            await self._events.pause()
            raise interrupt
        make = self._choices.output
        state = self._events.state
        return make(state) if make else output_of(state, self._turn)

    async def _stream(self, begin: object) -> None:
        stream = self._graph.astream(
            begin,
            self._config,
            context=context_for(self._graph, self._config["configurable"]),
            stream_mode=MODES,
            output_keys=self._graph.output_channels,
            subgraphs=True,
            durability="exit" if self._saver else None,
        )
        async with aclosing(cast("AsyncGenerator[Part, None]", stream)) as parts:
            async for part in parts:
                await self._events.take(part)

    # --- what it begins with ---

    async def _begin(self, given: Input) -> object:
        if self._ctx.resume is not None:
            snapshot = await self._graph.aget_state(self._config)
            # What is answered may be another agent's question, if this one is inside of a run.
            if not self._run.path.names or is_asked(snapshot, self._ctx.resume):
                values = resume_values(snapshot, self._ctx.resume)
                return Command(resume=values) if values else None
        if self._saver is not None and not self._remembers:
            self._saver.forget()
        make = self._choices.input
        if make is not None:
            return make(self._ctx)
        begin = graph_input(self._choices.shape, given, self._turn)
        if self._choices.shape.has_messages and isinstance(begin, dict):
            begin[MESSAGES] = [*await self._said_before(), *begin[MESSAGES]]
        return begin

    async def _said_before(self) -> list[BaseMessage]:
        """What the graph's own memory lacks before this turn."""
        if not self._graph.checkpointer or not self._remembers:
            return []
        if self._saver is not None and (self._run.spec.replaces or self._saver.is_empty):
            # The graph's memory goes on after the turn that is replaced; the records do not.
            self._saver.forget()
            return conversation(await self._ctx.history())
        values = (await self._graph.aget_state(self._config)).values
        messages = values.get(MESSAGES) if isinstance(values, dict) else None
        return unanswered(cast("list[AnyMessage]", messages or []))

    # --- its end ---

    async def _interrupt(self) -> Interrupt | None:
        """What the graph waits for."""
        waiting = list(self._events.interrupts.values())
        if waiting:
            return interrupt_for(waiting)
        if not (self._graph.interrupt_before_nodes or self._graph.interrupt_after_nodes):
            return None
        return breakpoint_for(await self._graph.aget_state(self._config))

    async def _keep(self, *, waits: bool = False) -> None:
        """Store what the next run goes on from: always for an answer, else if it is to be remembered."""
        if self._saver is None:
            return
        if self._remembers or waits:
            await self._saver.keep()
        elif self._ctx.resume is not None:
            await self._saver.drop()

    async def _keep_whatever_comes(self) -> None:
        """As `_keep`, for a run that ends for another reason, which counts."""
        try:
            async with asyncio.timeout(_STORING_S):
                await self._keep()
        except (FactoryChainError, TimeoutError) as error:
            log.warning("what the graph keeps of this conversation was not stored: %s", error)

    def _count(self, consumed: Consumed) -> None:
        self._run.usage.add(**consumed, requests=1)


def _stopping_of(task: asyncio.Task[object] | None) -> Callable[[], bool]:
    assert task is not None, "a coroutine runs in a task"
    return lambda: task.cancelling() > 0


def _saver_for(graph: Graph, run: ActiveRun, thread: str, choices: Choices) -> ThreadSaver | None:
    """None for a graph that has a store of its own which outlives the process, or that wants none."""
    own = graph.checkpointer
    if own is not None and not isinstance(own, InMemorySaver):
        return None
    keeper = "/".join([run.spec.agent, *run.path.names])
    return ThreadSaver(run.host, keeper, thread, choices.types)
