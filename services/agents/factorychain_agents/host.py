"""The service's side of one instance: what the agent says gets its number and goes to the emitter.

Invariant: `run_seq` is dense from 1 in the order in which events were handed over, and for every tool
call that was sent as begun and not as ended the host knows that it is open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.link import request_key
from factorychain._core.telemetry import ChainSpan, SpanKind, parse_traceparent, record_creation
from factorychain._instance import events
from factorychain._instance.spec import RunSpec, SpanRecord
from factorychain._instance.waiting import Waiting
from factorychain.errors import EventRejected, RunEnded
from factorychain.types.v1.event_pb2 import Event
from factorychain_agents.asked import AskedUser

# An agent that says much and waits for nothing must let others speak, and its own words out.
_YIELD_EVERY = 32
# The emitter may hold these back: what has come so far could become a secret.
_HELD_BACK = frozenset({events.MESSAGE_DELTA, events.THINKING_DELTA})
# Far above what the emitter takes; an instance may say anything, and all runs share one link.
EVENT_MAX_BYTES = 1024 * 1024


class Conversation(Protocol):
    """What the run's thread keeps (`RunHost` says of each what it raises)."""

    def renewed(self, ctx: UserExecutionContext) -> None:
        """The run has another token."""

    async def history(self, limit: int) -> Sequence[bytes]: ...

    async def load(self, name: str) -> tuple[bytes | None, int]: ...

    async def store(self, name: str, value: bytes | None, revision: int) -> int: ...


class RunLink(Protocol):
    """The run's end of the link to the emitter (`_core.link.LinkRun`)."""

    @property
    def durable_run_seq(self) -> int:
        """Everything up to here is durable or was rejected."""
        ...

    @property
    def has_room(self) -> bool: ...

    def offer(self, run_seq: int, events: Sequence[bytes], *, closes_call: str = "") -> None:
        """Send without waiting for room."""
        ...

    async def send(
        self, event: bytes, run_seq: int, *, opens_call: str = "", closes_call: str = ""
    ) -> None: ...

    async def wait_ended(self) -> None: ...

    def renew(self, token: str) -> None:
        """From now on the run has this token."""
        ...

    async def close(self) -> None: ...


class InstanceHost:
    """`RunHost` for one run."""

    def __init__(
        self,
        link: RunLink,
        conversation: Conversation,
        spec: RunSpec,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called when the run begins to wait for its user, or ends to."""
        self._link = link
        self._conversation = conversation
        self._run_seq = 0
        self._whole_seq = 0
        self._last_sign = self._began = time.monotonic()
        self.open_calls: dict[str, str] = {}
        """Tool by call."""
        self.waiting = Waiting(spec.ask_max_s)
        self.user = AskedUser(
            self,
            self.waiting,
            changed,
            trace=spec.trace,
            event_max_bytes=spec.event_max_bytes,
        )
        self.closed = False
        """Whether the agent may say nothing more."""

    @property
    def durable_run_seq(self) -> int:
        """Everything up to here is durable or was rejected."""
        return self._link.durable_run_seq

    @property
    def owed(self) -> bool:
        """Whether something is not confirmed that nobody holds back."""
        return self._whole_seq > self._link.durable_run_seq or not self._link.has_room

    @property
    def idle_s(self) -> float:
        """Time since the last sign of life."""
        return time.monotonic() - self._last_sign

    async def emit(self, kind: int, event: bytes) -> None:
        if self.closed:
            raise RunEnded("the run is over; nothing more can be said in it")
        if len(event) > EVENT_MAX_BYTES:
            raise EventRejected("EVENT_TOO_LARGE", f"no event may have {len(event)} bytes")
        opens, closes = self._note(kind, event)
        self._run_seq += 1
        if kind not in _HELD_BACK:
            self._whole_seq = self._run_seq
        self._last_sign = time.monotonic()
        crash_point("agents.event.sending")
        await self._link.send(event, self._run_seq, opens_call=opens, closes_call=closes)
        crash_point("agents.event.sent")
        if not self._run_seq % _YIELD_EVERY:
            await asyncio.sleep(0)

    def begin(self, event: bytes) -> None:
        """Send the first event, at once."""
        self._run_seq = self._whole_seq = 1
        self._link.offer(1, (event,))

    async def say(self, event: bytes, closes_call: str = "") -> None:
        """Send what the service itself says: what it closes, and the ending."""
        self._run_seq = self._whole_seq = self._run_seq + 1
        await self._link.send(event, self._run_seq, closes_call=closes_call)

    def beat(self) -> None:
        self._last_sign = time.monotonic()

    def created(self) -> None:
        record_creation("agent_instance", time.monotonic() - self._began)

    def span(self, record: SpanRecord) -> None:
        export(record)

    async def ask(self, event: bytes, timeout_s: float) -> bytes:
        self._check_open()
        return await self.user.ask(event, timeout_s)

    async def history(self, limit: int) -> Sequence[bytes]:
        return await self._conversation.history(limit)

    async def load(self, name: str) -> tuple[bytes | None, int]:
        self._check_open()
        return await self._conversation.load(name)

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        self._check_open()
        return await self._conversation.store(name, value, revision)

    async def send_question(self, request: str, event: bytes) -> None:
        """Send a question (`Saying`)."""
        self._check_open()
        self._run_seq = self._whole_seq = self._run_seq + 1
        await self._link.send(event, self._run_seq, opens_call=request_key(request))

    def settle_question(self, request: str, event: bytes) -> None:
        """Send that a question is over."""
        self._run_seq = self._whole_seq = self._run_seq + 1
        self._link.offer(self._run_seq, (event,), closes_call=request_key(request))

    def _check_open(self) -> None:
        if self.closed:
            raise RunEnded("the run is over; nothing more can begin in it")

    def _note(self, kind: int, event: bytes) -> tuple[str, str]:
        """Ids of the call that the event opens and of the one that it closes."""
        if kind == events.TOOL_EXECUTING:
            began = Event.FromString(event).tool_executing
            self.open_calls[began.call] = began.tool
            return began.call, ""
        if kind == events.TOOL_COMPLETED:
            call = Event.FromString(event).tool_completed.call
            self.open_calls.pop(call, None)
            return "", call
        return "", ""


def export(record: SpanRecord) -> None:
    """Export a span that was finished elsewhere."""
    own = parse_traceparent(record.trace)
    if own is None:
        return
    version, trace_id, _, flags = record.trace.split("-", 3)
    parent = parse_traceparent(f"{version}-{trace_id}-{record.parent_id}-{flags}")
    span = ChainSpan(record.name, own, parent, SpanKind.INTERNAL, dict(record.attributes), ())
    span.start_ns = record.start_ns
    if record.error:
        span.set("error.type", record.error)
        span.fault = record.error
    span.end(record.end_ns)
