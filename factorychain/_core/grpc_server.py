"""The gRPC server of a service.

Invariants: nothing is served that is not wrapped by the interceptor, and no method without a
contract; a drain says NOT_SERVING before anything else; serving tasks start from an empty context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from factorychain._core.carried import CarriedCalls
from factorychain._core.component import detached
from factorychain._core.contracts import CARRY_CALLS, contracts_of
from factorychain._core.credentials import Authenticator
from factorychain._core.grpc_options import Options, options_of_both_ends
from factorychain._core.health import SERVICE as HEALTH_SERVICE
from factorychain._core.health import HealthService
from factorychain._core.logging import get_logger
from factorychain._core.server_interceptor import ServerInterceptor
from factorychain._core.settings import TransportSettings

log = get_logger(__name__)

# In quotes: grpc's classes are generic in their stubs only.
_Handlers: TypeAlias = "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"


@dataclass(frozen=True, slots=True)
class Service:
    """One service of a server: its descriptor, grpc's generated `add_…`, and who serves it."""

    descriptor: ServiceDescriptor
    # The generated function's first parameter is its own servicer class.
    add: Callable[[Any, Any], None]
    servicer: object


class GrpcServer:
    """Serves services with health checking and reflection."""

    def __init__(
        self,
        settings: TransportSettings,
        services: Sequence[Service],
        authenticator: Authenticator,
        *,
        name: str = "grpc server",
        drain_timeout_s: float = 10.0,
        credentials: grpc.ServerCredentials | None = None,
        serving: bool = True,
    ) -> None:
        """`serving=False` starts as NOT_SERVING until `set_serving(True)`.

        `drain_timeout_s` is what running calls get to finish before they are cancelled: less than
        the whole service has for its drain.
        """
        self.name = name
        self.address = ""
        self.health_address = ""
        self._settings = settings
        self._drain_timeout_s = drain_timeout_s
        self._credentials = credentials
        self._serving_at_start = serving
        self._names = [each.descriptor.full_name for each in services]
        self.health = HealthService(self._names)
        # Wrapped now: what has no contract or can't be checked is refused before anything runs.
        self._carried: list[CarriedCalls] = []
        self._table = self._handlers(services, ServerInterceptor(authenticator))
        self._server: grpc.aio.Server | None = None
        self._probes: grpc.aio.Server | None = None
        self._on_drain: list[Callable[[], None]] = []

    @property
    def healthy(self) -> bool:
        return self._server is not None

    def set_serving(self, serving: bool) -> None:
        """What health checks answer; calls are taken all the same."""
        if serving != self.health.serving:
            log.info("serving" if serving else "not serving", component=self.name)
        self.health.set_serving(serving)

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Called when the drain begins: who holds long streams ends them then."""
        self._on_drain.append(callback)

    async def start(self) -> None:
        names = [*self._names, HEALTH_SERVICE, reflection.SERVICE_NAME]
        table = {**self._table, **_health_handlers(self.health), **_reflection_handlers(names)}
        self._server = grpc.aio.server(handlers=[_Table(table)], options=_options(self._settings))
        self.address = _bind(self._server, self._settings.listen, self._credentials)
        if self._settings.listen_also:
            _bind(self._server, self._settings.listen_also, self._credentials)
        # The task that accepts calls lives on, and with it the context that it was started in.
        await detached(self._server.start(), name=f"{self.name}:start")
        await self._start_probes()
        self.set_serving(self._serving_at_start)

    async def _start_probes(self) -> None:
        if not self._settings.health_listen:
            return
        self._probes = grpc.aio.server(handlers=[_Table(_health_handlers(self.health))])
        self.health_address = _bind(self._probes, self._settings.health_listen, None)
        await detached(self._probes.start(), name=f"{self.name}:probes")

    async def stop(self) -> None:
        """NOT_SERVING, no new calls, time for those that run, then the end."""
        self.health.drain()
        for callback in self._on_drain:
            callback()
        for each in self._carried:
            each.drain()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(self._drain_timeout_s)
        probes, self._probes = self._probes, None
        if probes is not None:
            await probes.stop(None)

    def _handlers(self, services: Sequence[Service], interceptor: ServerInterceptor) -> _Handlers:
        table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for service in services:
            found = _collect(service.add, service.servicer)
            own = {}
            for contract in contracts_of(service.descriptor):
                if contract.path not in found:
                    raise ValueError(
                        f"{service.descriptor.full_name} has no handler for {contract.path}"
                    )
                if contract.method != CARRY_CALLS:
                    own[contract.path] = interceptor.wrap(contract, found[contract.path])
            table |= own
            table |= self._carrying(service, own, found, interceptor)
        return table

    def _carrying(
        self,
        service: Service,
        own: _Handlers,
        found: _Handlers,
        interceptor: ServerInterceptor,
    ) -> _Handlers:
        """What carries calls to the service's own handlers, if it has that."""
        contracts = {each.method: each for each in contracts_of(service.descriptor)}
        carry = contracts.get(CARRY_CALLS)
        if carry is None:
            return {}
        method = service.descriptor.methods_by_name[CARRY_CALLS]
        response = GetMessageClass(method.output_type)
        carried = CarriedCalls(
            {each.path: own[each.path] for each in contracts.values() if each.carried},
            lambda answers: response(answers=answers),
        )
        self._carried.append(carried)
        handler = grpc.stream_stream_rpc_method_handler(
            carried.serve,
            found[carry.path].request_deserializer,
            found[carry.path].response_serializer,
        )
        return {carry.path: interceptor.wrap(carry, handler)}


class _Table(grpc.GenericRpcHandler):
    """Handlers by path. One generic handler: grpc.aio waits on one future for each registered
    method at every call, which is slower the more methods there are.
    """

    def __init__(self, table: _Handlers) -> None:
        self._table = table

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._table.get(handler_call_details.method)


class _Collector:
    """Stands in for a server in grpc's generated `add_…` functions, to get at the handlers."""

    def __init__(self) -> None:
        self.by_method: _Handlers = {}

    def add_registered_method_handlers(self, service: str, handlers: _Handlers) -> None:
        self.by_method = {f"/{service}/{name}": each for name, each in handlers.items()}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """The same handlers once more, for servers that know no registered ones."""


def _collect(add: Callable[[Any, Any], None], servicer: object) -> _Handlers:
    collector = _Collector()
    add(servicer, collector)
    return collector.by_method


def _health_handlers(health: HealthService) -> _Handlers:
    return _collect(health_pb2_grpc.add_HealthServicer_to_server, health)


def _reflection_handlers(names: Sequence[str]) -> _Handlers:
    return _collect(
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server,
        reflection.aio.ReflectionServicer(names),
    )


def _bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    """Listens; returns the address with the real port."""
    try:
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise RuntimeError(
            f"cannot listen on {listen}: it is in use or not an address of this machine; "
            "stop what listens there or set FACTORYCHAIN_LISTEN"
        ) from error
    if listen.startswith("unix"):
        return listen
    return f"{listen.rpartition(':')[0]}:{port}"


def _options(settings: TransportSettings) -> Options:
    options: Options = [
        # Two processes on one port must be an error, not a lottery.
        ("grpc.so_reuseport", 0),
        *options_of_both_ends(settings),
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.keepalive_min_s * 1000)),
    ]
    if settings.max_connection_age_s:
        options += [
            ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
            ("grpc.max_connection_age_grace_ms", int(settings.max_connection_age_grace_s * 1000)),
        ]
    return options
