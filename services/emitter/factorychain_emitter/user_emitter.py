"""What one run may say.

Invariants: what leaves is validated, in legal order and sanitised; it leaves in the order in which
it came; an event counts as acknowledged when it and everything before it is durable or was rejected;
and a rejection is always told, logged and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from factorychain._core import genai
from factorychain._core.crash_points import crash_point
from factorychain._core.event_kinds import DELTAS, ENDINGS
from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.link.refusal import Refusal
from factorychain._core.link.server import Receipts
from factorychain._core.telemetry import span
from factorychain.errors import InvalidField
from factorychain.types.v1.event_pb2 import Event, InputReceived, ToolCompleted, ToolFailure
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain_emitter.message_streams import Leaving, MessageStreams
from factorychain_emitter.order import RunOrder
from factorychain_emitter.redaction import Scanner
from factorychain_emitter.rejection import Rejected
from factorychain_emitter.reporting import UNREADABLE, RunReport
from factorychain_emitter.sanitising import Sanitiser, readable
from factorychain_emitter.validation import Limits, Validator, check_scope, fail


class Upstream(Protocol):
    """Where a run's events go: a `LinkRun` to the bridge."""

    @property
    def all_durable(self) -> bool: ...

    def renew(self, token: str) -> None: ...

    def offer(self, run_seq: int, events: Sequence[bytes]) -> None: ...

    def discard(self) -> None: ...


