"""`grpc.health.v1`: whether each service of a process takes new work.

Invariant: every watcher hears each change and is let go when the server drains, so that a probe
never holds up a stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE = "grpc.health.v1.Health"
# Serving as long as the event loop answers. What supervisors restart by: a process that takes no new
# work because NATS or a peer is away must not be restarted for it.
LIVENESS = "liveness"


class HealthService(health_pb2_grpc.HealthServicer):
    """The states of the services that a process offers; "" is the process as a whole."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services) | {"", SERVICE, LIVENESS}
        self._serving = False
        self._draining = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        return self._serving

    def set_serving(self, serving: bool) -> None:
        """Says so to those who ask and to those who watch; draining is final."""
        if serving != self._serving and not self._draining:
            self._serving = serving
            self._wake()

    def drain(self) -> None:
        """NOT_SERVING for good; watchers are told and let go."""
        self._serving = False
        self._draining = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._serving or service == LIVENESS:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    async def Check(  # noqa: N802 - gRPC's name
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(  # noqa: N802 - gRPC's name
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        while True:
            # Taken before the state is read: a change in between is not missed.
            changed = self._changed
            yield health_pb2.HealthCheckResponse(status=self._status(request.service))
            if self._draining:
                return
            await changed.wait()
