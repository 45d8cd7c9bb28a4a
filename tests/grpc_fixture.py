"""A real gRPC server and channel whose handlers a test writes itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

from factorychain._core.credentials import Authenticator
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.ids import Principal
from factorychain._core.settings import TransportSettings
from factorychain.agents.v1 import agents_pb2, agents_pb2_grpc
from factorychain.emitter.v1 import emitter_pb2, emitter_pb2_grpc
from factorychain.engine.v1 import engine_pb2, engine_pb2_grpc
from factorychain.errors import TokenExpired, TokenInvalid
from tests.token_samples import run_context

SETTINGS = TransportSettings(listen="127.0.0.1:0", rpc_timeout_s=20)

Handler = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class User:
    principal: Principal
    expires_at_s: float
    claims: Mapping[str, object] = field(default_factory=dict)


@dataclass
class Users:
    """Takes `user:NAME`, for `lifetime_s`."""

    lifetime_s: float = 3600.0
    cached: dict[str, User] = field(default_factory=dict)

    def verify_cached(self, token: str) -> User | None:
        return self.cached.get(token)

    async def verify(self, token: str) -> User:
        if token == "user:expired":
            raise TokenExpired
        kind, _, name = token.partition(":")
        if kind != "user" or not name:
            raise TokenInvalid
        user = User(Principal("default", name), time.time() + self.lifetime_s)
        self.cached[token] = user
        return user


class Txns:
    """Takes `run:NAME`."""

    def verify(self, token: str, scopes: Collection[str]) -> UserExecutionContext:
        kind, _, run = token.partition(":")
        if kind != "run" or "run" not in scopes:
            raise TokenInvalid
        return run_context(principal=Principal("default", "alice"), run=run, token=token)


def _scripted(method: MethodDescriptor, script: dict[str, Handler]) -> Callable[..., Any]:
    if not method.server_streaming:

        async def unary(_self: object, request: Any, context: Any) -> Any:
            return await script[method.name](request, context)

        return unary

    async def stream(_self: object, request: Any, context: Any) -> AsyncIterator[Any]:
        async for message in script[method.name](request, context):
            yield message

    return stream


def scripted(module: Any, name: str, script: dict[str, Handler], grpc_module: Any) -> Service:
    """A service that answers what the script says for each method."""
    descriptor = module.DESCRIPTOR.services_by_name[name]
    methods = {each.name: _scripted(each, script) for each in descriptor.methods}
    add = getattr(grpc_module, f"add_{name}Servicer_to_server")
    return Service(descriptor, add, type("Scripted", (), methods)())


@dataclass
class Wire:
    """A server with three layers' services, and a channel to it."""

    server: GrpcServer
    channel: GrpcChannel
    users: Users
    script: dict[str, Handler]

    @property
    def engine(self) -> engine_pb2_grpc.EngineServiceStub:
        return engine_pb2_grpc.EngineServiceStub(self.channel.channel)

    @property
    def agents(self) -> agents_pb2_grpc.AgentsServiceStub:
        return agents_pb2_grpc.AgentsServiceStub(self.channel.channel)

    @property
    def emitter(self) -> emitter_pb2_grpc.EmitterServiceStub:
        return emitter_pb2_grpc.EmitterServiceStub(self.channel.channel)


def as_user(name: str) -> tuple[tuple[str, str]]:
    """Metadata of a call by this user."""
    return (("authorization", f"Bearer user:{name}"),)


def services(script: dict[str, Handler]) -> list[Service]:
    return [
        scripted(engine_pb2, "EngineService", script, engine_pb2_grpc),
        scripted(agents_pb2, "AgentsService", script, agents_pb2_grpc),
        scripted(emitter_pb2, "EmitterService", script, emitter_pb2_grpc),
    ]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    script: dict[str, Handler] = {}
    users = Users()
    server = GrpcServer(
        SETTINGS, services(script), Authenticator(users=users, txns=Txns()), drain_timeout_s=0.2
    )
    await server.start()
    channel = GrpcChannel(server.address, "engine", SETTINGS)
    await channel.start()
    yield Wire(server, channel, users, script)
    await channel.stop()
    await server.stop()
