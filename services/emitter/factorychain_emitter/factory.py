"""Makes the emitter of each run.

Invariant: every run has an emitter of its own, made from its verified token alone; it shares with
other runs the stream to the bridge and nothing else.
"""

from __future__ import annotations

import time

from factorychain._core import genai
from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.link import LinkClient, Receipts
from factorychain._core.telemetry import record_creation, span
from factorychain._core.tracing import Attributes
from factorychain.bridge.v1.bridge_pb2 import PublishRequest
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain_emitter.user_emitter import UserWebSocketEmitter
from factorychain_emitter.validation import Limits


class EmitterFactory:
    """The `LinkHandler` of `EmitterService.Emit`."""

    def __init__(self, bridge: LinkClient[PublishRequest], limits: Limits) -> None:
        self._bridge = bridge
        self._limits = limits

    def open(
        self, ctx: UserExecutionContext, opening: RunOpen, receipts: Receipts
    ) -> UserWebSocketEmitter:
        """Makes a run's emitter."""
        began_s = time.perf_counter()
        attributes: Attributes = {
            genai.RUN: ctx.run,
            genai.CONVERSATION: ctx.thread,
            genai.AGENT: ctx.agent,
            genai.ATTEMPT: ctx.attempt,
        }
        with span("emitter open", parent=opening.trace, attributes=attributes) as opened:
            emitter = UserWebSocketEmitter(ctx, opening, receipts, self._limits)
            crash_point("emitter.run.opened")
            try:
                upstream = self._bridge.open(
                    ctx,
                    trace=opened.traceparent,
                    resumed=opening.resumed,
                    durable_run_seq=opening.durable_run_seq,
                    observer=emitter,
                )
                emitter.connect(upstream)
                record_creation("websocket_emitter", time.perf_counter() - began_s)
            except BaseException:
                emitter.close()
                raise
        return emitter
