"""Where it goes: the bridge's part of every run, and of every thread that somebody watches.

Invariant: a run's route exists from its opening by a verified token until its channel is closed or
refused; after that nothing of the run is left here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal, parse_run_id, parse_thread_id
from factorychain._core.link import Receipts
from factorychain._core.telemetry import record_creation, up_down_counter
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain_bridge.hub import Hub, HubStatistics
from factorychain_bridge.integration import Integration
from factorychain_bridge.items import Sink
from factorychain_bridge.routes import Routes
from factorychain_bridge.subscription import Subscription
from factorychain_bridge.writer import LogAccess, RunWriter

_open_routes = up_down_counter("factorychain.bridge.routes", "Runs that write here now", "{run}")


@dataclass(frozen=True, slots=True)
class BridgeStatistics:
    """What a bridge holds now."""

    routes: int
    writers: int
    live: HubStatistics


class AgentWebSocketBridge:
    """Takes runs from emitters into the log, and brings threads from the log to their users.

    The `LinkHandler` of `BridgeService.Publish`; sockets and streams subscribe through `hub`.
    """

    def __init__(self, access: LogAccess, hub: Hub, integration: Integration) -> None:
        self._access = access
        self._routes: Routes[RunWriter] = Routes()
        self.hub = hub
        self.integration = integration

    # --- component -----------------------------------------------------------------------------

    name = "bridge"

    @property
    def healthy(self) -> bool:
        return self._access.tasks.healthy

    async def start(self) -> None:
        """Nothing to do: routes are made by those who open runs."""

    async def stop(self) -> None:
        """Let go of all runs; what is not acknowledged their emitters send to another replica."""
        for writer in self._routes.all():
            writer.close()
        await self._access.tasks.close()

    # --- from emitters -------------------------------------------------------------------------

    def open(self, ctx: UserExecutionContext, opening: RunOpen, receipts: Receipts) -> RunWriter:
        """Make the route of one run and attempt.

        Raises:
            AttemptSuperseded: A later attempt of the run writes here.
        """
        began_s = time.perf_counter()
        writer = RunWriter(
            ctx,
            receipts,
            self._access,
            resumed=opening.resumed,
            trace=opening.trace,
            on_close=self._close,
        )
        try:
            crash_point("bridge.run.opened")
            replaced = self._routes.open(writer)
            if replaced is None:
                _open_routes.add(1)
            else:
                replaced.supersede()
            record_creation("bridge_integration", time.perf_counter() - began_s)
        except BaseException:
            writer.close()
            raise
        return writer

    def _close(self, writer: RunWriter) -> None:
        if self._routes.close(writer):
            _open_routes.add(-1)

    # --- to users ------------------------------------------------------------------------------

    async def subscribe(
        self, principal: Principal, thread: str, after: int, epoch: int, sink: Sink
    ) -> Subscription:
        """A subscription to one of the principal's threads; the principal is connected to the hub.

        Raises:
            InvalidField: The thread id is malformed.
            NatsUnavailable: The thread could not be read.
        """
        return await self.hub.subscribe(principal, parse_thread_id(thread), after, epoch, sink)

    def thread_of(self, principal: Principal, run: str) -> str | None:
        """The thread of one of the principal's runs that writes here; None: not here, or not theirs.

        Raises:
            InvalidField: The run id is malformed.
        """
        return self._routes.thread_of(principal, parse_run_id(run))

    # --- everything ----------------------------------------------------------------------------

    def statistics(self) -> BridgeStatistics:
        return BridgeStatistics(len(self._routes), len(self._access.tasks), self.hub.statistics())
