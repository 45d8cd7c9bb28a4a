"""What the operations of a socket do: calls of the engine and subscriptions at the hub.

Invariants: whatever must be in the order of the frames (which threads are followed) happens when
`begin` is called, before anything is awaited; and an answer's `then` runs right after its reply was
queued, so that the reply to a start comes before the run's events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from factorychain._core.event_json import message_object
from factorychain._core.ids import (
    Principal,
    new_request_id,
    resumed_run_id,
    run_id_for,
    thread_id_for,
)
from factorychain._core.telemetry import SpanKind, span
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain_bridge.edge.awaiting import Awaited, Starting
from factorychain_bridge.edge.engine import Engine
from factorychain_bridge.edge.feeds import Feed, Feeds
from factorychain_bridge.edge.frames import Call, Operation, Respond, Start, Subscribe, Unsubscribe


@dataclass(frozen=True, slots=True)
class Answer:
    """The result for the reply, and what is to happen once the reply is queued."""

    result: Mapping[str, object]
    then: Callable[[], None] = lambda: None


# Not a coroutine: a task may be cancelled before it has begun one.
Later = Callable[[], Awaitable[Answer]]


class Operations:
    """Shared by all sockets; knows nothing of any of them between two calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(
        self, operation: Operation, feeds: Feeds, principal: Principal, token: str
    ) -> Answer | Later:
        """The answer, or what gives it later.

        Raises:
            FactoryChainError: The operation is refused; the same may come out later.
        """
        if isinstance(operation, Start):
            return self._begin_start(operation.request, feeds, principal, token)
        if isinstance(operation, Subscribe):
            feed = feeds.open(operation.thread)
            return partial(_located, feeds, feed, operation.after, operation.epoch)
        if isinstance(operation, Unsubscribe):
            feeds.unsubscribe(operation.thread)
            return Answer({})
        if isinstance(operation, Respond):
            awaited = feeds.expect(resumed_run_id(principal, operation.request.run))
            return partial(self._respond, operation.request, feeds, awaited, token)
        return partial(self._call, operation, token)

    # --- start ---------------------------------------------------------------------------------

    def _begin_start(
        self, request: pb.StartRunRequest, feeds: Feeds, principal: Principal, token: str
    ) -> Later:
        if not request.request_id:
            request.request_id = new_request_id()
        run = run_id_for(principal, request.request_id)
        if not request.thread:
            request.thread = thread_id_for(run)
        starting = feeds.start(request.thread, run)
        return partial(self._start, request, run, feeds, starting, token)

    async def _start(
        self, request: pb.StartRunRequest, run: str, feeds: Feeds, starting: Starting, token: str
    ) -> Answer:
        # A root: what a client says about its own trace is not taken for a parent.
        attributes = {"factorychain.run": run}
        with span("edge start", kind=SpanKind.SERVER, parent="", attributes=attributes):
            try:
                response = await self._engine.start(request, token)
                return await _started(response, feeds, starting)
            except BaseException:
                starting.refused()
                raise

    # --- respond -------------------------------------------------------------------------------

    async def _respond(
        self, request: pb.RespondToRunRequest, feeds: Feeds, awaited: Awaited, token: str
    ) -> Answer:
        try:
            response = await self._engine.call("RespondToRun", request, token)
            assert isinstance(response, pb.RespondToRunResponse), "what that call answers"
            result = message_object(response)
            if response.run == request.run or feeds.following(response.thread):
                return Answer(result, awaited.over)
            feed = feeds.open(response.thread)
            _, go = await feeds.locate(feed, response.after, response.epoch)
        except BaseException:
            awaited.over()
            raise

        def both() -> None:
            awaited.over()
            go()

        return Answer(result, both)

    # --- calls ---------------------------------------------------------------------------------

    async def _call(self, operation: Call, token: str) -> Answer:
        response = await self._engine.call(operation.method, operation.request, token)
        return Answer(message_object(response))


async def _started(response: pb.StartRunResponse, feeds: Feeds, starting: Starting) -> Answer:
    result = message_object(response)
    after, epoch = response.after, response.epoch
    if response.existing:
        feeds.found(response.run)
    if not response.existing or feeds.following(response.thread):
        return Answer(result, lambda: starting.begun(after, epoch))
    # The same start again: its events may be in the log already.
    _, go = await feeds.locate(feeds.open(response.thread), after, epoch)

    def both() -> None:
        starting.begun(after, epoch)
        go()

    return Answer(result, both)


async def _located(feeds: Feeds, feed: Feed, after: int, epoch: int) -> Answer:
    result, go = await feeds.locate(feed, after, epoch)
    return Answer(result, go)