class UserWebSocketEmitter:
    """The emitter of one run and attempt, for its one user. Lives as long as the run's channel.

    Towards agents it is the channel's handler, towards the bridge it observes the run it sends.
    """

    def __init__(
        self, ctx: UserExecutionContext, opening: RunOpen, receipts: Receipts, limits: Limits
    ) -> None:
        self._ctx = ctx
        self._trace = opening.trace
        self._receipts = receipts
        self._lifecycle = ctx.scope is Scope.LIFECYCLE
        self._scanner = scanner = Scanner([ctx.token])
        self._sanitiser = Sanitiser(scanner)
        self._validator = Validator(ctx, limits, self._sanitiser)
        self._streams = MessageStreams(scanner)
        self._order = RunOrder(
            lifecycle=self._lifecycle,
            started=opening.durable_run_seq > 0,
            open_calls=opening.open_calls,
            open_requests=opening.open_requests,
        )
        self._report = RunReport(ctx)
        self._upstream: Upstream | None = None
        self._opened: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._forwarded: deque[tuple[int, int]] = deque()  # first and last number of each event
        self._last = self._acknowledged = opening.durable_run_seq
        self._closed = False
        self.durable_run_seq = opening.durable_run_seq

    def connect(self, upstream: Upstream) -> None:
        """Says where events go; before the first one comes."""
        self._upstream = upstream

    async def wait_opened(self) -> None:
        """Returns when the bridge has said what is durable; raises what it refuses the run with."""
        self.durable_run_seq = max(self.durable_run_seq, await self._opened)

    # --- from agents ------------------------------------------------------------------------

    def events(self, events: list[tuple[int, bytes]]) -> None:
        """Takes events, in order; raises nothing for what is wrong with them."""
        crash_point("emitter.event.taken")
        for run_seq, raw in events:
            if self._lifecycle:
                self._take(run_seq, raw)
            elif run_seq > self._last:
                if not self._follows(run_seq):
                    self._refuse_gap(run_seq)
                    return
                self._last = run_seq
                self._take(run_seq, raw)
        crash_point("emitter.event.forwarded")
        self._count_redactions()
        self._acknowledge()

    def renewed(self, ctx: UserExecutionContext) -> None:
        """The run has another token: it leaves as little as the one before."""
        self._ctx = ctx
        self._scanner.add(ctx.token)
        if self._upstream is not None:
            self._upstream.renew(ctx.token)

    def close(self) -> None:
        """The run's channel is over; what is not durable will be sent again, or is not wanted."""
        if self._closed:
            return
        self._closed = True
        self._report.close()
        self._opened.cancel()
        if self._upstream is not None:
            self._upstream.discard()

    def _follows(self, run_seq: int) -> bool:
        if self._last < self.durable_run_seq and run_seq == self.durable_run_seq + 1:
            # A sender that does not replay goes on behind what is durable.
            self._order.assume_started()
            return True
        return run_seq == self._last + 1

    def _refuse_gap(self, run_seq: int) -> None:
        error = InvalidField("run_seq", f"{run_seq} does not follow {self._last}; it must be dense")
        self._receipts.refused(Refusal.of(error))
        self.close()

    def _take(self, run_seq: int, raw: bytes) -> None:
        kind = UNREADABLE
        try:
            check_scope(self._ctx, run_seq)
            event = readable(raw)
            kind = event.WhichOneof("event") or UNREADABLE
            if kind == UNREADABLE:
                raise Rejected("UNKNOWN_EVENT", "the event is of no kind that this version knows")
            self._validator.check(kind, event, len(raw))
            if kind == "agent_completed" and not self._order.has_begun:
                # A run that has said nothing is no success; and an ending is mended, never rejected.
                fail(event, "INTERNAL", "The run was said to be complete and had never begun")
            kind = event.WhichOneof("event") or kind  # an ending may have become another
            self._order.take(kind, event)
        except Rejected as rejected:
            self._reject(kind, run_seq, rejected)
            return
        if kind in DELTAS:
            self._take_delta(run_seq, kind, event)
        else:
            self._take_whole(run_seq, kind, event)

    def _take_delta(self, run_seq: int, kind: str, event: Event) -> None:
        leaving = self._streams.take(run_seq, kind, event)
        if self._streams.held_from is not None:
            self._report.held()
        self._let_leave(leaving)

    def _take_whole(self, run_seq: int, kind: str, event: Event) -> None:
        ends = kind in ENDINGS
        self._let_leave(self._streams.release(last=ends))
        if ends:
            self._end(run_seq, kind, event)
        else:
            self._forward(run_seq, run_seq, kind, event.SerializeToString())

    def _let_leave(self, leaving: list[Leaving]) -> None:
        for each in leaving:
            # A delta whose whole text was taken out has nothing to say any more.
            if not each.empty:
                kind = each.event.WhichOneof("event") or ""
                self._forward(each.first, each.last, kind, each.event.SerializeToString())

    def _end(self, run_seq: int, kind: str, event: Event) -> None:
        """The ending, and before it, in one piece with it, the end of every call that is open."""
        parent = event.trace or self._trace
        with span("emitter ending", parent=parent, attributes={genai.RUN: self._ctx.run}) as ending:
            ending.set("factorychain.event", kind)
            if kind == "agent_failed":
                ending.set(genai.ERROR_TYPE, event.agent_failed.reason)
            closing = [
                _abandoned(call, tool, event).SerializeToString()
                for call, tool in self._order.open_calls.items()
            ]
            closing += [
                _unanswered(request, event).SerializeToString()
                for request in self._order.open_requests
            ]
            self._report.abandoned(len(closing))
            self._forward(run_seq, run_seq, kind, *closing, event.SerializeToString())

    def _forward(self, first: int, last: int, kind: str, *events: bytes) -> None:
        # Up to here it is durable already; it came again only so that the order is known.
        if self._upstream is None or (0 < last <= self.durable_run_seq):
            return
        self._report.passed(kind)
        self._forwarded.append((first, last))
        self._upstream.offer(last, events)

    def _reject(self, kind: str, run_seq: int, rejected: Rejected) -> None:
        if 0 < run_seq <= self.durable_run_seq:
            return  # it was told when it came for the first time
        self._report.rejected(kind, run_seq, rejected)
        self._receipts.rejected(run_seq, rejected.reason, rejected.message)

    def _count_redactions(self) -> None:
        for found in (self._sanitiser.redacted, self._streams.redacted):
            if found:
                self._report.redacted(found)
                found.clear()

    # --- from the bridge --------------------------------------------------------------------

    def opened(self, durable_run_seq: int) -> None:
        if not self._opened.done():
            self._opened.set_result(durable_run_seq)
        self._settle(durable_run_seq, ended=False)

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        crash_point("emitter.event.durable")
        self._settle(durable_run_seq, ended)

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        self._reject(UNREADABLE, run_seq, Rejected(reason, message))

    def refused(self, refusal: Refusal) -> None:
        if not self._opened.done():
            self._opened.set_exception(refusal.to_error())
            self._opened.exception()  # nobody may be waiting
        self._receipts.refused(refusal)
        self.close()

    def paused(self, refusal: Refusal) -> None:
        """The bridge cannot take the run now: what is not acknowledged waits in its window."""

    def _settle(self, durable_run_seq: int, ended: bool) -> None:
        if self._lifecycle:
            if self._upstream is not None and self._upstream.all_durable:
                self._forwarded.clear()
        else:
            while self._forwarded and self._forwarded[0][1] <= durable_run_seq:
                self._forwarded.popleft()
        self._acknowledge(ended=ended)

    def _acknowledge(self, *, ended: bool = False) -> None:
        if self._lifecycle:
            # Nothing is numbered: an acknowledgement covers everything that came.
            if not self._forwarded:
                self._receipts.acknowledged(0, ended)
            return
        settled = self._settled()
        if settled > self._acknowledged or ended:
            self._acknowledged = max(settled, self._acknowledged)
            self._receipts.acknowledged(self._acknowledged, ended)

    def _settled(self) -> int:
        """Up to where everything is durable or was rejected."""
        if self._forwarded:
            return self._forwarded[0][0] - 1
        held_from = self._streams.held_from
        return self._last if held_from is None else held_from - 1


def _unanswered(request: str, ending: Event) -> Event:
    """The end of a question that the run did not wait for."""
    at = Timestamp()
    at.CopyFrom(ending.at)
    received = InputReceived(request=request, value_json="null", closed="CANCELLED")
    return Event(at=at, trace=ending.trace, input_received=received)


def _abandoned(call: str, tool: str, ending: Event) -> Event:
    """The end of a call that the run did not wait for."""
    at = Timestamp()
    at.CopyFrom(ending.at)
    error = ToolFailure(
        reason="CALL_ABANDONED", message="The run ended before the tool had finished"
    )
    completed = ToolCompleted(call=call, tool=tool, ok=False, result_json="null", error=error)
    return Event(at=at, trace=ending.trace, tool_completed=completed)
