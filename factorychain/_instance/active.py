"""The run that an instance is in: how its code is found again, and what it has said so far.

Invariant: an event carries the trace of the tool call it was made in, else of the agent; once the run
is closed nothing more is said in its name, whoever still holds it.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from factorychain._instance.host import RunHost
from factorychain._instance.path import TOP, EventPath
from factorychain._instance.said import Said
from factorychain._instance.spec import RunSpec
from factorychain._instance.values import clean_text, cut_text
from factorychain._instance.waiting import Waiting
from factorychain.errors import EventRejected, RunEnded
from factorychain.usage import Usage

# What an event needs besides its text: timestamp, trace, ids, names.
_OVERHEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Position:
    """Where in a run some code is."""

    run: ActiveRun
    trace: str
    call: str
    """The tool call; empty outside of one."""
    path: EventPath


_position: ContextVar[_Position | None] = ContextVar("factorychain_position", default=None)


def current_run() -> ActiveRun | None:
    """The run that this code is in; None outside of one or after its end."""
    position = _position.get()
    return position.run if position is not None and not position.run.closed else None


def run_of(task: asyncio.Task[object]) -> ActiveRun | None:
    """The run whose code a task is; None if it is no agent's. May be asked from any thread."""
    position = _context_of(task).get(_position)
    return position.run if position is not None else None


def _context_of(task: asyncio.Task[object]) -> contextvars.Context:
    get: Callable[[], contextvars.Context] | None = getattr(task, "get_context", None)
    if get is not None:  # from Python 3.12 on
        return get()
    held = [each for each in gc.get_referents(task) if isinstance(each, contextvars.Context)]
    return held[0] if held else contextvars.Context()


class AgentContext:
    """What the agent's code sees of its run. `RunContext` is the only one; what tools and calls need
    of it is that it can be recognised and handed on.
    """


class Unfinished(Protocol):
    """A call whose end has not been said."""

    async def fail(self, reason: str, message: str) -> None: ...


class SubAgentRunner(Protocol):
    """Runs agents inside of a run (`SubAgents`)."""

    async def run(
        self, parent: ActiveRun, agent: str | type[object], given: object, name: str
    ) -> object: ...


@dataclass(slots=True)
class _Faults:
    """What went wrong lately in a run, whichever agent in it hears of it."""

    rejected: EventRejected | None = None
    printed: BaseException | None = None
    """The failure whose traceback is in the log already."""


class ActiveRun:
    """One run while its agent's code works; of a sub-agent, its part of the run."""

    def __init__(
        self,
        spec: RunSpec,
        host: RunHost,
        loop: asyncio.AbstractEventLoop,
        hint: Callable[[BaseException], str] = lambda error: "",
        sub_agents: SubAgentRunner | None = None,
    ) -> None:
        """A run.

        Args:
            spec: what it is.
            host: whoever hosts it.
            loop: what its code runs on.
            hint: says of an error, for the log, what would allow what it was raised for.
            sub_agents: runs other agents in it; None: there are none.
        """
        self.spec = spec
        self.hint = hint
        self.sub_agents = sub_agents
        self.parent: ActiveRun | None = None
        """Of a sub-agent, the agent that runs it."""
        self.children: set[ActiveRun] = set()
        """The sub-agents that are at work."""
        self.host = host
        self.loop = loop
        self.usage = Usage()
        self.waiting = Waiting(spec.ask_max_s)
        """How long it has waited for its user."""
        self.open_calls: set[str] = set()
        """Tool calls whose function has not come to its end."""
        self.external_calls: dict[str, Unfinished] = {}
        """Open calls of tools that a framework runs itself, by id."""
        self.calls_seen: set[str] = set()
        """Ids that a framework's calls have had."""
        self.release: Callable[[BaseException], Awaitable[None]] | None = None
        """Closes what was made for the run; None before anything was."""
        self.said = Said(spec.output_max_bytes)
        self._top = TOP
        self._closed = False
        self._context: AgentContext | None = None
        self._ids: dict[str, int] = {}
        self._faults = _Faults()

    def inside(self, spec: RunSpec, name: str) -> ActiveRun:
        """The part of the run that a sub-agent has: its events have the name in their path, and whatever is
        unique or counted in the run is so with it.
        """
        child = ActiveRun(spec, self.host, self.loop, self.hint, self.sub_agents)
        child.parent = self
        child.usage = self.usage
        child.waiting = self.waiting
        child.calls_seen = self.calls_seen
        child.said = self.said
        child._top = self.path.within(name)
        child._ids = self._ids
        child._faults = self._faults
        return child

    @property
    def depth(self) -> int:
        """How many agents it is inside of."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def closed(self) -> bool:
        """Whether nothing more can be said in its name."""
        return self._closed or (self.parent is not None and self.parent.closed)

    @property
    def printed(self) -> BaseException | None:
        """The failure whose traceback is in the log already."""
        return self._faults.printed

    @printed.setter
    def printed(self, error: BaseException) -> None:
        self._faults.printed = error

    @property
    def context(self) -> AgentContext:
        """The same object for everything in the run.

        Raises:
            RunEnded: the run is over.
        """
        if self._context is None:
            raise RunEnded("the run is over; nothing more can begin in it")
        return self._context

    def begin(self, context: AgentContext) -> None:
        """What the agent's code sees from now on."""
        self._context = context

    def close(self) -> None:
        """Nothing more is said in the run's name. Its context is let go, which holds the run."""
        self._closed = True
        self._context = None

    @contextmanager
    def entered(
        self, trace: str = "", call: str = "", path: EventPath | None = None
    ) -> Iterator[None]:
        """Be in the run, or in one of its tool calls. Without a path it is where this is called."""
        place = _Position(self, trace or self.spec.trace, call, path or self.path)
        token = _position.set(place)
        try:
            yield
        finally:
            _position.reset(token)

    @contextmanager
    def within(self, *names: str) -> Iterator[None]:
        """Be in a part of the agent: what is said inside has its names at the end of its `path`."""
        with self.entered(self.trace, self.call, self.path.within(*names)):
            yield

    @property
    def trace(self) -> str:
        position = _position.get()
        return position.trace if position is not None and position.run is self else self.spec.trace

    @property
    def call(self) -> str:
        """The tool call that this code is in; empty outside of one."""
        position = _position.get()
        return position.call if position is not None and position.run is self else ""

    @property
    def path(self) -> EventPath:
        """Which part of the agent this code is."""
        position = _position.get()
        return position.path if position is not None and position.run is self else self._top

    @property
    def text_limit_bytes(self) -> int:
        """What fits into one event here."""
        overhead = _OVERHEAD_BYTES + len(self.path.field)
        return max(self.spec.event_max_bytes - overhead, 256)

    def new_id(self, letter: str) -> str:
        """Unique in the run, also over attempts."""
        count = self._ids[letter] = self._ids.get(letter, 0) + 1
        attempt = self.spec.attempt
        return f"{letter}{count}" if attempt <= 1 else f"{letter}{attempt}.{count}"

    async def emit(self, kind: int, event: bytes, path: EventPath | None = None) -> None:
        """Say something; returns when there is room in the run's window.

        Args:
            kind: number of the event's field.
            event: without its path.
            path: which part of the agent says it; by default the one that this code is.

        Raises:
            EventRejected: this event is too large, or an earlier one was rejected on its way.
            RunEnded: the run is over.
        """
        if self._faults.rejected is not None:
            rejected, self._faults.rejected = self._faults.rejected, None
            raise rejected
        if len(event) > self.spec.event_max_bytes:
            limit = self.spec.event_max_bytes
            raise EventRejected(
                "EVENT_TOO_LARGE", f"the event has {len(event)} bytes, the limit is {limit}"
            )
        await self.emit_closing(kind, event, path)

    async def emit_closing(self, kind: int, event: bytes, path: EventPath | None = None) -> None:
        """As `emit`, for what must be said whatever was rejected before."""
        if self.closed:
            raise RunEnded("the run is over; nothing more can be said in it")
        await self.host.emit(kind, event + (path or self.path).field)

    def reject(self, reason: str, message: str) -> None:
        """An event was rejected on its way; the agent hears of it when it speaks next."""
        self._faults.rejected = EventRejected(reason, message)

    def pieces(self, text: str) -> Iterator[str]:
        """The text in valid UTF-8, in pieces that fit an event."""
        if len(text) * 3 <= self.text_limit_bytes:  # one character has at most 3 bytes a code unit
            yield text if text.isascii() else clean_text(text)
            return
        rest = clean_text(text)
        while rest:
            piece = cut_text(rest, self.text_limit_bytes)
            yield piece
            rest = rest[len(piece) :]


def child_trace(trace: str) -> tuple[str, str]:
    """A `traceparent` for a span below this one, and this one's span id."""
    version, trace_id, parent_id, flags = trace.split("-", 3)
    span_id = f"{random.getrandbits(64) or 1:016x}"
    return f"{version}-{trace_id}-{span_id}-{flags}", parent_id
